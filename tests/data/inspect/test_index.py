"""`jepa data index`: tars that others wrote become shards the stream reads, and what is not read is said."""

import io
import json
import os
import pickle
import tarfile
from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np
import pytest

from jepa_data.config import StreamConfig
from jepa_data.errors import DataError, DecodeError
from jepa_data.inspect.check import check
from jepa_data.inspect.index import REJECTED, index
from jepa_data.pack.pack import Packing, open_corpus, pack
from jepa_data.pack.recipe import Recipe
from jepa_data.shards.encode import encode_mp4
from jepa_data.shards.index import ShardSet
from jepa_data.shards.read import ShardFiles
from jepa_data.stream.loader import make_loader

Numbered = Callable[..., np.ndarray]
Reading = Callable[[np.ndarray], list[int]]
Writer = Callable[..., Path]


def write_tar(path: Path, members: Mapping[str, bytes]) -> Path:
    path.parent.mkdir(exist_ok=True)
    with tarfile.open(path, "w") as archive:
        for name, data in members.items():
            info = tarfile.TarInfo(name)
            info.size = len(data)
            archive.addfile(info, io.BytesIO(data))
    return path


def test_tars_of_others_become_shards_the_stream_reads(
    tmp_path: Path, numbered: Numbered, read_numbers: Reading
) -> None:
    folder = tmp_path / "theirs"
    for name, first in (("train-0000.tar", 0), ("train-0001.tar", 20), ("validation-0000.tar", 40)):
        members = {}
        for i in range(2):  # every tar begins to count at 0 again
            members[f"{i:05}.mp4"] = encode_mp4(numbered(8, first + 10 * i), 10)
            members[f"{i:05}.json"] = json.dumps({"caption": "a puck", "labels": {"kind": i}}).encode()
            members[f"{i:05}.txt"] = b"a puck"
            members[f"{i:05}.cls"] = str(i + 5).encode()
        write_tar(folder / name, members)
    before = {tar.name: tar.read_bytes() for tar in folder.glob("*.tar")}
    found = index(folder, workers=1)
    assert {tar.name: tar.read_bytes() for tar in folder.glob("*.tar")} == before
    assert found.ignored == {".txt": 6} and found.rejected == () and found.notes == ()
    shards = ShardSet.open(folder)
    assert shards.notes == () and {s: len(shards.split(s)) for s in shards.manifest.splits} == {"train": 4, "val": 2}
    assert (shards.manifest.fps, shards.manifest.image_size) == (10.0, 64)
    assert [(s.key, s.labels["cls"], s.labels["kind"]) for s in shards.split("train")] == [
        ("00000", 5, 0), ("00001", 6, 1), ("train-0001_00000", 5, 0), ("train-0001_00001", 6, 1)
    ]  # fmt: skip
    config = StreamConfig.model_validate({"shards": str(folder), "batch_size": 4, "clip_frames": 8})
    (batch,) = make_loader(config, "train", seed=0, shuffle=False)
    numbers = np.reshape(read_numbers(batch.video.numpy().transpose(0, 1, 3, 4, 2)), (4, 8))
    assert numbers[:, 0].tolist() == [0, 10, 20, 30] and batch.labels["kind"].tolist() == [0, 1, 0, 1]
    assert check(folder, workers=1).findings == ()


def test_images_stand_beside_videos_and_odd_members_are_named(tmp_path: Path, numbered: Numbered) -> None:
    video, jpeg = encode_mp4(numbered(6), 10), io.BytesIO()
    from PIL import Image

    Image.fromarray(numbered(1)[0]).save(jpeg, "JPEG")
    members = {
        "a/1.mp4": video, "a/1.jpg": jpeg.getvalue(), "a/1.wav": b"RIFF",  # the image beside a video is left alone
        "a/2.jpg": jpeg.getvalue(), "a/2.json": b"[1, 2]", "a/2.cls": b"cat",
        "b/3.mp4": b"no video", "b/4.txt": b"alone", "b/5.mp4": video, "b/5.webm": video,
    }  # fmt: skip
    write_tar(tmp_path / "s" / "00000.tar", members)
    found = index(tmp_path / "s", workers=1)
    assert {(f.key, f.kind) for f in found.rejected} == {
        ("b_3", "not a video"), ("b_4", "no video"), ("b_5", "several videos")
    }  # fmt: skip
    assert [sample.media for sample in ShardSet.open(tmp_path / "s").samples] == ["mp4", "jpg"]
    assert found.ignored[".wav"] == found.ignored[".jpg"] == found.ignored[".cls that is no whole number"] == 1
    assert ".json that is no object, or has other `labels` than a number each" in found.ignored
    assert "taken for train" in found.notes[0]
    listed = [json.loads(line)["key"] for line in (tmp_path / "s" / REJECTED).read_text().splitlines()]
    assert set(listed) == {"b_3", "b_4", "b_5"}


