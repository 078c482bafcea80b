"""Where nothing can be written: said in one line with the place and the reason, before the work."""

import errno
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from safetensors import SafetensorError

from jepa_data.config import StreamConfig
from jepa_data.curate.config import CurateConfig
from jepa_data.curate.run import curate
from jepa_data.errors import DataError
from jepa_data.inspect import index as indexing
from jepa_data.pack.pack import Packing, open_corpus, pack
from jepa_data.pack.recipe import Recipe
from jepa_data.shards.encode import encode_mp4
from jepa_data.shards.tar import OpenShard
from jepa_data.sources.rollouts import Recording, record
from jepa_data.stream.latents import write_file
from jepa_data.stream.loader import make_loader
from jepa_data.writable import check_file, make_folder

Writer = Callable[..., Path]


def unexpected(*args: object, **kwargs: object) -> None:
    raise AssertionError("the work began")


@pytest.fixture
def below_a_file(tmp_path: Path) -> Path:
    """A folder that not even root can make."""
    (tmp_path / "file").write_text("x")
    return tmp_path / "file" / "out"


def test_a_folder_that_cannot_be_made_is_said_before_the_work(
    tmp_path: Path, below_a_file: Path, write_shards: Writer, monkeypatch: pytest.MonkeyPatch
) -> None:
    shards = write_shards(tmp_path / "s", [6])
    monkeypatch.setattr("jepa_data.sources.rollouts._simulate", unexpected)
    monkeypatch.setattr("jepa_data.pack.pack._run", unexpected)
    monkeypatch.setattr("jepa_data.curate.run.measure", unexpected)
    packing, message = Packing(Recipe(fps=None), test_share=0.0), r"file/out: cannot be written \(Not a directory\)"
    with pytest.raises(DataError, match=message):
        record(Recording("two-rooms", 2), below_a_file)
    with pytest.raises(DataError, match=message):
        pack(open_corpus(shards), below_a_file, packing)
    with pytest.raises(DataError, match=message):
        pack(open_corpus(shards), below_a_file, packing, overwrite=True)
    with pytest.raises(DataError, match=message):
        curate(shards, below_a_file, CurateConfig.model_validate({"stages": ({"kind": "dark"},)}))


def test_an_index_that_cannot_be_written_is_said_before_the_tars_are_read(
    tmp_path: Path, write_shards: Writer, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = write_shards(tmp_path / "s", [6])
    monkeypatch.setattr(indexing, "places", unexpected)
    monkeypatch.setattr("jepa_data.writable._try", lambda folder: (_ for _ in ()).throw(OSError(30, "Read-only")))
    with pytest.raises(DataError, match=r"s: cannot be written \(Read-only\)"):
        indexing.index(folder, overwrite=True)


def test_a_quarantine_file_that_cannot_be_written_is_said_before_training(
    below_a_file: Path, tmp_path: Path, write_shards: Writer
) -> None:
    config = {"shards": str(write_shards(tmp_path / "s", [6])), "batch_size": 1, "clip_frames": 4}
    with pytest.raises(DataError, match=r"file/out: cannot be written \(Not a directory\)\. Give another file"):
        make_loader(StreamConfig.model_validate(config | {"quarantine": str(below_a_file)}), "train", seed=0)


def test_a_disk_that_is_full_is_one_line_and_packing_goes_on_later(
    tmp_path: Path, numbered: Callable[..., np.ndarray], monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "v").mkdir()
    for number in range(3):
        (tmp_path / "v" / f"{number}.mp4").write_bytes(encode_mp4(numbered(8), 10))
    packing, corpus = Packing(Recipe(), test_share=0.0), open_corpus(tmp_path / "v")
    with monkeypatch.context() as patch:
        full = OSError(errno.ENOSPC, "No space left on device")
        patch.setattr(OpenShard, "write", lambda *args: (_ for _ in ()).throw(full))
        with pytest.raises(DataError, match=r"out: cannot be written \(No space left on device\)"):
            pack(corpus, tmp_path / "out", packing, processes=1)
    assert pack(corpus, tmp_path / "out", packing, processes=1).manifest.splits["train"].episodes == 3


def test_latents_that_do_not_fit_on_the_disk_are_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    full = SafetensorError("Error while serializing: I/O error: No space left on device (os error 28)")
    monkeypatch.setattr("jepa_data.stream.latents.save_file", lambda *args: (_ for _ in ()).throw(full))
    with pytest.raises(DataError, match=r"train-000000\.safetensors: cannot be written \(.*No space left"):
        write_file(tmp_path, "train-000000.tar", {})
    assert not list(tmp_path.iterdir())


def test_trying_leaves_nothing_behind_and_changes_nothing(tmp_path: Path) -> None:
    (tmp_path / "there").write_text("x")
    make_folder(tmp_path / "new" / "deep")
    check_file(tmp_path / "file")
    check_file(tmp_path / "there")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["new", "there"]
    assert (tmp_path / "there").read_text() == "x" and not list((tmp_path / "new" / "deep").iterdir())
    with pytest.raises(DataError, match=r"new: cannot be written \(Is a directory\)"):
        check_file(tmp_path / "new")
