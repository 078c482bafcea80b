"""Shards from strangers: nothing in them is run, nothing leaves their folder, nothing larger than a bound is read."""

import io
import json
import os
import pickle
import subprocess
import sys
import tarfile
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from jepa_data.config import StreamConfig
from jepa_data.errors import DataError, DecodeError
from jepa_data.shards import read
from jepa_data.shards.index import ShardSet
from jepa_data.shards.read import ShardFiles, read_npy
from jepa_data.stream.loader import make_loader
from tests.edited import write_edited

FIRST = "train-000000"


class Payload:
    """Unpickling it makes a file."""

    def __init__(self, trace: Path) -> None:
        self.trace = trace

    def __reduce__(self) -> tuple[Any, tuple[str]]:
        return os.mkdir, (str(self.trace),)


def payload(trace: Path, ending: str) -> bytes:
    """What a loader of members of this kind would unpickle."""
    if ending in ("pth", "pt"):
        buffer = io.BytesIO()
        torch.save({"weights": Payload(trace)}, buffer)
        return buffer.getvalue()
    if ending == "npz":
        buffer = io.BytesIO()
        with zipfile.ZipFile(buffer, "w") as archive:
            array = io.BytesIO()
            np.save(array, np.array([Payload(trace)], dtype=object), allow_pickle=True)
            archive.writestr("a.npy", array.getvalue())
        return buffer.getvalue()
    return pickle.dumps(Payload(trace))


@pytest.fixture
def folder(tmp_path: Path, write_shards: Callable[..., Path]) -> Path:
    return write_shards(tmp_path / "s", [12, 9, 10])


def config(folder: Path, **settings: Any) -> StreamConfig:
    return StreamConfig.model_validate({"shards": str(folder), "batch_size": 2, "clip_frames": 8} | settings)


def add_member(folder: Path, name: str, data: bytes) -> tuple[int, int]:
    """Append a member to the tar, and its new size to the manifest. Gives its offset and bytes."""
    tar = folder / f"{FIRST}.tar"
    with tarfile.open(tar, "a") as archive:
        info = tarfile.TarInfo(name)
        info.size = len(data)
        archive.addfile(info, io.BytesIO(data))
    with tarfile.open(tar) as archive:
        member = archive.getmembers()[-1]
    manifest = json.loads((folder / "manifest.json").read_text())
    manifest["splits"]["train"]["shards"][0]["bytes"] = tar.stat().st_size
    write_edited(folder / "manifest.json", manifest)
    return member.offset_data, member.size


def change_line(folder: Path, number: int, change: Callable[[dict[str, Any]], Any]) -> None:
    """Change one line of the index. The table no longer fits it and is not used."""
    index = folder / f"{FIRST}.index.jsonl"
    records = [json.loads(line) for line in index.read_text().splitlines()]
    change(records[number])
    index.write_text("".join(json.dumps(record) + "\n" for record in records))


def test_the_payloads_of_these_tests_would_run(tmp_path: Path) -> None:
    for ending in ("pyd", "npz", "pth"):
        trace, data = tmp_path / ending, payload(tmp_path / ending, ending)
        if ending == "pyd":
            pickle.loads(data)
        elif ending == "npz":
            np.load(io.BytesIO(data), allow_pickle=True)["a"]
        else:
            torch.load(io.BytesIO(data), weights_only=False)
        assert trace.exists()


@pytest.mark.parametrize("way", ["index", "headers", "line by line"])
@pytest.mark.parametrize("ending", ["pyd", "pkl", "pickle", "pth", "pt", "npz", "cls", "actions.pyd", "py", "json.gz"])
def test_members_that_could_run_code_are_refused_and_do_not_run(
    ending: str, way: str, folder: Path, tmp_path: Path
) -> None:
    trace = tmp_path / "it ran"
    place = add_member(folder, f"ep-1.{ending}", payload(trace, ending))
    if way == "headers":
        (folder / f"{FIRST}.index.jsonl").unlink()
        (folder / "index.npy").unlink()
    else:
        change_line(folder, 1, lambda record: record["members"].update({ending: place}))
    if way == "line by line":  # a table made for this index: lines are read when a sample is
        from jepa_data.shards.manifest import parse_line
        from jepa_data.shards.table import row_of

        rows, at = np.load(folder / "index.npy"), 0
        for i, line in enumerate((folder / f"{FIRST}.index.jsonl").read_bytes().splitlines()):
            rows["line"][i], rows["size"][i] = at, len(line)
            at += len(line) + 1
            if i != 1:
                assert row_of(parse_line(line, "", "", ""), 0, at, 1)[3] == rows["frames"][i]
        np.save(folder / "index.npy", rows)
        assert not ShardSet.open(folder).notes
    with pytest.raises(DataError, match=rf"'ep-1' has a member .{ending}. Only .mp4.* are read: other kinds could run"):
        list(make_loader(config(folder), "train", seed=0, total_batches=6))
    assert not trace.exists()


def test_an_array_with_a_pickle_in_it_is_a_bad_sample(folder: Path, tmp_path: Path) -> None:
    trace, array = tmp_path / "it ran", io.BytesIO()
    np.save(array, np.array([[Payload(trace)]] * 8, dtype=object), allow_pickle=True)
    for data in (array.getvalue(), payload(trace, "npz"), pickle.dumps(Payload(trace))):
        with pytest.raises(DecodeError, match=r"an array cannot be read|found several arrays"):
            read_npy(data, 8)
    place = add_member(folder, "ep-1b.actions.npy", array.getvalue())
    change_line(folder, 1, lambda record: record.update(members=record["members"] | {"actions.npy": place}, crc32=None))
    loader = make_loader(config(folder, max_bad_fraction=0.5), "train", seed=0)
    list(loader)
    assert {key: bad.kind for key, bad in loader.bad.items()} == {"ep-1": "damaged"}
    assert not trace.exists()


