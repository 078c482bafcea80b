"""A JSON file that knows its content: every changed bit that matters is noticed."""

import json
from pathlib import Path

import pytest
import torch
from torch import nn

from jepa.config import UserError
from jepa.config.result import Number, Result
from jepa.config.sealed import SEAL, Sealed, seal, unseal
from jepa.models.checkpoint import read_description, save
from jepa_data.errors import DataError
from jepa_data.shards.index import ShardSet
from tests.edited import write_edited

CONTENT = {"fps": 10.0, "names": ["x", "ä"], "size": 3, "none": None, "whole": True, "nested": {"a": 1e-300}}


class Rate(Sealed):
    fps: float
    sizes: tuple[int, ...] = ()


def test_what_was_written_is_read() -> None:
    assert unseal(json.loads(seal(CONTENT))) == CONTENT
    assert Rate.from_file(Rate(fps=0.1, sizes=(1, 2)).to_file()) == Rate(fps=0.1, sizes=(1, 2))


def test_a_file_without_a_checksum_is_read_as_it_is() -> None:
    assert unseal(CONTENT) == CONTENT
    assert Rate.from_file('{"fps": 2.5}') == Rate(fps=2.5)


def test_every_flipped_bit_changes_nothing_or_is_noticed() -> None:
    text, noticed = Rate(fps=30.0, sizes=(16, 224)).to_file().encode(), 0
    for place in range(8 * len(text)):
        changed = bytearray(text)
        changed[place // 8] ^= 1 << place % 8
        try:
            read = Rate.from_file(bytes(changed))
        except ValueError:
            noticed += 1
        else:
            assert read == Rate(fps=30.0, sizes=(16, 224)), changed
    assert noticed > 7 * len(text)


class Score(Result):
    FILE = "score.json"
    VERB = "probe"
    score: Number


def test_a_changed_result_is_refused_unless_the_checksum_is_removed(tmp_path: Path) -> None:
    path = Score(score=0.9).write(tmp_path)
    assert Score.read(tmp_path).score == 0.9
    changed = json.loads(path.read_text()) | {"score": 0.1}
    path.write_text(json.dumps(changed))
    with pytest.raises(UserError, match=rf"score\.json: changed since it was written, by its {SEAL}") as caught:
        Score.read(tmp_path)
    assert "\n" not in str(caught.value)
    write_edited(path, changed)
    assert Score.read(tmp_path).score == 0.1


def test_a_result_that_is_no_number_is_not_written(tmp_path: Path) -> None:
    class Loose(Result):
        FILE = "loose.json"
        VERB = "probe"
        value: float

    with pytest.raises(ValueError, match="JSON"):
        Loose(value=float("inf")).write(tmp_path)


def test_another_layout_is_the_same_content() -> None:
    text = Rate(fps=30.0, sizes=(16, 224)).to_file()
    assert Rate.from_file(json.dumps(json.loads(text), sort_keys=True)).fps == 30.0


def test_a_changed_manifest_of_shards_is_refused_unless_the_checksum_is_removed(corpus: Path, tmp_path: Path) -> None:
    for file in corpus.iterdir():
        (tmp_path / file.name).hardlink_to(file)
    path = tmp_path / "manifest.json"
    changed = json.loads(path.read_text()) | {"fps": 31.0}
    path.unlink()
    path.write_text(json.dumps(changed))
    with pytest.raises(DataError, match=rf"manifest.json: changed since it was written.*{SEAL}.*remove that key"):
        ShardSet.open(tmp_path)
    write_edited(path, changed)
    assert ShardSet.open(tmp_path).manifest.fps == 31.0


def test_a_changed_description_of_a_model_is_refused_unless_the_checksum_is_removed(tmp_path: Path) -> None:
    torch.manual_seed(0)
    save(tmp_path, nn.Linear(2, 2), {"fps": 10.0})
    path = tmp_path / "model.json"
    changed = json.loads(path.read_text()) | {"fps": 11.0}
    path.write_text(json.dumps(changed))
    with pytest.raises(UserError, match=rf"model.json: changed since it was written.*{SEAL}"):
        read_description(tmp_path)
    write_edited(path, changed)
    assert read_description(tmp_path)["fps"] == 11.0
