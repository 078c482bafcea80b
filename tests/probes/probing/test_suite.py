"""All probes on real shards, and the table they fill."""

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import Tensor

from jepa_data.config import StreamConfig
from jepa_data.stream.loader import make_loader
from jepa_probes.probing import PROBES
from jepa_probes.probing.baselines import pca_pixels, pixels
from jepa_probes.probing.config import ProbeConfig
from jepa_probes.probing.features import Features, extract_all
from jepa_probes.probing.suite import score_features

CLASSIFIERS = [PROBES.make(described) for described in ProbeConfig().classifiers]
COLUMNS = {"pretrained", "other", "pixels", "pca_pixels", "floor"}


def test_every_score_stands_beside_all_baselines(corpus: Path) -> None:
    config = StreamConfig(shards=str(corpus), batch_size=8, clip_frames=12)
    train, test = (make_loader(config, split, seed=0, shuffle=False) for split in ("train", "test"))
    encodes = {"pretrained": pixels(2, 4), "other": pixels(2, 2), "pixels": pixels(2, 8)}
    names = train.shards.manifest.state_names
    splits = [extract_all(encodes, loader, 2, names) for loader in (train, test)]
    features = {name: (splits[0][name], splits[1][name]) for name in encodes}
    wide = splits[0]["pretrained"].latents.shape[-1]
    features["pca_pixels"] = pca_pixels(*features["pixels"], wide)
    results = score_features(features, classifiers=CLASSIFIERS, labels=["bodies"])
    assert set(features) == COLUMNS - {"floor"}
    assert features["pca_pixels"][0].latents.shape[-1] == features["pretrained"][0].latents.shape[-1]
    assert all(set(row) == COLUMNS for row in results.scores.values())
    assert {"state_r2", "state.puck.position", "state.bodies.velocity", "state.puck.vx"} <= results.scores.keys()
    assert {f"class.bodies.{p}.{a}" for p in ("linear", "attentive", "knn") for a in ("accuracy", "balanced")} <= (
        results.scores.keys()
    )
    finer, coarser = (results.scores["state.puck.position"][name] for name in ("pretrained", "other"))
    assert finer is not None and coarser is not None and finer > coarser


def test_two_runs_with_one_seed_give_the_same_numbers_and_another_label_is_left_out(
    features: Callable[..., Features], world: Callable[..., Tensor], caplog: pytest.LogCaptureFixture
) -> None:
    g = torch.Generator().manual_seed(0)
    labels = {"bouncy": torch.randint(-1, 2, (40,), generator=g), "same": torch.zeros(40, dtype=torch.long)}
    train = features(torch.randn(40, 10, 2, 4, generator=g), world(40, 0, absent=0.3), labels)
    test = features(torch.randn(40, 10, 2, 4, generator=g), world(40, 1, absent=0.3), labels, start=100)
    first, second = (score_features({"pretrained": (train, test)}, classifiers=CLASSIFIERS, seed=3) for _ in range(2))
    assert first.scores == second.scores and first.chosen == second.chosen
    assert "label same: not probed" in caplog.messages[0]
    assert first.counts["label_dropped"]["bouncy"] == 2 * int((labels["bouncy"] == -1).sum())


def test_plain_video_without_states_is_classified_only(features: Callable[..., Features]) -> None:
    y = torch.arange(30) % 2
    z = torch.randn(30, 4, 1, 3) + 3 * y[:, None, None, None]
    made = features(z, labels={"kind": y})
    results = score_features({"pretrained": (made, made)}, classifiers=CLASSIFIERS)
    assert all(row.startswith("class.kind.") for row in results.scores)
    assert results.scores["class.kind.linear.accuracy"] == {"floor": 0.5, "pretrained": 1.0}
