"""Shards: written once, found again byte for byte, and honest about what is missing."""

import hashlib
import io
import json
import os
import pickle
import tarfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from jepa_data.errors import DataError, DecodeError
from jepa_data.inspect.summary import summary
from jepa_data.shards.encode import encode_mp4
from jepa_data.shards.index import ShardSet
from jepa_data.shards.manifest import clean_key
from jepa_data.shards.read import ShardFiles, read_npy
from jepa_data.shards.write import ShardWriter
from tests.edited import write_edited

Writer = Callable[..., Path]
Numbered = Callable[..., NDArray[np.uint8]]


def plain_writer(out: Path, *, overwrite: bool = False) -> ShardWriter:
    return ShardWriter(
        out,
        fps=10.0,
        image_size=64,
        world=None,
        action_size=0,
        state_names=[],
        label_names=[],
        seed=0,
        overwrite=overwrite,
    )


def test_the_same_samples_give_the_same_bytes(tmp_path: Path, write_shards: Writer) -> None:
    a, b = (write_shards(tmp_path / name, [6, 7, 8, 9], shard_bytes=12_000) for name in "ab")
    names = sorted(path.name for path in a.iterdir())
    assert names == sorted(path.name for path in b.iterdir())
    assert sum(name.endswith(".tar") for name in names) > 1, "the shards were meant to be split"
    for name in names:
        assert (a / name).read_bytes() == (b / name).read_bytes()


def test_the_index_says_where_every_member_lies(tmp_path: Path, write_shards: Writer) -> None:
    shards = ShardSet.open(write_shards(tmp_path / "s", [6, 7, 8, 9], shard_bytes=12_000))
    assert [sample.key for sample in shards.samples] == ["ep-0", "ep-1", "ep-2", "ep-3"]
    assert [sample.frames for sample in shards.split("train")] == [6, 7, 8, 9]
    for sample in shards.samples:
        members = ShardFiles(shards.store).read(sample)
        with tarfile.open(shards.path(sample)) as tar:
            for ending, data in members.items():
                file = tar.extractfile(f"{sample.key}.{ending}")
                assert file is not None and file.read() == data
        assert read_npy(members["states.npy"], sample.frames)[0, 0] == 100 * int(sample.key[3:])


def test_webdataset_reads_the_shards_too(tmp_path: Path, write_shards: Writer) -> None:
    from webdataset.tariterators import group_by_keys, tar_file_expander

    folder = write_shards(tmp_path / "s", [6, 7])
    with (folder / "train-000000.tar").open("rb") as file:
        samples = list(group_by_keys(tar_file_expander([{"url": "train-000000.tar", "stream": file}])))
    assert [sample["__key__"] for sample in samples] == ["ep-0", "ep-1"]
    assert set(samples[0]) >= {"mp4", "actions.npy", "states.npy", "metadata.json"}


def test_the_manifest_describes_the_shards(tmp_path: Path, write_shards: Writer) -> None:
    folder = write_shards(tmp_path / "s", [6, 7, 8, 9], shard_bytes=12_000)
    manifest = ShardSet.open(folder).manifest
    record = manifest.splits["train"]
    assert (record.episodes, record.frames, manifest.action_size) == (4, 30, 2)
    for shard in record.shards:
        data = (folder / shard.file).read_bytes()
        assert (len(data), hashlib.sha256(data).hexdigest()) == (shard.bytes, shard.sha256)
    found = summary(ShardSet.open(folder))
    json.dumps(found)
    assert found["splits"]["train"]["seconds"] == pytest.approx(3.0)
    assert found["splits"]["train"]["labels"] == {"parity": {0: 2, 1: 2}}


def test_an_interrupted_recording_is_never_taken_for_a_whole_one(tmp_path: Path, numbered: Numbered) -> None:
    out = tmp_path / "s"

    def interrupted() -> None:
        with plain_writer(out) as writer:
            writer.write("train", "a", encode_mp4(numbered(5), 10), 5, None, None, {})
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupted()
    with pytest.raises(DataError, match=r"not finished.*--overwrite"):
        ShardSet.open(out)
    with pytest.raises(DataError, match="not empty"):
        plain_writer(out)
    (out / "notes.txt").write_text("mine")
    with plain_writer(out, overwrite=True) as writer:
        writer.write("val", "b", encode_mp4(numbered(4), 10), 4, None, None, {})
    assert [sample.key for sample in ShardSet.open(out).samples] == ["b"]
    assert not (out / "train-000000.tar").exists()
    assert (out / "notes.txt").read_text() == "mine"


