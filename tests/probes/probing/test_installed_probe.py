"""A probe of another package: a config names its kind, and its scores stand in the table beside the shipped ones."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from importlib.metadata import EntryPoint
from typing import Any, Literal

import pytest
import torch
from jaxtyping import Float, Int
from torch import Tensor

from jepa.config import Component, ConfigError, component, from_dict
from jepa_probes.probing import PROBES
from jepa_probes.probing.base import ClassProbe, FittedProbe
from jepa_probes.probing.config import ProbeConfig
from jepa_probes.probing.features import Features, clip_embedding
from jepa_probes.probing.suite import score_features

POINTS = [EntryPoint("class_mean", f"{__name__}:ClassMean", "openjepa.probes")]


class ClassMean(ClassProbe):
    """The class whose mean is nearest."""

    class Config(Component):
        kind: Literal["class_mean"] = "class_mean"
        power: float = 2.0

    config: Config

    def fit(
        self,
        latents: Float[Tensor, "n S N D"],
        target: Int[Tensor, " n"],
        keys: Sequence[str],
        classes: int,
        *,
        seed: int,
    ) -> "FittedMeans":
        x = clip_embedding(latents)
        means = torch.stack([x[target == c].mean(0) for c in range(classes)])
        return FittedMeans(means, self.config.power)


@dataclass(frozen=True)
class FittedMeans(FittedProbe):
    means: Float[Tensor, "C D"]
    power: float

    def __call__(self, latents: Float[Tensor, "m S N D"]) -> Int[Tensor, " m"]:
        return torch.cdist(clip_embedding(latents), self.means, self.power).argmin(1)

    @property
    def chosen(self) -> dict[str, Any]:
        return {"class_mean_power": self.power}


def test_a_probe_of_an_installed_package_has_its_rows_in_the_table(
    features: Callable[..., Features], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(component, "entry_points", lambda group: [p for p in POINTS if p.group == group])
    y = torch.arange(30) % 2
    z = torch.randn(30, 4, 1, 3, generator=torch.Generator().manual_seed(0)) + 3 * y[:, None, None, None]
    made = features(z, labels={"color": y})
    config = from_dict({"classifiers": [{"kind": "class_mean", "power": 1}, {"kind": "knn"}]}, ProbeConfig)
    classifiers = [PROBES.make(described) for described in config.classifiers]
    results = score_features({"pretrained": (made, made)}, classifiers=classifiers)
    probes = ("class_mean", "knn")
    assert list(results.scores) == [f"class.color.{p}.{what}" for p in probes for what in ("accuracy", "balanced")]
    assert results.scores["class.color.class_mean.accuracy"] == {"floor": 0.5, "pretrained": 1.0}
    assert results.chosen["pretrained"].keys() == {"color.class_mean_power", "color.k"}


def test_a_config_without_classifiers_names_all_that_are_shipped() -> None:
    assert [described.kind for described in ProbeConfig().classifiers] == list(PROBES)


def test_two_probes_of_one_kind_would_share_their_rows_and_are_refused() -> None:
    with pytest.raises(ConfigError, match="expected each kind once, found knn"):
        from_dict({"classifiers": [{"kind": "knn"}, {"kind": "knn", "neighbors": [3]}]}, ProbeConfig)
