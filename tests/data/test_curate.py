"""`jepa data curate`, from shards to shards: what goes is named with its reason, what stays is not changed."""

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import typer
from PIL import Image

from jepa.cli.app import main
from jepa.cli.curate import curate as verb
from jepa.config import from_dict
from jepa_data.curate import CurateConfig, Curated, curate
from jepa_data.errors import DataError
from jepa_data.shards.encode import encode_mp4
from jepa_data.shards.index import ShardSet
from jepa_data.shards.read import ShardFiles
from jepa_data.shards.write import ShardWriter
from tests.data.curate_cases import FPS, STAGES, damage, mixed_shards, textured


def described(*stages: dict[str, Any], **rest: Any) -> CurateConfig:
    return from_dict({"stages": list(stages), **rest}, CurateConfig)


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


def members(folder: Path) -> dict[str, dict[str, bytes]]:
    files = ShardFiles(folder)
    return {sample.key: files.read(sample) for sample in ShardSet.open(folder).samples if sample.key != "broken"}


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
    assert re.fullmatch(r"motion 0(\.\d+)? grey levels, at least 0\.5", found["static"][1])
    assert re.fullmatch(r"[\d.]+ of 64 bits differ from test 'test-0', at most 4", found["copy-of-test"][1])
    assert re.fullmatch(r"[\d.]+ of 64 bits differ from train 'good-0', at most 4", found["copy-of-good-0"][1])
    assert len(balanced) == 1 and balanced < {"good-0", "good-2", "good-4"}  # classes alternate: three have class 0
    assert curated[0].splits == {"train": (13, 5), "val": (1, 1), "test": (1, 1)}


