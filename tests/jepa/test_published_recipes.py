"""The recipes of the papers: every config builds, and has the parameters that were published (in millions)."""

from pathlib import Path

import pytest
import torch

from jepa.config import load
from jepa.methods.levjepa import LeVJEPA
from jepa.methods.vjepa import VJEPA
from jepa.runs.method import build_method
from jepa.runs.schema import PretrainConfig, VideoViTConfig

FOLDER = Path(__file__).parents[2] / "configs" / "pretrain" / "published"
# V-JEPA 2's to the last digit published (304, 632 and 1012 M; predictors of 22 M). V-JEPA 2.1 and LeVJEPA publish names
# of sizes only (80 M, 300 M, 1 B, 2 B; ViT-B and L).
PUBLISHED = {
    "vjepa2_vitl": (303.9, 22.1),
    "vjepa2_vitl_cooldown": (303.9, 22.1),
    "vjepa2_vith": (631.6, 22.3),
    "vjepa2_vith_cooldown": (631.6, 22.3),
    "vjepa2_vitg": (1012.2, 22.4),
    "vjepa2_vitg_cooldown": (1012.2, 22.4),
    "vjepa2_1_vitb": (86.8, None),
    "vjepa2_1_vitl": (304.7, None),
    "vjepa2_1_vitg": (1013.3, None),
    "vjepa2_1_vitg_2b": (1845.2, None),
    "levjepa_vitb": (85.6, None),
    "levjepa_vitl": (303.1, None),
}


def test_every_recipe_is_in_the_table():
    assert {path.stem for path in FOLDER.glob("*.yaml")} == set(PUBLISHED)


@pytest.mark.parametrize("name", PUBLISHED)
def test_a_recipe_has_the_published_parameters(name: str):
    path = FOLDER / f"{name}.yaml"
    config = load(path, PretrainConfig)
    assert config.data.image_size is not None
    with torch.device("meta"):
        method = build_method(config, config.data.image_size, 0)
    encoder, predictor = PUBLISHED[name]
    assert millions(method.encoder) == pytest.approx(encoder, abs=0.05)
    assert isinstance(method, LeVJEPA if name.startswith("levjepa") else VJEPA)
    if predictor is not None:
        assert isinstance(method, VJEPA) and millions(method.predictor) == pytest.approx(predictor, abs=0.05)
    header = path.read_text().splitlines()
    assert header[0] == f"# jepa pretrain configs/pretrain/published/{name}.yaml"
    assert any("not run here" in line for line in header[:4]), "says that it was not run"


@pytest.mark.parametrize(
    ("name", "levels"),
    [
        ("vitb", (2, 5, 8, 11)),
        ("vitl", (5, 11, 17, 23)),
        ("vitg", (9, 19, 29, 39)),
        ("vitg_2b", (11, 23, 37, 47)),
    ],
)
def test_levels_are_those_of_v_jepa_2_1(name: str, levels: tuple[int, ...]):
    encoder = load(FOLDER / f"vjepa2_1_{name}.yaml", PretrainConfig).encoder
    assert isinstance(encoder, VideoViTConfig) and encoder.levels == levels


def millions(module: torch.nn.Module) -> float:
    return sum(parameter.numel() for parameter in module.parameters()) / 1e6
