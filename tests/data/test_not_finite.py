"""Numbers that are not there: refused by the sample's name where shards are written, and named by the stream."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from jepa_data.config import StreamConfig
from jepa_data.curate.config import CurateConfig, TooShort
from jepa_data.curate.run import curate
from jepa_data.errors import DataError, DecodeError
from jepa_data.inspect.summary import lines, summary
from jepa_data.pack.pack import Packing, pack
from jepa_data.pack.recipe import Recipe
from jepa_data.shards import write
from jepa_data.shards.encode import encode_mp4
from jepa_data.shards.finite import as_float32, check_states
from jepa_data.shards.index import ShardSet
from jepa_data.shards.manifest import Manifest
from jepa_data.shards.write import ShardWriter
from jepa_data.sources.repack import read_shards
from jepa_data.stream.loader import make_loader

FRAMES, BAD = 6, "episode-2"
NAMES = ("hand.x", "hand.force")


def written(
    out: Path, *, actions: dict[str, np.ndarray] | None = None, states: dict[str, np.ndarray] | None = None
) -> Manifest:
    """Shards of six episodes; of some the arrays are given."""
    video = encode_mp4(np.zeros((FRAMES, 32, 32, 3), np.uint8), 10)
    random = np.random.default_rng(0)
    about: dict[str, Any] = {"fps": 10, "image_size": 32, "world": None, "seed": 0, "label_names": ()}
    with ShardWriter(out, **about, action_size=2, state_names=NAMES) as writer:
        for number in range(6):
            key = f"episode-{number}"
            done = random.uniform(-1, 1, (FRAMES - 1, 2)).astype(np.float32)
            known = random.uniform(-1, 1, (FRAMES, 2)).astype(np.float32)
            done, known = (actions or {}).get(key, done), (states or {}).get(key, known)
            writer.write("train" if number else "test", key, video, FRAMES, done, known, {})
    return Manifest.from_file((out / "manifest.json").read_text())


def with_hole(rows: int, value: float = np.nan, row: int = 3) -> np.ndarray:
    array = np.zeros((rows, 2), np.float32)
    array[row, 1] = value
    return array


@pytest.fixture
def damaged(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Shards as other software writes them: nobody looked at the numbers."""
    monkeypatch.setattr(write, "_checked_numbers", lambda key, actions, states, names: (actions, states, []))
    monkeypatch.setattr(ShardWriter, "_action_stats", lambda self: None)
    written(
        tmp_path / "damaged",
        actions={BAD: with_hole(FRAMES - 1)},
        states={"episode-3": with_hole(FRAMES), "episode-4": with_hole(FRAMES, np.inf)},
    )
    monkeypatch.undo()
    return tmp_path / "damaged"


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_an_action_that_is_not_a_number_is_refused_with_its_sample(tmp_path: Path, value: float) -> None:
    with pytest.raises(DataError, match=r"sample 'episode-2': its actions hold (nan|inf) \(number 2 of 2, .* frame 3"):
        written(tmp_path / "shards", actions={BAD: with_hole(FRAMES - 1, value)})


def test_a_state_that_is_missing_for_some_frames_is_refused_by_name(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"sample 'episode-2': its state hand.force is nan at frame 3"):
        written(tmp_path / "shards", states={BAD: with_hole(FRAMES)})


def test_a_state_that_does_not_exist_in_an_episode_is_stored_and_counted(tmp_path: Path) -> None:
    absent = np.zeros((FRAMES, 2), np.float32)
    absent[:, 1] = np.nan
    manifest = written(tmp_path / "shards", states={BAD: absent, "episode-0": absent})
    assert manifest.missing_states == {"hand.force": 2}
    told = "\n".join(lines(summary(ShardSet.open(tmp_path / "shards"))))
    assert "note: states that are missing (NaN) throughout a sample: hand.force in 2 samples" in told