def test_an_array_whose_header_is_damaged_or_too_large_is_a_bad_sample() -> None:
    array = io.BytesIO()
    np.save(array, np.zeros((8, 2), np.float32))
    data = array.getvalue()
    huge = data.replace(b"(8, 2), }", b"(8, %d), }" % 10**14).replace(b" " * 13 + b"\n", b"\n")
    for damaged in (huge, data[:10] + bytes(118) + data[128:], data[:10] + b"(((" + data[13:], data[:-1], b""):
        with pytest.raises(DecodeError, match=r"an array cannot be read"):
            read_npy(damaged, 8)


def test_a_table_with_a_pickle_in_it_is_not_read(folder: Path, tmp_path: Path) -> None:
    trace = tmp_path / "it ran"
    expected = [batch.keys for batch in make_loader(config(folder), "train", seed=0)]
    table = np.array([Payload(trace)] * 3, dtype=object)
    as_array = io.BytesIO()
    np.save(as_array, table, allow_pickle=True)
    for data in (as_array.getvalue(), pickle.dumps({"rows": table})):
        (folder / "index.npy").write_bytes(data)
        assert [batch.keys for batch in make_loader(config(folder), "train", seed=0)] == expected
    assert not trace.exists()


@pytest.mark.parametrize("key", ["../../../tmp/evil", "/etc/passwd", "..", "a/../../b", "C:\\x", "\x00", "a\nb"])
def test_keys_that_name_another_place_are_made_harmless(key: str, folder: Path) -> None:
    change_line(folder, 1, lambda record: record.update(key=key))
    loader = make_loader(config(folder), "train", seed=0, shuffle=False)
    keys = [key for batch in loader for key in batch.keys]
    assert len(keys) == 3 and all(set(key) <= set("abcdefghijklmnopqrstuvwxyzC_-0123456789") for key in keys)


def test_members_that_are_links_or_lead_outside_are_not_followed(folder: Path, tmp_path: Path) -> None:
    secret = tmp_path / "secret.mp4"
    secret.write_bytes(b"secret")
    with tarfile.open(folder / f"{FIRST}.tar", "a") as archive:
        for kind, name in (
            (tarfile.SYMTYPE, "link.mp4"),
            (tarfile.LNKTYPE, "hard.mp4"),
            (tarfile.FIFOTYPE, "pipe.mp4"),
        ):
            info = tarfile.TarInfo(name)
            info.type, info.linkname = kind, str(secret)
            archive.addfile(info)
    add_member(folder, "../../outside.mp4", b"not a video")
    (folder / "index.npy").unlink()
    (folder / f"{FIRST}.index.jsonl").unlink()
    samples = ShardSet.open(folder).samples
    found = {sample.key: sample for sample in samples}
    assert not {"link", "hard", "pipe"} & set(found) and all("/" not in key and "." not in key for key in found)
    before = sorted(path for path in tmp_path.rglob("*"))
    loader = make_loader(config(folder, max_bad_fraction=0.9), "train", seed=0)
    assert {key for batch in loader for key in batch.keys} <= {"ep-0", "ep-1", "ep-2"}
    assert sorted(path for path in tmp_path.rglob("*")) == before


def test_a_sample_larger_than_the_bound_is_not_read(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    change_line(folder, 1, lambda record: record["members"].update(mp4=[512, 2**40], **{"metadata.json": [0, 10]}))
    loader = make_loader(config(folder, max_bad_fraction=0.5), "train", seed=0, total_batches=6)
    list(loader)
    assert {key: bad.kind for key, bad in loader.bad.items()} == {} and loader.stats.lost == 1, "beyond the shard's end"
    monkeypatch.setattr(read, "MEMBER_BYTES", 100)
    with pytest.raises(DecodeError, match=r"too large: it takes \d+ bytes, at most 100 are read"):
        ShardFiles(folder).read(ShardSet.open(folder).samples[0])


@pytest.mark.parametrize("place", [[-512, 100], [0, -1], [2**63, 1], [2**40, 2**30], [10**30, 10]])
def test_places_outside_of_the_shard_are_errors_with_a_name(place: list[int], folder: Path) -> None:
    sample = ShardSet.open(folder).samples[0]
    sample.members["mp4"] = (place[0], place[1])
    with pytest.raises(DecodeError) as caught:
        ShardFiles(folder).read(sample)
    assert caught.value.kind in ("damaged", "truncated", "too large", "missing")


def test_webdataset_is_asked_to_be_careful() -> None:
    code = (
        "import jepa_data.stream.loader, webdataset.utils, os\n"
        "assert os.environ['WDS_SECURE'] == '1' and webdataset.utils.enforce_security"
    )
    environment = {k: v for k, v in os.environ.items() if k != "WDS_SECURE"} | {"PYTHONPATH": os.pathsep.join(sys.path)}
    subprocess.run([sys.executable, "-c", code], env=environment, check=True, timeout=60)


def test_names_in_a_folder_are_not_commands_and_not_variables(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("A_SECRET", "hunter2")
    odd = tmp_path / "${A_SECRET} $(touch ran) ; touch ran | touch ran"
    folder.rename(odd)
    monkeypatch.chdir(tmp_path)
    loader = make_loader(config(odd), "train", seed=0)
    assert len(list(loader)) == 2 and "hunter2" not in loader.shards.url
    assert not (tmp_path / "ran").exists()
