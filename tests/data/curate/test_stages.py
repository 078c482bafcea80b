"""Stages decide by the table alone: what goes, in which order, and why."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import fields, replace
from pathlib import Path

import numpy as np
import pytest

from jepa.config import ConfigError, UserError, from_dict, load
from jepa_data.curate.config import Balance, Blurred, CurateConfig, Dark, NearDuplicates, Resample, Static, TooShort
from jepa_data.curate.duplicates import first_come
from jepa_data.curate.embeddings import Embeddings, clusters, read_embeddings
from jepa_data.curate.measure import Measured
from jepa_data.curate.stages import check, decide, unreadable
from jepa_data.curate.table import Decision, Table
from jepa_data.errors import DataError

CONFIGS = Path(__file__).parents[3] / "configs" / "data"


def table(rows: Sequence[Measured], splits: Sequence[str] | None = None) -> Table:
    keys = [f"k{i}" for i in range(len(rows))]
    labels = sorted({name for row in rows for name in row.labels or {}})
    return Table.of(keys, splits or ["train"] * len(rows), rows, labels)


def dropped(decision: Decision) -> list[int]:
    return [drop.row for drop in decision.drops]


def everything(found: Table) -> np.ndarray:
    return np.arange(len(found), dtype=np.int64)


def hashed(*words: int) -> np.ndarray:
    return np.array(words, np.uint64)


def test_thresholds_are_the_least_that_stays() -> None:
    found = table([Measured(motion=m, brightness=10 * m, sharpness=100 * m) for m in (0.4, 0.5, 0.6)])
    for stage in (Static(min_motion=0.5), Dark(min_brightness=5.0), Blurred(min_sharpness=50.0)):
        assert dropped(decide(stage, found, everything(found), {})) == [0]
    (drop,) = decide(Static(min_motion=0.5), found, everything(found), {}).drops
    assert (drop.value, drop.threshold) == (0.4, 0.5)
    assert drop.reason == "motion 0.4 gray levels, at least 0.5"


def test_images_are_neither_short_nor_static() -> None:
    found = table([Measured(still=True, frames=1), Measured(frames=1, seconds=0.1)])
    assert dropped(decide(TooShort(min_seconds=1), found, everything(found), {})) == [1]
    assert dropped(decide(Static(), found, everything(found), {})) == [1]


def test_too_short_in_seconds_or_in_frames() -> None:
    found = table([Measured(frames=f, seconds=s) for f, s in ((30, 1.0), (10, 1.0), (30, 0.5), (9, 0.1))])
    rows = everything(found)
    assert dropped(decide(TooShort(min_seconds=0.8), found, rows, {})) == [2, 3]
    assert dropped(decide(TooShort(min_frames=20), found, rows, {})) == [1, 3]
    both = decide(TooShort(min_seconds=0.8, min_frames=20), found, rows, {})
    assert dropped(both) == [1, 2, 3]
    assert [drop.reason for drop in both.drops][:2] == ["length 10 frames, at least 20", "length 0.5 s, at least 0.8"]


def test_a_stage_looks_at_the_rows_it_is_given_only() -> None:
    found = table([Measured(motion=0.0, problem=("empty", "")) for _ in range(4)])
    rows = np.array([1, 3], np.int64)
    assert dropped(decide(Static(), found, rows, {})) == [1, 3]
    assert dropped(unreadable(found, rows)) == [1, 3]
    same = decide(NearDuplicates(), found, rows, {})
    assert [(drop.row, drop.like) for drop in same.drops] == [(3, 1)]


# ---- near duplicates -------------------------------------------------------------------------------------------------


def test_a_duplicate_goes_from_train_and_never_from_test() -> None:
    same, other = hashed(1, 2, 3, 4), hashed(2**40, 0, 2**63, 9)
    found = table(
        [Measured(hashes=h) for h in (same, other, same, same, other)], ["train", "train", "val", "test", "val"]
    )
    decision = decide(NearDuplicates(max_bits=0), found, everything(found), {})
    assert [(drop.row, drop.like) for drop in decision.drops] == [(2, 3), (0, 3), (1, 4)]
    assert decision.drops[0].reason == "0 of 64 bits differ from test 'k3', at most 0"


def test_bits_are_the_mean_of_four_frames() -> None:
    found = table([Measured(hashes=h) for h in (hashed(0, 0, 0, 0), hashed(0b111, 0, 0b11, 0), hashed(0, 0b1, 0, 0))])
    assert dropped(decide(NearDuplicates(max_bits=1.25), found, everything(found), {})) == [1, 2]
    assert dropped(decide(NearDuplicates(max_bits=1.0), found, everything(found), {})) == [2]


@pytest.mark.parametrize("seed", range(4))
def test_halving_decides_as_going_through_one_by_one_does(seed: int) -> None:
    points = np.random.default_rng(seed).uniform(0, 300, 2000)

    class Line:
        limit = 0.1

        def nearest(self, wanted: np.ndarray, among: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
            apart = np.abs(points[wanted][:, None] - points[among][None])
            return np.where(apart.min(axis=1) <= self.limit, apart.argmin(axis=1), -1), apart.min(axis=1)

        def each_other(self, rows: np.ndarray) -> np.ndarray:
            return np.abs(points[rows][:, None] - points[rows][None])

    order = np.random.default_rng(seed + 9).permutation(2000)
    kept: list[int] = []
    for row in order.tolist():
        if not kept or np.abs(points[row] - points[kept]).min() > 0.1:
            kept.append(row)
    found = first_come(order, Line())
    assert [row for row, _, _ in found] == [row for row in order.tolist() if row not in kept]
    assert all(like in kept and abs(points[row] - points[like]) == unlike <= 0.1 for row, like, unlike in found)
    assert len(found) > 200


def test_100_000_hashes_take_seconds() -> None:
    random = np.random.default_rng(0)
    hashes = random.integers(0, 2**64, (100_000, 4), np.uint64)
    hashes[60_000:61_000] = hashes[:1000] ^ np.uint64(0b101)  # 8 bits of 256 differ
    hashes[90_000:] = hashes[7]  # a crowd of equals
    one = table([Measured()])
    columns = {f.name: getattr(one, f.name) for f in fields(one)}
    arrays = {name: x.repeat(100_000, axis=0) for name, x in columns.items() if isinstance(x, np.ndarray)}
    found = replace(one, **(arrays | {"hashes": hashes}), keys=("k",) * 100_000, splits=("train",) * 100_000)
    gone = dropped(decide(NearDuplicates(max_bits=4), found, everything(found), {}))
    assert gone == [*range(60_000, 61_000), *range(90_000, 100_000)]


# ---- embeddings ------------------------------------------------------------------------------------------------------


def write_embeddings(path: Path, vectors: Mapping[str, Sequence[float]]) -> Path:
    """As `jepa embed` writes them: two steps of three tokens, whose mean is the vector."""
    arrays: dict[str, np.ndarray] = {}
    for key, vector in vectors.items():
        arrays[key] = np.asarray(vector, np.float32) + np.linspace(-1, 1, 6, dtype=np.float32).reshape(2, 3, 1)
        arrays[f"{key}.seconds"] = np.arange(2, dtype=np.float32)
    np.savez(path, allow_pickle=False, **arrays)
    return path


def test_embeddings_are_compared_by_the_cosine_of_their_means(tmp_path: Path) -> None:
    vectors = {"k0": [1, 0], "k1": [10, 1], "k2": [0, 1], "k3": [-1, 0], "k4": [3, 3]}
    path = str(write_embeddings(tmp_path / "e.npz", vectors))
    found = table([Measured()] * 6, ["train", "test", "train", "train", "train", "train"])
    known = {path: read_embeddings(path, found.keys)}
    stage = NearDuplicates(embeddings=path, min_cosine=0.99)
    decision = decide(stage, found, everything(found), known)
    assert [(drop.row, drop.like) for drop in decision.drops] == [(0, 1)]
    assert decision.drops[0].value == pytest.approx(10 / np.sqrt(101), abs=1e-5)
    assert decision.notes == (f"1 samples are not in {path}; they stay",)
    assert dropped(decide(NearDuplicates(embeddings=path, min_cosine=0.7), found, everything(found), known)) == [0, 4]


def test_the_mean_of_all_can_be_taken_off() -> None:
    vectors = np.array([[100, 1], [100, -1], [100, 1.01]], np.float32)
    known = {"e": Embeddings("e", vectors, np.ones(3, np.bool_))}
    found = table([Measured()] * 3)
    raw, centered = (
        decide(NearDuplicates(embeddings="e", min_cosine=0.9, center=c), found, everything(found), known)
        for c in (False, True)
    )
    assert (dropped(raw), dropped(centered)) == ([1, 2], [2])


def test_a_table_that_is_none_is_reported(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"no such file\. Make it: jepa embed SHARDS --model RUN"):
        read_embeddings(str(tmp_path / "none.npz"), ["a"])
    (tmp_path / "text.npz").write_text("hello")
    with pytest.raises(DataError, match="not a table that `jepa embed` wrote"):
        read_embeddings(str(tmp_path / "text.npz"), ["a"])
    path = str(write_embeddings(tmp_path / "e.npz", {"b": [1, 2]}))
    with pytest.raises(DataError, match="holds 1 videos, none of these shards"):
        read_embeddings(path, ["a"])
    np.savez(tmp_path / "p.npz", a=np.array([{"x": 1}], object))
    with pytest.raises(DataError, match="not a table"):
        read_embeddings(str(tmp_path / "p.npz"), ["a"])
    np.savez(tmp_path / "n.npz", a=np.full((1, 1, 2), np.nan, np.float32))
    with pytest.raises(DataError, match="expected latents"):
        read_embeddings(str(tmp_path / "n.npz"), ["a"])


def test_k_means_finds_separate_groups() -> None:
    random = np.random.default_rng(0)
    true = random.integers(0, 5, 400)
    x = (10 * np.eye(5)[true] + random.normal(size=(400, 5))).astype(np.float32)
    for seed in range(3):
        found = clusters(x, 5, seed)
        assert len({(a, b) for a, b in zip(true.tolist(), found.tolist(), strict=True)}) == 5
    assert clusters(x, 5, 1).tolist() == clusters(x, 5, 1).tolist()
    assert len(set(clusters(np.ones((4, 2), np.float32), 3, 0).tolist())) == 1


# ---- balance ---------------------------------------------------------------------------------------------------------


def labeled(values: Sequence[int], splits: Sequence[str] | None = None) -> Table:
    return table([Measured(labels={"class": value}) for value in values], splits)


def test_no_class_has_more_than_its_share_and_small_ones_stay_whole() -> None:
    found = labeled([0] * 50 + [1] * 5 + [-1] * 20)
    decision = decide(Balance(label="class", max_samples=10), found, everything(found), {})
    left = np.delete(found.labels["class"], dropped(decision))
    assert np.bincount(left + 1).tolist() == [20, 10, 5]
    assert decision.drops[0].reason == "class 0 has 50 in train, at most 10 stay"
    assert decision.notes == ("20 samples have none (class); they stay",)


def test_who_stays_depends_on_the_seed_and_not_on_the_others() -> None:
    found = labeled([0] * 60)
    first, again, other = (
        dropped(decide(Balance(label="class", max_samples=20, seed=s), found, everything(found), {})) for s in (0, 0, 1)
    )
    assert first == again != other
    fewer = np.array([row for row in range(60) if row != first[0]], np.int64)
    assert dropped(decide(Balance(label="class", max_samples=20), found, fewer, {})) == first[1:]


def test_other_splits_stay_as_they_are_unless_named() -> None:
    found = labeled([0] * 9, ["train"] * 3 + ["val"] * 3 + ["test"] * 3)
    rows = everything(found)
    assert {r // 3 for r in dropped(decide(Balance(label="class", max_samples=1), found, rows, {}))} == {0}
    both = dropped(decide(Balance(label="class", max_samples=1, splits=("train", "val")), found, rows, {}))
    assert [r // 3 for r in both] == [0, 0, 1, 1]


def test_clusters_of_embeddings_are_balanced() -> None:
    vectors = np.repeat(np.eye(3, dtype=np.float32), [30, 4, 2], axis=0)
    known = {"e": Embeddings("e", vectors, np.arange(36) != 35)}
    found = table([Measured()] * 36)
    decision = decide(Balance(embeddings="e", clusters=3, max_samples=3), found, everything(found), known)
    left = np.setdiff1d(everything(found), dropped(decision))
    assert [int(((left >= a) & (left < b)).sum()) for a, b in ((0, 30), (30, 34), (34, 36))] == [3, 3, 2]
    assert decision.notes == ("1 samples are not in e (cluster); they stay",)


def test_a_label_that_is_not_there_is_reported_before_the_work() -> None:
    with pytest.raises(DataError, match=r"stages\.1\.label: the shards have no label 'color'\. They have: class"):
        check((Dark(), Balance(label="color", max_samples=3)), ("class",))


# ---- clock -----------------------------------------------------------------------------------------------------------


def test_widths_and_rates_unlike_most_are_dropped() -> None:
    rows = [Measured(widths=(2, 3), rate=30.0) for _ in range(4)]
    rows += [Measured(widths=(0, 3), rate=30.0), Measured(widths=(2, 3), rate=15.0)]
    rows += [Measured(widths=(2, 3), rate=30000 / 1001), Measured(not_resampled=("no measurement", "a gap"))]
    found = table(rows)
    decision = decide(Resample(), found, everything(found), {})
    assert {drop.row: drop.reason for drop in decision.drops} == {
        4: "its actions and states have the widths (0, 3), those of most samples are (2, 3)",
        5: "15 frames a second, most have 30; actions need one rate",
        7: "no measurement: a gap",
    }


# ---- the config ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("stage", "words"),
    [
        ({"kind": "drak"}, "unknown kind 'drak'; did you mean 'dark'?"),
        ({"kind": "too_short"}, "too_short needs min_seconds or min_frames"),
        ({"kind": "balance", "max_samples": 3}, "balance needs either label or embeddings"),
        ({"kind": "near_duplicates", "min_cosine": 0.9}, "name their file: embeddings"),
        ({"kind": "near_duplicates", "embeddings": "e.npz", "max_bits": 2}, "list two stages for both"),
        ({"kind": "dark", "min_brightnes": 3}, "unknown key; did you mean 'min_brightness'?"),
    ],
)
def test_a_mistake_in_a_stage_is_reported(stage: dict[str, object], words: str) -> None:
    with pytest.raises(ConfigError, match=r"stages\.0") as caught:
        from_dict({"stages": [stage]}, CurateConfig)
    assert words in str(caught.value) and len(str(caught.value).splitlines()) == 1


def test_stages_are_needed_and_one_resample_stage_at_most() -> None:
    for stages, words in (([], "found an empty list"), ([{"kind": "resample"}] * 2, "one resample stage at most")):
        with pytest.raises(UserError, match=words):
            from_dict({"stages": stages}, CurateConfig)


@pytest.mark.parametrize("path", sorted(CONFIGS.glob("curate*.yaml")), ids=lambda path: path.stem)
def test_a_config_that_is_shipped_says_its_command_and_can_be_read(path: Path) -> None:
    assert path.read_text().startswith("# jepa data curate SHARDS OUT --config configs/data/")
    read: Callable[..., CurateConfig] = load
    kinds = [stage.kind for stage in read(path, CurateConfig).stages]
    assert kinds[0] == "too_short" and "near_duplicates" in kinds