def test_a_lost_manifest_is_made_again_with_actions_and_states(tmp_path: Path, write_shards: Writer) -> None:
    folder = write_shards(tmp_path / "s", [6, 7, 8])
    before = ShardSet.open(folder)
    kept = [(s.key, s.members, s.crc32, s.frames) for s in before.samples]
    (folder / "manifest.json").unlink()
    index(folder, workers=1)
    again = ShardSet.open(folder)
    assert [(s.key, s.members, s.crc32, s.frames) for s in again.samples] == kept
    assert (again.manifest.action_size, len(again.manifest.state_names)) == (2, 1)
    assert again.manifest.splits["train"] == before.manifest.splits["train"]


@pytest.mark.parametrize("widths", [(2, 3), (2, None)])
def test_samples_whose_arrays_are_left_out_keep_a_checksum(
    tmp_path: Path, numbered: Numbered, widths: tuple[int | None, int | None]
) -> None:
    """Of what stays: a changed byte is noticed in training."""
    members = dict[str, bytes]()
    for key, width in zip("ab", widths, strict=True):
        members[f"{key}.mp4"] = encode_mp4(numbered(6), 10)
        if width is not None:
            buffer = io.BytesIO()
            np.save(buffer, np.zeros((5, width), np.float32))
            members[f"{key}.actions.npy"] = buffer.getvalue()
    tar = write_tar(tmp_path / "s" / "train-0.tar", members)
    assert any("actions.npy" in what for what in index(tmp_path / "s", workers=1).ignored)
    assert check(tmp_path / "s", workers=1).findings == ()
    shards = ShardSet.open(tmp_path / "s")
    assert all(sample.crc32 is not None and set(sample.members) == {"mp4"} for sample in shards.samples)
    at, size = shards.samples[0].members["mp4"]
    data = bytearray(tar.read_bytes())
    data[at + size - 1] ^= 1
    tar.write_bytes(data)
    with pytest.raises(DecodeError, match="CRC-32"):
        ShardFiles(tmp_path / "s").read(shards.samples[0])