def test_a_state_that_begins_with_the_first_step_may_be_missing_at_the_first_frame() -> None:
    """As a reward, which tells of the step that led to a frame."""
    assert check_states(with_hole(FRAMES, row=0)) == ()
    only_first = np.full((FRAMES, 1), np.nan, np.float32)
    assert check_states(only_first) == (0,) and check_states(only_first[:1]) == (0,)
    only_first[0] = 3.0
    with pytest.raises(DecodeError, match=r"number 1 of 1 is 3, and NaN later, at frame 0"):
        check_states(only_first)


def test_packing_and_curating_leave_out_what_is_not_finite_by_name(damaged: Path, tmp_path: Path) -> None:
    recipe = Recipe(fps=None, max_seconds=None)
    report = pack(read_shards(damaged), tmp_path / "packed", Packing(recipe), processes=1)
    rejected = [json.loads(line) for line in (tmp_path / "packed/rejected.jsonl").read_text().splitlines()]
    assert [line["source"] for line in rejected] == [BAD, "episode-3", "episode-4"]
    assert {line["kind"] for line in rejected} == {"not finite"}
    assert {s.key for s in ShardSet.open(tmp_path / "packed").samples} == {"episode-0", "episode-1", "episode-5"}
    assert len(report.rejected) == 3
    config = CurateConfig(stages=(TooShort(min_frames=2),))
    curated = curate(damaged, tmp_path / "curated", config, processes=0)
    assert {s.key for s in ShardSet.open(tmp_path / "curated").samples} == {"episode-0", "episode-1", "episode-5"}
    assert set(curated.dropped) == {BAD, "episode-3", "episode-4"} and "hand.force" in curated.dropped["episode-3"]


def test_the_stream_replaces_a_sample_with_nan_actions_and_names_it(damaged: Path) -> None:
    data = {"shards": str(damaged), "batch_size": 4, "clip_frames": 4, "max_bad_fraction": 0.5}
    loader = make_loader(StreamConfig.model_validate(data), "train", seed=0, total_batches=10)
    for batch in loader:
        assert batch.actions is not None and batch.actions.isfinite().all() and BAD not in batch.keys
    # States that are missing or infinite are left to whoever reads them.
    assert {key: bad.kind for key, bad in loader.bad.items()} == {BAD: "not finite"}
    assert "number 2 of 2" in loader.bad[BAD].detail


@pytest.mark.parametrize("array", [np.array([[2**24 + 1]]), np.array([[-(2**40)]]), np.array([[1e39]])])
def test_numbers_that_float32_cannot_hold_are_refused(array: np.ndarray) -> None:
    with pytest.raises(DecodeError, match="too large"):
        as_float32(array)


@pytest.mark.parametrize("dtype", [np.float16, np.float64, np.int8, np.int64, np.bool_])
def test_numbers_of_any_type_are_stored_as_they_are(dtype: type) -> None:
    assert as_float32(np.array([[0, 1]], dtype)).tolist() == [[0.0, 1.0]]


@pytest.mark.parametrize("label", [1.5, np.nan, "cat", None])
def test_a_label_that_is_no_whole_number_is_refused(tmp_path: Path, label: object) -> None:
    video = encode_mp4(np.zeros((2, 32, 32, 3), np.uint8), 10)
    about: dict[str, Any] = {"fps": 10, "image_size": 32, "world": None, "action_size": 0, "state_names": ()}
    with (
        pytest.raises(DataError, match="sample 'a': label 'kind': expected a whole number"),
        ShardWriter(tmp_path / "shards", **about, label_names=("kind",), seed=0) as writer,
    ):
        writer.write("train", "a", video, 2, None, None, {"labels": {"kind": label}})


def test_states_that_vary_by_less_than_float32_can_tell_are_refused() -> None:
    seconds = 1.7e9 + 0.1 * np.arange(20)[:, None]
    with pytest.raises(DecodeError, match=r"too fine.*column 1 varies by 1\.9 around 1\.7e\+09"):
        as_float32(seconds)
    assert as_float32(seconds - seconds[0]).dtype == np.float32
    assert as_float32(np.full((20, 1), 1.7e9)).shape == (20, 1)  # nothing varies, so nothing is lost
    assert as_float32(1000 + 0.1 * np.arange(20.0)[:, None]).dtype == np.float32
