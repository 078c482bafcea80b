"""Extraction from real shards, the cache, and the split of training episodes."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from jepa.config import UserError
from jepa_data.config import StreamConfig
from jepa_data.stream.loader import ClipLoader, make_loader
from jepa_probes.probing.baselines import pixels
from jepa_probes.probing.features import (
    Features,
    cached,
    clip_embedding,
    extract,
    extract_all,
    fingerprint,
    split_episodes,
)


def loader(corpus: Path, split: str = "train", **changes: int) -> ClipLoader:
    config = StreamConfig(shards=str(corpus), batch_size=6, clip_frames=12).model_copy(update=changes)
    return make_loader(config, split, seed=0, shuffle=False)


def names(made: ClipLoader) -> tuple[str, ...]:
    return made.shards.manifest.state_names


def test_states_are_those_of_the_last_frame_of_each_step_and_every_clip_comes_once(corpus: Path) -> None:
    made = loader(corpus)
    features = extract(pixels(4, 8), made, 4, names(made))
    whole = torch.cat([batch.states for batch in made if batch.states is not None])
    torch.testing.assert_close(features.states, whole[:, [3, 7, 11]], equal_nan=True)
    assert features.keys == tuple(sample.key for sample in made.samples)
    assert set(features.labels) == {"bodies", "bouncy", "heavy"}
    assert features.actions is not None and features.actions.shape == (len(made.samples), 11, 2)


def test_frames_that_fill_no_step_are_left_out(corpus: Path) -> None:
    made = loader(corpus, clip_frames=11)
    features = extract(pixels(4, 8), made, 4, names(made), clips=7)
    assert features.latents.shape[:2] == (7, 2) == features.states.shape[:2]


def test_several_encoders_share_one_pass_and_agree_with_one_at_a_time(corpus: Path) -> None:
    made = loader(corpus, "test")
    both = extract_all({"coarse": pixels(2, 4), "fine": pixels(2, 16)}, made, 2, names(made))
    assert torch.equal(both["fine"].latents, extract(pixels(2, 16), made, 2, names(made)).latents)
    assert both["coarse"].latents.shape[-1] == 2 * 3 * 4 * 4
    # 16 px averaged 4 x 4 are the 4 px; the video is the same.
    again = nn.functional.avg_pool2d(both["fine"].latents.reshape(-1, 16, 16)[None], 4)
    torch.testing.assert_close(again.flatten(), both["coarse"].latents.flatten())


def test_what_does_not_fit_is_refused(corpus: Path) -> None:
    made = loader(corpus, "test")
    with pytest.raises(UserError, match="state columns, expected 1"):
        extract(pixels(2, 8), made, 2, ["x"])
    with pytest.raises(ValueError, match="3 latent steps, expected 6"):
        extract(pixels(4, 8), made, 2, names(made))
    with pytest.raises(UserError, match="not finite"):
        extract(lambda video: pixels(2, 8)(video) / 0, made, 2, names(made))
    with pytest.raises(UserError, match="nothing to probe"):
        extract(pixels(2, 8), [], 2, [])


def test_a_clip_embedding_is_the_same_for_any_order_of_steps() -> None:
    z = torch.randn(2, 5, 3, 4)
    torch.testing.assert_close(clip_embedding(z), clip_embedding(z[:, torch.tensor([3, 1, 4, 0, 2])]))


def test_no_episode_is_both_fitted_and_held_out() -> None:
    keys = [f"episode-{i // 3}" for i in range(60)]
    fit, held = split_episodes(keys, seed=0)
    assert sorted([*fit.tolist(), *held.tolist()]) == list(range(60)) and len(held) == 12
    assert not {keys[i] for i in fit} & {keys[i] for i in held}
    assert not torch.equal(held, split_episodes(keys, seed=1)[1])
    with pytest.raises(ValueError, match="at least 2 episodes"):
        split_episodes(["a", "a"], seed=0)


@pytest.fixture
def stored(features: Callable[..., Features], world: Callable[..., Tensor]) -> Features:
    made = features(torch.randn(5, 10, 2, 3), world(5, 0), {"heavy": torch.tensor([0, 1, -1, 1, 0])})
    return replace(made, actions=torch.randn(5, 19, 2))


def test_the_cache_gives_back_what_was_stored_and_encodes_nothing(
    stored: Features, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path = tmp_path / "deep" / "train.safetensors"
    cached(path, {"model": "a", "clips": {"frames": (1, 2)}}, lambda: stored)

    def never() -> Features:
        raise AssertionError("computed again")

    again = cached(path, {"model": "a", "clips": {"frames": (1, 2)}}, never)
    assert not caplog.messages and again.keys == stored.keys and again.state_names == stored.state_names
    assert torch.equal(again.latents, stored.latents) and torch.equal(again.labels["heavy"], stored.labels["heavy"])
    torch.testing.assert_close(again.states, stored.states, equal_nan=True)
    assert again.actions is not None and stored.actions is not None and torch.equal(again.actions, stored.actions)


def test_features_of_another_model_are_computed_again_and_the_reason_is_said(
    stored: Features, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path = tmp_path / "train.safetensors"
    cached(path, {"model": "a", "data": "d"}, lambda: stored)
    other = replace(stored, latents=stored.latents + 1)
    fresh = cached(path, {"model": "b", "data": "d"}, lambda: other)
    assert torch.equal(fresh.latents, other.latents)
    assert len(caplog.messages) == 1 and "features of another model" in caplog.messages[0]
    assert torch.equal(cached(path, {"model": "b", "data": "d"}, lambda: stored).latents, other.latents)


@pytest.mark.parametrize("damage", [b"", b"not a safetensors file", None])
def test_a_damaged_cache_is_computed_again(
    stored: Features, tmp_path: Path, damage: bytes | None, caplog: pytest.LogCaptureFixture
) -> None:
    path = tmp_path / "train.safetensors"
    cached(path, {"model": "a"}, lambda: stored)
    path.write_bytes(path.read_bytes()[:-100] if damage is None else damage)
    assert torch.equal(cached(path, {"model": "a"}, lambda: stored).latents, stored.latents)
    assert "not readable" in caplog.messages[0]
    cached(path, {"model": "a"}, lambda: stored)
    assert len(caplog.messages) == 1


def test_the_fingerprint_follows_weights_split_and_clips(corpus: Path) -> None:
    torch.manual_seed(0)
    module = nn.Sequential(nn.Linear(3, 2), nn.BatchNorm1d(2))
    made = loader(corpus)
    first = fingerprint(module, made)
    assert first == fingerprint(module, loader(corpus, batch_size=3))  # how many at once makes no difference
    assert fingerprint(module, loader(corpus, "test")) != first
    assert fingerprint(module, loader(corpus, clip_frames=10)) != first
    buffer = module[1].running_mean
    assert isinstance(buffer, Tensor)
    buffer += 1e-3
    assert fingerprint(module, made)["model"] != first["model"]
