"""`jepa data curate`, from shards to shards: what goes is named with its reason, what stays is not changed."""

import json
import re
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from jepa_data.curate import Curated, curate
from jepa_data.errors import DataError
from jepa_data.shards.index import ShardSet
from tests.data.curate_cases import STAGES, damage, described, members, mixed_shards


@pytest.fixture(scope="module")
def mixed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return mixed_shards(tmp_path_factory.mktemp("mixed") / "shards")


@pytest.fixture(scope="module")
def curated(mixed: Path) -> tuple[Curated, Path]:
    """The shards of all stages, with contact sheets; not to be changed."""
    out = mixed.parent / "curated"
    return curate(mixed, out, described(*STAGES), processes=0, examples=3), out


def reasons(found: Curated) -> dict[str, tuple[str, str]]:
    """Kind of stage and reason, by key."""
    keys = found.table.keys
    return {keys[drop.row]: (stage.kind, drop.reason) for stage in found.stages for drop in stage.decision.drops}


def test_every_stage_drops_what_it_is_for_and_nothing_else(curated: tuple[Curated, Path]) -> None:
    found = reasons(curated[0])
    balanced = {key for key, (kind, _) in found.items() if kind == "balance"}
    assert {key: kind for key, (kind, _) in found.items() if key not in balanced} == {
        "broken": "unreadable",
        "short": "too_short",
        "static": "static",
        "dark": "dark",
        "blurred": "blurred",
        "copy-of-good-0": "near_duplicates",
        "copy-of-test": "near_duplicates",
    }
    assert found["broken"][1] == "damaged: its bytes are not those that were written (CRC-32)"
    assert found["short"][1] == "length 0.3 s, at least 1"
    assert re.fullmatch(r"motion 0(\.\d+)? gray levels, at least 0\.5", found["static"][1])
    assert re.fullmatch(r"[\d.]+ of 64 bits differ from test 'test-0', at most 4", found["copy-of-test"][1])
    assert re.fullmatch(r"[\d.]+ of 64 bits differ from train 'good-0', at most 4", found["copy-of-good-0"][1])
    assert len(balanced) == 1 and balanced < {"good-0", "good-2", "good-4"}  # classes alternate: three have class 0
    assert curated[0].splits == {"train": (13, 5), "val": (1, 1), "test": (1, 1)}


def test_what_stays_keeps_its_bytes_split_order_and_source(mixed: Path, curated: tuple[Curated, Path]) -> None:
    result, out = curated
    before, after = members(mixed), members(out)
    assert tuple(after) == result.kept_keys and len(after) == 7
    for key, parts in after.items():
        ending = "png" if key == "image" else "mp4"
        assert parts[ending] == before[key][ending]
        assert json.loads(parts["metadata.json"]) == json.loads(before[key]["metadata.json"])
    old = {sample.key: sample for sample in ShardSet.open(mixed).samples if sample.key in after}
    for sample in ShardSet.open(out).samples:
        other = old[sample.key]
        assert (sample.split, sample.source, sample.labels, sample.video) == (
            other.split,
            other.source,
            other.labels,
            other.video,
        )
    assert list(old) == list(after)


def test_the_manifest_says_from_what_and_by_which_stages(curated: tuple[Curated, Path]) -> None:
    manifest = ShardSet.open(curated[1]).manifest
    assert manifest.label_values == {"class": ("a", "b")} and manifest.seed == 7
    assert manifest.made["command"] == "curate"
    assert manifest.made["source"] == {
        "name": "shards",
        "samples": {"train": 13, "val": 1, "test": 1},
        "made": {"command": "test"},
    }
    assert [stage["kind"] for stage in manifest.made["stages"]] == [stage["kind"] for stage in STAGES]
    assert manifest.made["stages"][3]["min_sharpness"] == 20.0


