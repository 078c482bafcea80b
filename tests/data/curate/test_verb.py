"""A curation from the command line, with annotations from Python, and with a clock: from shards to shards."""

import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import typer

from jepa.cli.app import main
from jepa.cli.data.curate import curate as verb
from jepa_data.curate import curate
from jepa_data.errors import DataError
from jepa_data.shards.encode import encode_mp4
from jepa_data.shards.index import ShardSet
from jepa_data.shards.write import ShardWriter
from tests.data.curate_cases import FPS, STAGES, described, members, mixed_shards, textured


@pytest.fixture(scope="module")
def mixed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return mixed_shards(tmp_path_factory.mktemp("mixed") / "shards")


# ---- annotations -----------------------------------------------------------------------------------------------------


def test_a_callable_writes_what_it_sees_to_the_metadata_of_what_stays(mixed: Path, tmp_path: Path) -> None:
    asked = []

    def caption(frames: np.ndarray, metadata: dict[str, Any]) -> dict[str, Any]:
        asked.append(metadata.get("caption"))
        assert frames.dtype == np.uint8 and frames.shape[1:] == (64, 64, 3)
        return {"frames": len(frames), "light": round(float(frames.mean())), "was": metadata.get("caption")}

    stages = {"kind": "dark", "min_brightness": 60}, {"kind": "balance", "label": "class", "max_samples": 1}
    config = described(*stages, look={"frames": 5, "side": 64})
    found = curate(mixed, tmp_path / "out", config, annotate={"seen": caption}, processes=0)
    after = {key: json.loads(parts["metadata.json"]) for key, parts in members(tmp_path / "out").items()}
    assert len(asked) == len(after) == len(found.kept)
    assert after["image"]["seen"]["frames"] == 1
    video = next(about for key, about in after.items() if key not in ("image", "val-0", "test-0"))
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
    found = curate(tmp_path / "s", tmp_path / "o", described({"kind": "resample", "max_gap_seconds": 0.1}), processes=0)
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
    assert lines[2].endswith("cannot be read") and lines[4].endswith("brightness below 16 gray levels")
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
