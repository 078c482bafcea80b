"""The state read off by maps that are fitted to a few labelled episodes."""

import pytest
import torch

from jepa.config import UserError
from jepa_probes.probing.features import Features
from jepa_probes.probing.few_labels import few_label_rows
from jepa_probes.probing.state import fit_state

NAMES = ("puck.x", "puck.y")


def features(width: int, noise: float, episodes: int, seed: int) -> Features:
    """Latents [E, 2, 1, width] whose first two numbers are the state, the others noise of that size."""
    generator = torch.Generator().manual_seed(seed)
    states = torch.rand(2 * episodes, 2, 2, generator=generator)
    others = noise * torch.randn(2 * episodes, 2, width - 2, generator=generator)
    keys = tuple(f"episode-{number // 2}" for number in range(2 * episodes))
    return Features(torch.cat([states, others], -1)[:, :, None], states, {}, keys, NAMES)


def table() -> dict[str, tuple[Features, Features]]:
    """Compact latents and wide ones, of the same states."""
    parts = {"pretrained": (4, 0.5), "pixels": (200, 0.5), "supervised": (2, 0.0)}
    return {name: (features(*about, 40, 0), features(*about, 20, 1)) for name, about in parts.items()}


def test_compact_latents_need_fewer_labels() -> None:
    rows = few_label_rows(table(), (4, 20), "floor")
    assert list(rows) == ["state_r2.4_episodes", "state_r2.20_episodes"]
    r2 = {name: {column: value or 0.0 for column, value in row.items()} for name, row in rows.items()}
    few = r2["state_r2.4_episodes"]
    assert few["pretrained"] > few["pixels"] + 0.2
    assert r2["state_r2.20_episodes"]["pixels"] > few["pixels"]
    assert few["floor"] < 0.1


def test_an_encoder_that_has_seen_all_labels_is_no_column() -> None:
    assert set(few_label_rows(table(), (4,), "floor")["state_r2.4_episodes"]) == {"pretrained", "pixels", "floor"}


def test_all_episodes_give_the_usual_score() -> None:
    parts = table()
    train, test = parts["pretrained"]
    row = few_label_rows(parts, (40,), "floor")["state_r2.40_episodes"]
    assert row["pretrained"] == pytest.approx(fit_state(train).score(test).state_r2)


def test_a_headline_of_other_groups() -> None:
    row = few_label_rows(table(), (40,), "floor", headline=["puck.position"])["state_r2.40_episodes"]
    assert row["pretrained"] == pytest.approx(
        few_label_rows(table(), (40,), "floor")["state_r2.40_episodes"]["pretrained"]
    )


def test_more_episodes_than_there_are() -> None:
    with pytest.raises(UserError, match="41 episodes asked for, and 40 are there"):
        few_label_rows(table(), (10, 41), "floor")