class Payload:
    """Leaves a file when it is unpickled."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[object, tuple[str, str]]:
        return open, (str(self.path), "w")


@pytest.mark.parametrize("ending", ["pyd", "pkl", "pth", "embedding.pkl"])
def test_tars_with_pickles_are_refused_by_name(tmp_path: Path, numbered: Numbered, ending: str) -> None:
    members = {"a.mp4": encode_mp4(numbered(4), 10), f"a.{ending}": pickle.dumps(Payload(tmp_path / "ran"))}
    write_tar(tmp_path / "s" / "0.tar", members)
    with pytest.raises(DataError, match=rf"0\.tar: holds 'a\.{ending}', a pickle"):
        index(tmp_path / "s", workers=1)
    assert not (tmp_path / "ran").exists() and not (tmp_path / "s" / "manifest.json").exists()


def test_a_tar_that_is_cut_short_keeps_the_samples_before_the_cut(tmp_path: Path, numbered: Numbered) -> None:
    tar = write_tar(tmp_path / "s" / "0.tar", {f"{i}.mp4": encode_mp4(numbered(6), 10) for i in range(3)})
    tar.write_bytes(tar.read_bytes()[: tar.stat().st_size * 2 // 5])
    found = index(tmp_path / "s", workers=1, split="test")
    assert found.manifest.splits["test"].episodes == 1
    assert [(f.key, f.kind) for f in found.rejected] == [("1", "truncated")]


def test_what_cannot_be_indexed_says_why(tmp_path: Path, write_shards: Writer) -> None:
    folder = write_shards(tmp_path / "s", [6])
    with pytest.raises(DataError, match=r"has a manifest\.json already"):
        index(folder)
    with pytest.raises(DataError, match=r"no such folder"):
        index(tmp_path / "nowhere")
    (tmp_path / "z").mkdir()
    (tmp_path / "z" / "0.tar.gz").write_bytes(b"")
    with pytest.raises(DataError, match=r"0\.tar\.gz is compressed.*Decompress it"):
        index(tmp_path / "z")
    write_tar(tmp_path / "e" / "0.tar", {"a.txt": b"x"})
    with pytest.raises(DataError, match=r"no sample can be used; the first: .*no video"):
        index(tmp_path / "e", workers=1)


def test_labels_in_json_members_are_used_like_cls(tmp_path: Path, numbered: Numbered) -> None:
    video, members = encode_mp4(numbered(6), 10), dict[str, bytes]()
    described = {
        "a": '{"label": "dog", "class": 7, "caption": "a dog"}',
        "b": '{"label": "cat", "class": 3.0}',
        "c": '{"label": " dog ", "class": [1]}',
        "d": '{"label": null, "labels": {"kind": 4}}',
        "e": '{"label": "cat", "label": "bird"}',
    }
    for key, text in described.items():
        members |= {f"{key}.mp4": video, f"{key}.json": text.encode()}
    write_tar(tmp_path / "s" / "train-0.tar", members)
    found = index(tmp_path / "s", workers=1)
    shards = ShardSet.open(tmp_path / "s")
    assert shards.manifest.label_values == {"label": ("bird", "cat", "dog")}
    assert {s.key: (s.labels["label"], s.labels["class"], s.labels["kind"]) for s in shards.samples} == {
        "a": (2, 7, -1), "b": (1, 3, -1), "c": (2, -1, -1), "d": (-1, -1, 4), "e": (0, -1, -1)
    }  # fmt: skip
    assert found.ignored == {
        ".json with 'class' that is no text or whole number": 1,
        ".json that has a key twice (its last value is used)": 1,
    }
    assert "label (3 classes: bird, cat, dog)" in "\n".join(found.lines(tmp_path))
    assert check(tmp_path / "s", workers=1).findings == ()
    config = StreamConfig.model_validate({"shards": str(tmp_path / "s"), "batch_size": 5, "clip_frames": 6})
    (batch,) = make_loader(config, "train", seed=0, shuffle=False)
    assert batch.labels["label"].tolist() == [2, 1, 2, -1, 0]
    packing = Packing(Recipe(), test_share=0.0)
    pack(open_corpus(tmp_path / "s"), tmp_path / "again", packing, processes=1)
    again = ShardSet.open(tmp_path / "again")
    assert {s.key: s.labels["label"] for s in again.samples} == {"a": 2, "b": 1, "c": 2, "d": -1, "e": 0}


def test_members_that_come_twice_are_named_and_the_first_is_used(tmp_path: Path, numbered: Numbered) -> None:
    (tmp_path / "s").mkdir()
    with tarfile.open(tmp_path / "s" / "train.tar", "w") as archive:
        for name, data in (
            ("1.mp4", encode_mp4(numbered(6), 10)), ("1.cls", b"1"), ("1.cls", b"2"),
            ("2.mp4", encode_mp4(numbered(6), 10)), ("1.MP4", encode_mp4(numbered(8), 10)), ("README", b"!"),
        ):  # fmt: skip
            info = tarfile.TarInfo(name)
            info.size = len(data)
            archive.addfile(info, io.BytesIO(data))
    found = index(tmp_path / "s", workers=1)
    assert {s.key: (s.frames, s.labels["cls"]) for s in ShardSet.open(tmp_path / "s").samples} == {
        "1": (6, 1), "2": (6, -1)
    }  # fmt: skip
    (finding,) = found.rejected
    assert (finding.key, finding.kind) == ("1", "two of one key") and ".cls, .mp4 again" in finding.detail
    assert found.ignored == {"names without a stem or an ending": 1}


def test_tars_with_odd_names_or_that_cannot_be_read_are_left_out(tmp_path: Path, numbered: Numbered) -> None:
    folder = tmp_path / "s"
    for name in ("train-0.tar", os.fsdecode(b"train-\xe9.tar"), "deep.tar/train-1.tar"):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        members = {os.fsdecode(b"caf\xe9.mp4"): encode_mp4(numbered(6), 10), "none.mp4": b""}
        write_tar(folder / name, members)
    (folder / "train-9.tar").symlink_to("nowhere")
    found = index(folder, workers=1)
    assert found.manifest.splits["train"].episodes == 1 and [f.key for f in found.rejected] == ["none"]
    text = "\n".join(found.lines(folder))
    for part in (r"train-\xe9.tar", "deep.tar/train-1.tar", "train-9.tar (broken link)"):
        assert part in text
    (sample,) = ShardSet.open(folder).samples
    assert sample.source["url"] == r"train-0.tar/caf\xe9"