def test_parts_that_do_not_fit_are_refused(tmp_path: Path, numbered: Numbered) -> None:
    video = encode_mp4(numbered(5), 10)
    with plain_writer(tmp_path / "s") as writer:
        writer.write("train", "a", video, 5, None, None, {})
        for arguments, says in [
            (("train", "a", video, 5, None, None, {}), "two samples"),
            (("train", "b", video, 6, None, None, {}), "has 5 frames, 6"),
            (("train", "b", video, 5, np.zeros((4, 2), np.float32), None, {}), "expected None"),
            (("train", "b", video, 5, None, None, {"labels": {"heavy": 1}}), "heavy"),
            (("holdout", "b", video, 5, None, None, {}), "train, val, test"),
            (("train", "b", video[:99], 5, None, None, {}), "truncated"),
        ]:
            with pytest.raises(DataError, match=says):
                writer.write(*arguments)
    assert len(ShardSet.open(tmp_path / "s").samples) == 1


def test_a_writer_without_samples_says_so(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no sample was written"), plain_writer(tmp_path / "s"):
        pass


@pytest.mark.parametrize("key", ["../../etc/passwd", "a.b.c", "a/b", "..", "", "ü", "x" * 500])
def test_keys_cannot_leave_their_folder_or_be_cut_at_a_dot(key: str) -> None:
    clean = clean_key(key)
    assert clean and len(clean) <= 80 and not set(clean) & set("./\\") and clean == clean_key(clean)


def test_a_folder_that_holds_no_shards_is_described(tmp_path: Path, write_shards: Writer) -> None:
    with pytest.raises(DataError, match=r"no such folder.*jepa data pack"):
        ShardSet.open(tmp_path / "nowhere")
    with pytest.raises(DataError, match="holds nothing"):
        ShardSet.open(tmp_path)
    for i in range(3):
        (tmp_path / f"{i}.mp4").touch()
    with pytest.raises(DataError, match=r"it holds 3 \.mp4.*jepa data pack"):
        ShardSet.open(tmp_path)
    folder = write_shards(tmp_path / "s", [6])
    with pytest.raises(DataError, match=r"no split 'test'. It has: train"):
        ShardSet.open(folder).split("test")
    manifest = folder / "manifest.json"
    write_edited(manifest, json.loads(manifest.read_text()) | {"version": 9})
    with pytest.raises(DataError, match="version"):
        ShardSet.open(folder)


def test_a_tar_that_was_cut_keeps_the_samples_before_the_cut(tmp_path: Path, write_shards: Writer) -> None:
    folder = write_shards(tmp_path / "s", [6, 7, 8, 9])
    whole = list(ShardSet.open(folder).samples)
    tar = folder / "train-000000.tar"
    for kept in range(4):
        data = tar.read_bytes()
        os.truncate(tar, whole[kept].end - 1)
        shards = ShardSet.open(folder)
        assert shards.samples == whole[:kept]
        assert shards.lost_of("train") == tuple(sample.key for sample in whole[kept:])
        assert "train-000000.tar: cut short" in shards.notes[0] and f"ep-{kept}" in shards.notes[0]
        tar.write_bytes(data)
    assert ShardSet.open(folder).notes == ()


def test_a_shard_that_is_missing_or_another_file_is_named(tmp_path: Path, write_shards: Writer) -> None:
    folder = write_shards(tmp_path / "s", [6, 7])
    tar = folder / "train-000000.tar"
    tar.write_bytes(tar.read_bytes() + bytes(512))
    with pytest.raises(DataError, match=r"train-000000.tar.*not the file that was written"):
        ShardSet.open(folder)
    tar.unlink()
    with pytest.raises(DataError, match=r"train-000000.tar: missing, with 2 samples"):
        ShardSet.open(folder)


@pytest.mark.parametrize("damage", ["missing", "cut", "garbage"])
def test_a_lost_index_is_rebuilt_from_the_headers(damage: str, tmp_path: Path, write_shards: Writer) -> None:
    folder = write_shards(tmp_path / "s", [6, 7, 8])
    whole = list(ShardSet.open(folder).samples)
    index = folder / "train-000000.index.jsonl"
    if damage == "missing":
        index.unlink()
    else:
        index.write_text(index.read_text()[:-40] if damage == "cut" else "[1, 2]\n")
    shards = ShardSet.open(folder)
    assert "its index is" in shards.notes[0]
    assert [s.members for s in shards.samples] == [s.members for s in whole]
    assert [shards.probed(s).video for s in shards.samples] == [s.video for s in whole]


def test_a_rebuilt_index_of_a_cut_tar_counts_what_is_lost(tmp_path: Path, write_shards: Writer) -> None:
    folder = write_shards(tmp_path / "s", [6, 7, 8])
    whole = list(ShardSet.open(folder).samples)
    (folder / "train-000000.index.jsonl").unlink()
    os.truncate(folder / "train-000000.tar", whole[1].members["mp4"][0] + 10)
    shards = ShardSet.open(folder)
    assert [sample.key for sample in shards.samples] == ["ep-0"]
    assert len(shards.lost_of("train")) == 2


def test_changed_bytes_are_found_by_the_checksum(tmp_path: Path, write_shards: Writer) -> None:
    folder = write_shards(tmp_path / "s", [6, 7])
    shards = ShardSet.open(folder)
    sample = shards.samples[1]
    offset, size = sample.members["mp4"]
    with (folder / sample.shard).open("r+b") as file:
        file.seek(offset + size // 2)
        byte = file.read(1)
        file.seek(-1, io.SEEK_CUR)
        file.write(bytes([byte[0] ^ 1]))
    files = ShardFiles(folder)
    files.read(shards.samples[0])
    with pytest.raises(DecodeError, match="CRC-32"):
        files.read(sample)


class Payload:
    """Unpickling it makes a file."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Callable[..., None], tuple[str]]:
        return Path.touch, (Path(self.path),)  # type: ignore[return-value]


@pytest.mark.parametrize("ending", ["pkl", "pyd", "pth", "actions.pyd"])
def test_members_that_could_run_code_are_refused_by_name(ending: str, tmp_path: Path, write_shards: Writer) -> None:
    folder, trap = write_shards(tmp_path / "s", [6]), tmp_path / "trap"
    tar = folder / "train-000000.tar"
    evil = pickle.dumps(Payload(trap))
    with tarfile.open(tar, "a") as archive:
        member = tarfile.TarInfo(f"ep-0.{ending}")
        member.size = len(evil)
        archive.addfile(member, io.BytesIO(evil))
    (folder / "train-000000.index.jsonl").unlink()
    manifest = json.loads((folder / "manifest.json").read_text())
    manifest["splits"]["train"]["shards"][0]["bytes"] = tar.stat().st_size
    write_edited(folder / "manifest.json", manifest)
    with pytest.raises(DataError, match=rf"ep-0.*\.{ending}.*could run code"):
        ShardSet.open(folder)
    assert not trap.exists()
    pickle.loads(evil)
    assert trap.exists(), "the trap works"


def test_a_pickle_inside_an_array_file_is_refused(tmp_path: Path) -> None:
    trap, buffer = tmp_path / "trap", io.BytesIO()
    np.save(buffer, np.array([[Payload(trap)]], dtype=object), allow_pickle=True)
    with pytest.raises(DecodeError, match="array cannot be read"):
        read_npy(buffer.getvalue(), 1)
    with pytest.raises(DecodeError):
        read_npy(pickle.dumps(Payload(trap)), 1)
    assert not trap.exists()


def test_arrays_of_the_wrong_shape_are_named() -> None:
    for array in (np.zeros((3, 2)), np.zeros(4), np.array([["a"]] * 4)):
        buffer = io.BytesIO()
        np.save(buffer, array)
        with pytest.raises(DecodeError, match="expected numbers in 4 rows"):
            read_npy(buffer.getvalue(), 4)
    with pytest.raises(DecodeError):
        read_npy(b"", 4)
