"""Shipped configs of `jepa online`: headers, and DreamerV3's numbers in the published one."""

from pathlib import Path

import pytest
import torch

from jepa.config import load
from jepa.encoders.dreamer_conv import DreamerConv
from jepa.online.config import OnlineConfig

ROOT = Path(__file__).parents[3]
SHIPPED = sorted((ROOT / "configs" / "online").rglob("*.yaml"))
PUBLISHED = ROOT / "configs" / "online" / "published" / "dreamer_v3_atari100k.yaml"


@pytest.mark.parametrize("path", SHIPPED, ids=lambda path: path.stem)
def test_every_shipped_config_parses_and_its_header_names_the_command(path: Path) -> None:
    load(path, OnlineConfig)
    assert path.read_text().startswith(f"# jepa online {path.relative_to(ROOT)}")


def test_the_published_config_has_the_numbers_of_the_paper() -> None:
    config = load(PUBLISHED, OnlineConfig)
    assert (config.replay.batch_size, config.replay.sequence_frames) == (16, 64)
    assert config.controller.horizon == 15 and config.controller.discount == pytest.approx(1 - 1 / 333)  # pyright: ignore
    assert config.optimizer.kind == "laprop" and config.optimizer.adaptive_clip == 0.3
    assert config.optimizer.lr == 4e-5 and config.optimizer.betas == (0.9, 0.999)
    with torch.device("meta"):
        assert DreamerConv(config.encoder, 64, 64).width == 4 * 4 * 256  # pyright: ignore[reportArgumentType]