def test_the_report_counts_and_names_every_sample(curated: tuple[Curated, Path]) -> None:
    result, out = curated
    record = json.loads((out / "curation.json").read_text())
    assert record["samples"]["train"] == {"before": 13, "after": 5} and not record["dry_run"]
    seen = [stage["seen"] for stage in record["stages"]]
    dropped = [stage["dropped"] for stage in record["stages"]]
    assert seen == [15, 14, 13, 12, 11, 10, 8] and dropped == [1, 1, 1, 1, 1, 2, 1]
    assert {drop["key"] for drop in record["dropped"]} | set(result.kept_keys) == set(result.table.keys)
    static = next(drop for drop in record["dropped"] if drop["key"] == "static")
    assert static["stage"] == 2 and static["threshold"] == 0.5 and 0 <= static["value"] < 0.5
    like = {drop["key"]: drop["like"] for drop in record["dropped"] if drop["like"]}
    assert like == {"copy-of-test": "test-0", "copy-of-good-0": "good-0"}
    assert [row[0] for row in result.rows()] == ["stage", "unreadable", *(stage["kind"] for stage in STAGES)]


def test_contact_sheets_show_the_dropped_beside_what_stays(curated: tuple[Curated, Path]) -> None:
    result, _ = curated
    names = ["01-too_short", "02-static", "03-dark", "04-blurred", "05-near_duplicates", "06-balance"]
    assert [path.stem for path in result.examples] == names
    images = {path.stem: np.asarray(Image.open(path)) for path in result.examples}
    rows = {name: (image.shape[0] - 34) // 112 for name, image in images.items()}
    assert rows == {"05-near_duplicates": 4} | dict.fromkeys(set(names) - {"05-near_duplicates"}, 3)
    # The static video's four frames: the same image four times; of the one that stays: four different ones.
    strip = [images["02-static"][34:98, 28 + 104 * i : 92 + 104 * i].astype(int) for i in range(4)]
    assert strip[0].std() > 10 and all(np.abs(strip[0] - other).mean() < 1.0 for other in strip[1:])
    kept = [images["02-static"][146:210, 28 + 104 * i : 92 + 104 * i].astype(int) for i in range(4)]
    assert np.abs(kept[0] - kept[2]).mean() > 2.0


def test_the_first_stage_that_does_not_like_a_sample_drops_it(mixed: Path, tmp_path: Path) -> None:
    stages = {"kind": "dark", "min_brightness": 255}, {"kind": "blurred", "min_sharpness": 1e9}
    for order in (stages, stages[::-1]):
        with pytest.raises(DataError, match=rf"nothing stays of 15 samples \(unreadable 1, {order[0]['kind']} 14\)"):
            curate(mixed, tmp_path / "out", described(*order), processes=0)


def test_processes_find_the_same_as_this_one(mixed: Path, tmp_path: Path, curated: tuple[Curated, Path]) -> None:
    told: list[tuple[str, int, int]] = []
    curate(mixed, tmp_path / "o", described(*STAGES), processes=1, progress=lambda *step: told.append(step))
    assert (tmp_path / "o" / "curation.json").read_bytes() == (curated[1] / "curation.json").read_bytes()
    assert (tmp_path / "o" / "manifest.json").read_bytes() == (curated[1] / "manifest.json").read_bytes()
    assert told[-1] == ("writing", 7, 7) and ("measuring", 15, 15) in told


def test_a_dry_run_writes_no_shards_and_does_not_stand_in_the_way(mixed: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    result = curate(mixed, out, described(*STAGES), processes=0, dry_run=True, examples=1)
    assert result.written is None and sorted(path.name for path in out.iterdir()) == ["curation.json", "examples"]
    again = curate(mixed, out, described(STAGES[0]), processes=0)
    assert again.written == out and not (out / "examples").exists()
    assert json.loads((out / "curation.json").read_text())["dry_run"] is False
    with pytest.raises(DataError, match="is not empty"):
        curate(mixed, out, described(STAGES[0]), processes=0)
    curate(mixed, out, described(STAGES[1]), processes=0, overwrite=True)
    assert {sample.key for sample in ShardSet.open(out).samples} >= {"short"}


def test_the_source_is_never_overwritten(mixed: Path) -> None:
    before = sorted((path.name, path.stat().st_mtime_ns) for path in mixed.iterdir())
    with pytest.raises(DataError, match="is the folder that is curated"):
        curate(mixed, mixed.parent / "x" / ".." / "shards", described(STAGES[0]), processes=0, overwrite=True)
    assert sorted((path.name, path.stat().st_mtime_ns) for path in mixed.iterdir()) == before


def test_when_nothing_stays_the_report_says_why(mixed: Path, tmp_path: Path) -> None:
    stages = {"kind": "too_short", "min_seconds": 99}, {"kind": "dark", "min_brightness": 255}
    with pytest.raises(DataError, match=r"nothing stays of 15 samples \(unreadable 1, too_short 13, dark 1\)"):
        curate(mixed, tmp_path / "out", described(*stages), processes=0)
    assert len(json.loads((tmp_path / "out" / "curation.json").read_text())["dropped"]) == 15


def test_a_shard_cut_short_counts_its_lost_samples(tmp_path: Path, write_shards: Callable[..., Path]) -> None:
    folder = write_shards(tmp_path / "s", [6, 7, 8])
    tar = folder / "train-000000.tar"
    with tar.open("r+b") as file:
        file.truncate(ShardSet.open(folder).samples[2].members["mp4"][0] + 10)
    found = curate(folder, tmp_path / "out", described({"kind": "too_short", "min_frames": 7}), processes=0)
    assert found.dropped == {"ep-2": "lost: its bytes are missing", "ep-0": "length 6 frames, at least 7"}
    assert found.rows()[1][1:3] == ("3", "1") and found.splits == {"train": (3, 1)}
    assert any("cut short" in note for note in found.notes)


def test_a_damaged_line_of_an_index_is_one_unreadable_sample(tmp_path: Path, write_shards: Callable[..., Path]) -> None:
    folder = write_shards(tmp_path / "s", [6, 6, 6])
    index = folder / "train-000000.index.jsonl"
    lines = index.read_text().splitlines(keepends=True)
    lines[1] = "x" * (len(lines[1]) - 1) + "\n"
    index.write_text("".join(lines))
    found = curate(folder, tmp_path / "out", described({"kind": "too_short", "min_frames": 2}), processes=0)
    assert found.kept_keys == ("ep-0", "ep-2")
    assert list(found.dropped) == ["(sample 2 of train)"] and "damaged" in found.dropped["(sample 2 of train)"]


def test_arrays_of_what_stays_are_the_same(tmp_path: Path, write_shards: Callable[..., Path]) -> None:
    folder = write_shards(tmp_path / "s", [6, 9, 7])
    curate(folder, tmp_path / "out", described({"kind": "too_short", "min_frames": 7}), processes=0)
    before, after = members(folder), members(tmp_path / "out")
    assert list(after) == ["ep-1", "ep-2"] and all(after[key] == before[key] for key in after)
    assert ShardSet.open(tmp_path / "out").manifest.state_names == ("number",)


def test_a_config_that_asks_for_what_is_not_there_is_reported_before_the_work(
    mixed: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("jepa_data.curate.run.measure", lambda *rest: pytest.fail("it was measured"))
    for stage, words in (
        (
            {"kind": "balance", "label": "color", "max_samples": 2},
            r"stages\.0\.label: the shards have no label 'color'",
        ),
        ({"kind": "near_duplicates", "embeddings": str(tmp_path / "e.npz")}, "no such file. Make it: jepa embed"),
    ):
        with pytest.raises(DataError, match=words):
            curate(mixed, tmp_path / "out", described(stage))
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "mine.txt").write_text("keep")
    with pytest.raises(DataError, match="is not empty"):
        curate(mixed, tmp_path / "full", described(STAGES[0]))


def test_shards_that_change_between_measuring_and_writing_are_reported(tmp_path: Path) -> None:
    folder = mixed_shards(tmp_path / "s")

    def progress(what: str, done: int, total: int) -> None:
        if (what, done) == ("measuring", total):
            damage(folder, "good-3")

    with pytest.raises(DataError, match="'good-3' could be read when it was measured and cannot be now"):
        curate(folder, tmp_path / "o", described(STAGES[0]), processes=0, progress=progress)
    assert not (tmp_path / "o" / "manifest.json").exists()
