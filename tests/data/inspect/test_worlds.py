"""`jepa data worlds`: every world with tasks has a line, an image and a speed; what is missing says how to get it."""

import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from jepa.cli.app import main
from jepa_data.errors import DataError
from jepa_data.inspect import worlds as looking
from jepa_data.worlds import env


def test_the_verb_tells_and_draws_every_world(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "worlds.png"
    monkeypatch.setattr(sys, "argv", ["jepa", "data", "worlds", "--sheet", str(out)])
    with pytest.raises(SystemExit) as left:
        main()
    assert left.value.code == 0
    told = capsys.readouterr().out
    lines = {line.split()[0]: line for line in told.splitlines()}
    here = [name for name in env.WORLDS if "not installed" not in lines[name]]
    assert "gym:ID" in lines and {"two-rooms", "billiards-easy"} <= set(here)
    assert "0.0703 widths of the image" in lines["two-rooms"] and "random, noisy-expert" in lines["two-rooms"]
    assert f"{len(here)} worlds" in told
    step = looking.SIDE + looking.GAP
    image = np.asarray(Image.open(out)).astype(int)
    assert image.shape[0] == len(here) * step + looking.GAP
    for row in range(len(here)):
        shown = image[looking.GAP + row * step :][: looking.SIDE, looking.GAP :]
        frames = [shown[:, i * step :][:, : looking.SIDE] for i in range(looking.SHOWN)]
        goal = shown[:, looking.SHOWN * step + looking.GAP :][:, : looking.SIDE]
        assert frames[0].std() > 3 and (frames[0] != frames[-1]).any() and (goal != frames[0]).any()


def test_a_world_that_is_not_here_says_so_and_the_others_are_reported(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pymunk", None)
    monkeypatch.setattr(env, "WORLDS", {name: env.WORLDS[name] for name in ("two-rooms", "push-t")})
    here, away = looking.summarize_worlds()
    assert here.missing is None and away.missing is not None
    assert here.events == ("close-door", "open-door", "move-door-up", "move-door-down") and away.events == ()
    assert "pymunk" in away.missing and "pip install 'openjepa[pusht]'" in away.missing
    head, *rows = looking.table([here, away])
    assert [row[:2] for row in rows] == [("two-rooms", "2"), ("push-t", "not installed")]
    assert {len(row) for row in rows} == {len(head)}


def test_speed_is_counted_in_cpu_seconds_of_this_process_and_its_children(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(env, "WORLDS", {"two-rooms": env.WORLDS["two-rooms"]})
    monkeypatch.setattr(looking, "SECONDS", 0.1)
    before = looking.cpu_seconds()
    (sight,) = looking.summarize_worlds(time_it=True)
    spent = looking.cpu_seconds() - before
    assert sight.speed is not None and 200 < sight.speed < 1e6 and 0.1 <= spent < 5
    assert looking.table([sight])[0][-1] == "images per CPU second"


def test_a_sheet_that_cannot_be_written_is_reported(tmp_path: Path) -> None:
    sight = looking.WorldSummary("two-rooms", None, ("2",), np.zeros((7, 64, 64, 3), np.uint8))
    with pytest.raises(DataError, match=r"folder.png: cannot be written \(No such file or directory\)"):
        looking.sheet([sight], tmp_path / "no" / "folder.png")