def test_what_stays_keeps_its_bytes_split_order_and_source(mixed: Path, curated: tuple[Curated, Path]) -> None:
    result, out = curated
    before, after = members(mixed), members(out)
    assert tuple(after) == result.kept_keys and len(after) == 7
    for key, parts in after.items():
        ending = "png" if key == "picture" else "mp4"
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
    pictures = {path.stem: np.asarray(Image.open(path)) for path in result.examples}
    rows = {name: (picture.shape[0] - 34) // 112 for name, picture in pictures.items()}
    assert rows == {"05-near_duplicates": 4} | dict.fromkeys(set(names) - {"05-near_duplicates"}, 3)
    # The static video's four frames: the same picture four times; of the one that stays: four different ones.
    strip = [pictures["02-static"][34:98, 28 + 104 * i : 92 + 104 * i].astype(int) for i in range(4)]
    assert strip[0].std() > 10 and all(np.abs(strip[0] - other).mean() < 1.0 for other in strip[1:])
    kept = [pictures["02-static"][146:210, 28 + 104 * i : 92 + 104 * i].astype(int) for i in range(4)]
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


# ---- annotations -----------------------------------------------------------------------------------------------------


def test_a_callable_writes_what_it_sees_to_the_metadata_of_what_stays(mixed: Path, tmp_path: Path) -> None:
    asked = []

    def caption(frames: np.ndarray, metadata: dict[str, Any]) -> dict[str, Any]:
        asked.append(metadata.get("caption"))
        assert frames.dtype == np.uint8 and frames.shape[1:] == (64, 64, 3)
        return {"frames": len(frames), "light": round(float(frames.mean())), "was": metadata.get("caption")}

    stages = {"kind": "dark", "min_brightness": 60}, {"kind": "balance", "label": "class", "at_most": 1}
    config = described(*stages, look={"frames": 5, "side": 64})
    found = curate(mixed, tmp_path / "out", config, annotate={"seen": caption}, processes=0)
    after = {key: json.loads(parts["metadata.json"]) for key, parts in members(tmp_path / "out").items()}
    assert len(asked) == len(after) == len(found.kept)
    assert after["picture"]["seen"]["frames"] == 1
    video = next(about for key, about in after.items() if key not in ("picture", "val-0", "test-0"))
    assert video["seen"]["frames"] in (3, 5) and video["seen"]["was"] == video["caption"]
    assert ShardSet.open(tmp_path / "out").manifest.made["annotations"] == ["seen"]


def test_an_annotation_that_fails_or_is_no_json_names_the_sample(mixed: Path, tmp_path: Path) -> None:
    def failing(frames: np.ndarray, metadata: dict[str, Any]) -> str:
        raise ZeroDivisionError("a bug of mine")

    with pytest.raises(ZeroDivisionError, match="a bug of mine") as caught:
        curate(mixed, tmp_path / "a", described(STAGES[0]), annotate={"x": failing}, processes=0)
    assert caught.value.__notes__ == ["raised by the annotation 'x' of sample 'good-0'"]
    assert not (tmp_path / "a" / "manifest.json").exists()
    with pytest.raises(
        DataError, match="annotation 'x' of sample 'good-0': expected what JSON can hold, found ndarray"
    ):
        curate(mixed, tmp_path / "b", described(STAGES[0]), annotate={"x": lambda f, m: f}, processes=0)
    with pytest.raises(DataError, match="'labels' are the numbers of classes"):
        curate(mixed, tmp_path / "c", described(STAGES[0]), annotate={"labels": lambda f, m: 1}, processes=0)


# ---- the clock -------------------------------------------------------------------------------------------------------


def test_actions_and_states_with_times_of_their_own_become_arrays(tmp_path: Path) -> None:
    times = np.arange(-0.02, 1.3, 0.03)
    recorded = {"seconds": times.tolist(), "values": np.stack([times, 2 * times], axis=1).tolist()}
    gap = {"seconds": times[:10].tolist(), "values": np.ones((10, 2)).tolist()}
    with ShardWriter(
        tmp_path / "s", fps=None, image_size=None, world=None, action_size=0, state_names=[], label_names=[], seed=0
    ) as writer:
        for key, about in (("a", {"actions": recorded, "states": recorded}), ("gap", {"actions": gap, "states": gap})):
            video = encode_mp4(textured(len(key)), FPS)
            writer.write("train", key, video, 12, None, None, {**about, "task": "push"})
    found = curate(tmp_path / "s", tmp_path / "o", described({"kind": "clock", "max_gap_seconds": 0.1}), processes=0)
    assert found.kept_keys == ("a",)
    assert found.dropped["gap"].startswith("no measurement: no action was recorded for 0.8")
    shards = ShardSet.open(tmp_path / "o")
    assert (shards.manifest.action_size, shards.manifest.fps) == (2, FPS)
    assert shards.manifest.state_names == ("state_0", "state_1")
    parts = members(tmp_path / "o")["a"]
    assert json.loads(parts["metadata.json"]) == {"labels": {}, "task": "push"}
    (tmp_path / "actions.npy").write_bytes(parts["actions.npy"])
    (tmp_path / "states.npy").write_bytes(parts["states.npy"])
    actions, states = (np.load(tmp_path / f"{name}.npy") for name in ("actions", "states"))
    assert actions.shape == (11, 2) and np.allclose(states, np.outer(np.arange(12) / FPS, [1, 2]), atol=1e-5)
    assert np.allclose(actions[:, 1], 2 * actions[:, 0], atol=1e-5)
    assert np.abs(actions[:, 0] - (np.arange(11) + 0.5) / FPS).max() < 0.03  # held commands lag by half their spacing


# ---- the command -----------------------------------------------------------------------------------------------------


def run(*arguments: str) -> int:
    app = typer.Typer(pretty_exceptions_enable=False)
    app.command()(verb)
    with pytest.raises(SystemExit) as end:
        main(arguments, app)
    return int(end.value.code or 0)


def test_the_command_prints_a_table_and_where_to_look(
    mixed: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    config = tmp_path / "c.yaml"
    config.write_text("stages:\n  - {kind: static}\n  - {kind: dark, min_brightness: 1.0}\n")
    options = ("--config", str(config), "--processes", "0", "--examples", "2")
    assert run(str(mixed), str(tmp_path / "o"), "stages.1.min_brightness=16", *options) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[:3] for line in lines[2:5]] == [
        ["unreadable", "15", "1"],
        ["static", "14", "1"],
        ["dark", "13", "1"],
    ]
    assert lines[2].endswith("cannot be read") and lines[4].endswith("brightness below 16 grey levels")
    assert lines[5].startswith("kept: train 10 of 13, val 1 of 1, test 1 of 1")
    assert any(re.search(r"static: for example static: motion .*, at least 0\.5", line) for line in lines)
    assert lines[-1].endswith("02-dark.png")


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--engine", "spark"], "--engine: expected pool or ray, found 'spark'"),
        (["--processes", "-1"], "--processes: expected 0 or more, found -1"),
        (["stages.0.kind=drak"], "unknown kind 'drak'; did you mean 'dark'?"),
    ],
)
def test_a_mistake_is_one_line(
    arguments: list[str], words: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    config = tmp_path / "c.yaml"
    config.write_text("stages:\n  - {kind: dark}\n")
    assert run("nowhere", str(tmp_path / "o"), "--config", str(config), *arguments) == 2
    error = capsys.readouterr().err.splitlines()
    assert len(error) == 1 and words in error[0]


def test_a_config_that_asks_for_what_is_not_there_is_told_before_the_work(
    mixed: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("jepa_data.curate.run.measure", lambda *rest: pytest.fail("it was measured"))
    for stage, words in (
        ({"kind": "balance", "label": "colour", "at_most": 2}, r"stages\.0\.label: the shards have no label 'colour'"),
        ({"kind": "near_duplicates", "embeddings": str(tmp_path / "e.npz")}, "no such file. Make it: jepa embed"),
    ):
        with pytest.raises(DataError, match=words):
            curate(mixed, tmp_path / "out", described(stage))
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "mine.txt").write_text("keep")
    with pytest.raises(DataError, match="is not empty"):
        curate(mixed, tmp_path / "full", described(STAGES[0]))


def test_shards_that_change_between_measuring_and_writing_are_told(tmp_path: Path) -> None:
    folder = mixed_shards(tmp_path / "s")

    def progress(what: str, done: int, total: int) -> None:
        if (what, done) == ("measuring", total):
            damage(folder, "good-3")

    with pytest.raises(DataError, match="'good-3' could be read when it was measured and cannot be now"):
        curate(folder, tmp_path / "o", described(STAGES[0]), processes=0, progress=progress)
    assert not (tmp_path / "o" / "manifest.json").exists()
