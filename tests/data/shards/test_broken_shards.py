"""Shards that are cut, damaged or lie: a named error, an exact count, no wrong frame, and the others as they were."""

import io
import json
import random
import shutil
import tarfile
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from jepa_data.config import StreamConfig
from jepa_data.errors import DataError
from jepa_data.inspect.index import index
from jepa_data.shards.index import ShardSet
from jepa_data.shards.manifest import Sample
from jepa_data.stream.loader import make_loader
from jepa_data.types import ClipBatch
from tests.edited import write_edited

LENGTHS = [12, 20, 15, 30, 11, 9, 25, 14, 18, 10]
FIRST = "train-000000"
ReadNumbers = Callable[[Any], list[int]]


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory, write_shards: Callable[..., Path]) -> Path:
    """One shard of ten samples; not to be changed."""
    return write_shards(tmp_path_factory.mktemp("whole") / "s", LENGTHS)


@pytest.fixture
def folder(whole: Path, tmp_path: Path) -> Path:
    """A copy that a test may damage."""
    return Path(shutil.copytree(whole, tmp_path / "s"))


def config(folder: Path, **settings: Any) -> StreamConfig:
    return StreamConfig.model_validate(
        {"shards": str(folder), "batch_size": 4, "clip_frames": 8, "max_bad_fraction": 1.0} | settings
    )


def checked(batches: Iterable[ClipBatch], read_numbers: ReadNumbers) -> list[str]:
    """Keys of the clips, once every frame of them was found to be the one it should be."""
    keys: list[str] = []
    for batch in batches:
        assert batch.states is not None
        for i, key in enumerate(batch.keys):
            first = 100 * int(key[3:]) + round(float(batch.start_seconds[i]) * 10)
            numbers = read_numbers(batch.video[i].permute(0, 2, 3, 1).numpy())
            assert numbers == list(range(first, first + 8)) == batch.states[i, :, 0].tolist()
            keys.append(key)
    return keys


def survivors(folder: Path, read_numbers: ReadNumbers) -> tuple[list[str], int]:
    """Samples that evaluation delivers, and how many it counts as bad or lost."""
    loader = make_loader(config(folder), "train", seed=0, shuffle=False)
    return checked(loader, read_numbers), loader.stats.bad + loader.stats.lost


@pytest.mark.parametrize("kept", ["index", "headers", "lines"])
def test_a_tar_cut_at_any_byte_keeps_the_samples_before_the_cut(
    kept: str, whole: Path, folder: Path, read_numbers: ReadNumbers
) -> None:
    """With the table and the index, with the headers of the tar alone, and with the index alone."""
    samples = list(ShardSet.open(whole).samples)
    data = (whole / f"{FIRST}.tar").read_bytes()
    if kept != "index":
        (folder / "index.npy").unlink()
    if kept == "headers":
        (folder / f"{FIRST}.index.jsonl").unlink()
    offsets = [0, 1, 511, 512, 513, len(data) - 1]
    for sample in samples[:3]:
        places = [at for at, _ in sample.members.values()]
        offsets += [places[0] - 512, places[0], sample.end - 1, sample.end, sample.end + 1]
    offsets += random.Random(0).sample(range(len(data)), 20)
    for offset in offsets:
        (folder / f"{FIRST}.tar").write_bytes(data[:offset])
        expected = [s.key for s in samples if s.end <= offset]
        if not expected:
            with pytest.raises(DataError, match=r"nothing to draw from|samples in a row"):
                checked(make_loader(config(folder), "train", seed=0), read_numbers)
            continue
        assert survivors(folder, read_numbers) == (expected, 10 - len(expected)), f"cut at {offset}"


def test_a_corrupt_header_in_the_middle_costs_nothing_with_the_index_and_the_rest_without(
    whole: Path, folder: Path, read_numbers: ReadNumbers
) -> None:
    tar = folder / f"{FIRST}.tar"
    data = bytearray(tar.read_bytes())
    header = min(at for at, _ in ShardSet.open(whole).samples[4].members.values()) - 512
    for damage in (b"\xff" * 512, bytes(512), data[header : header + 100] + b"\xff" * 412):
        data[header : header + 512] = damage
        tar.write_bytes(data)
        assert survivors(folder, read_numbers) == ([f"ep-{i}" for i in range(10)], 0)
    (folder / f"{FIRST}.index.jsonl").unlink()
    assert survivors(folder, read_numbers) == ([f"ep-{i}" for i in range(4)], 6)
    loader = make_loader(config(folder), "train", seed=0)
    assert any("damaged, 6 of 10 samples are lost" in note for note in loader.notes)
    with pytest.raises(DataError, match="6 of 10 samples of 'train' cannot be read"):
        make_loader(config(folder, max_bad_fraction=0.5), "train", seed=0)


@pytest.mark.parametrize("size", [-512, -1, -(2**40), 2**62])
def test_a_header_with_an_impossible_size_ends_the_scan(size: int, folder: Path, read_numbers: ReadNumbers) -> None:
    tar = folder / f"{FIRST}.tar"
    data, at = bytearray(tar.read_bytes()), min(p for p, _ in ShardSet.open(folder).samples[4].members.values()) - 512
    # A number that does not fit its field in octal is stored in base 256; tarfile takes negative ones as well.
    data[at + 124 : at + 136] = (size % 256**12).to_bytes(12, "big") if size < 0 else b"\x80" + size.to_bytes(11, "big")
    data[at + 148 : at + 156] = b" " * 8
    data[at + 148 : at + 156] = b"%06o\0 " % sum(data[at : at + 512])
    tar.write_bytes(data)
    assert survivors(folder, read_numbers) == ([f"ep-{i}" for i in range(10)], 0), "the index does not look at headers"
    (folder / f"{FIRST}.index.jsonl").unlink()
    keys, bad = survivors(folder, read_numbers)
    assert keys == [f"ep-{i}" for i in range(4)] and bad == 6


def rewrite(folder: Path, rename: Callable[[str], str | None]) -> None:
    """Write the tar anew, with other names of members, and throw away table and index."""
    out = io.BytesIO()
    with tarfile.open(folder / f"{FIRST}.tar") as source, tarfile.open(fileobj=out, mode="w") as archive:
        for member in source:
            data = source.extractfile(member)
            assert data is not None
            name = rename(member.name)
            if name is not None:
                member.name = name
                archive.addfile(member, data)
    manifest = json.loads((folder / "manifest.json").read_text())
    manifest["splits"]["train"]["shards"][0]["bytes"] = len(out.getvalue())
    write_edited(folder / "manifest.json", manifest)
    (folder / f"{FIRST}.tar").write_bytes(out.getvalue())
    (folder / f"{FIRST}.index.jsonl").unlink()
    (folder / "index.npy").unlink()


@pytest.mark.parametrize(
    ("rename", "message"),
    [
        (lambda name: name.replace("ep-3.mp4", "ep-3.mp4.bak"), r"'ep-3' has a member .mp4.bak. Only .mp4"),
        (lambda name: name.replace("ep-3.states.npy", "ep-3.states"), r"'ep-3' has a member .states"),
        (lambda name: name.replace("ep-3.metadata.json", "ep-3.webm"), r"'ep-3' needs one video or image and has 2"),
        (lambda name: name.replace("ep-4.", "ep-3."), r"two members for \.\S+ of one sample: 'ep-3"),
    ],
)
def test_wrong_and_doubled_names_of_members_are_refused(
    rename: Callable[[str], str | None], message: str, folder: Path
) -> None:
    rewrite(folder, rename)
    with pytest.raises(DataError, match=message):
        make_loader(config(folder), "train", seed=0)


def test_a_sample_without_its_video_or_its_actions_is_lost_and_counted(folder: Path, read_numbers: ReadNumbers) -> None:
    gone = {"ep-2.mp4", "ep-5.actions.npy", "ep-8.metadata.json"}
    rewrite(folder, lambda name: None if name in gone else name)
    assert survivors(folder, read_numbers) == ([f"ep-{i}" for i in range(10) if i not in (2, 5, 8)], 3)


def lines(folder: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (folder / f"{FIRST}.index.jsonl").read_text().splitlines()]


def write_lines(folder: Path, records: list[dict[str, Any]]) -> None:
    """An index with these lines, and no table, which would not fit it."""
    (folder / f"{FIRST}.index.jsonl").write_text("".join(json.dumps(r, separators=(",", ":")) + "\n" for r in records))
    (folder / "index.npy").unlink()


@pytest.mark.parametrize("table", [True, False])
def test_a_changed_label_in_a_line_of_an_index_is_noticed(table: bool, folder: Path, read_numbers: ReadNumbers) -> None:
    """Neither the table nor the checksum of the sample knows of it."""
    index = folder / f"{FIRST}.index.jsonl"
    found = index.read_bytes().splitlines(keepends=True)
    (label, value), *_ = json.loads(found[4])["labels"].items()
    before, after = (f'"{label}":{x}'.encode() for x in (value, 1 - value))
    assert value in (0, 1) and before in found[4]
    found[4] = found[4].replace(before, after)
    index.write_bytes(b"".join(found))
    if table:
        assert survivors(folder, read_numbers) == ([f"ep-{i}" for i in range(10) if i != 4], 1)
        return
    (folder / "index.npy").unlink()  # the headers are scanned instead
    assert any("its index is unreadable" in note for note in ShardSet.open(folder).notes)
    assert survivors(folder, read_numbers) == ([f"ep-{i}" for i in range(10)], 0)


@pytest.mark.parametrize("cache", [0, 64])
def test_two_samples_of_one_key_are_two_samples(cache: int, folder: Path, read_numbers: ReadNumbers) -> None:
    records = lines(folder)
    records[7]["key"] = "ep-3"  # its video is still that of ep-7
    del records[7]["line_crc32"]
    write_lines(folder, records)
    loader = make_loader(config(folder, cache_mib=cache), "train", seed=0, total_batches=20)
    seen = set()
    for batch in loader:
        for clip, key in zip(batch.video, batch.keys, strict=True):
            number = read_numbers(clip[0].permute(1, 2, 0).numpy())[0] // 100
            assert key == ("ep-3" if number == 7 else f"ep-{number}")
            seen.add(number)
    assert seen == set(range(10))
    for number in (3, 7):
        tar, (at, size) = folder / f"{FIRST}.tar", ShardSet.open(folder).samples[number].members["mp4"]
        data = bytearray(tar.read_bytes())
        data[at + size // 2] ^= 255
        tar.write_bytes(data)
    loader = make_loader(config(folder), "train", seed=0, shuffle=False)
    assert checked(loader, read_numbers) == [f"ep-{i}" for i in range(10) if i not in (3, 7)]
    assert loader.stats.bad == 1, "one key in one shard is one line of the quarantine"


@pytest.mark.parametrize(
    "change",
    [
        {"members": {"mp4": [-512, 1000], "metadata.json": [0, 10]}},
        {"members": {"mp4": [512, -5], "metadata.json": [0, 10]}},
        {"members": {"mp4": [10**15, 1000], "metadata.json": [10**15, 10]}},
        {"members": {"mp4": [512, 2**40], "metadata.json": [0, 10]}},
        {"members": {"mp4": [512]}},
        {"members": {}},
        {"members": {"mp4": "here"}},
        {"members": [1]},
        {"crc32": 1},
        {"key": 7},
        {"key": None},
        {"pts": []},
        {"pts": [[0, 1]]},
        {"pts": "0"},
        {"pts": [[0, 256, 30]]},
        {"time_base": [1, 0]},
        {"time_base": [1]},
        {"frames": 10**9},
        {"frames": None},
        {"labels": 3},
        {"width": None},
        {"codec": None},
    ],
)
@pytest.mark.parametrize("table", [True, False])
def test_a_line_of_the_index_that_lies_costs_its_sample_at_most(
    table: bool, change: dict[str, Any], folder: Path, read_numbers: ReadNumbers
) -> None:
    """Whether it is found by the table, the checksum, or what the decoder says."""
    records = lines(folder)
    if table:  # the changed line must be as long as it was: a table fits no other index
        before = len(json.dumps(records[3], separators=(",", ":")))
        records[3]["source"] = {"url": "x" * 400}
        del records[3]["line_crc32"]
        rows = np.load(folder / "index.npy")
        longer = len(json.dumps(records[3], separators=(",", ":"))) - before
        rows["size"][3] += longer
        rows["line"][4:] += longer
        size = int(rows["size"][3])
        records[3] |= change
        records[3]["source"]["url"] = ""
        records[3]["source"]["url"] = "x" * (size - len(json.dumps(records[3], separators=(",", ":"))))
        write_lines(folder, records)
        np.save(folder / "index.npy", rows)
        assert not ShardSet.open(folder).notes
    else:
        del records[3]["line_crc32"]
        records[3] |= change
        write_lines(folder, records)
    try:
        keys, bad = survivors(folder, read_numbers)
    except DataError as error:
        assert "Only .mp4" in str(error) or "needs one video" in str(error) or "too short" in str(error)  # noqa: PT017
        return
    expected = [f"ep-{i}" for i in range(10)]
    if keys != expected:
        assert keys == [key for key in expected if key != "ep-3"] and bad == 1


@pytest.mark.parametrize("table", [True, False])
def test_zeroed_lines_of_an_index_are_named_or_made_up_for(
    table: bool, folder: Path, read_numbers: ReadNumbers
) -> None:
    index = folder / f"{FIRST}.index.jsonl"
    found = index.read_bytes().splitlines(keepends=True)
    for number in (2, 6):
        found[number] = bytes(len(found[number]) - 1) + b"\n"
    index.write_bytes(b"".join(found))
    if not table:  # the headers are scanned instead
        (folder / "index.npy").unlink()
        assert survivors(folder, read_numbers) == ([f"ep-{i}" for i in range(10)], 0)
        return
    assert survivors(folder, read_numbers) == ([f"ep-{i}" for i in range(10) if i not in (2, 6)], 2)
    loader = make_loader(config(folder, max_bad_fraction=0.0), "train", seed=0)
    with pytest.raises(DataError, match=r"1 of 10 samples.*train-000000.tar number \d \(damaged\)"):
        list(loader)


@pytest.mark.parametrize(
    "damage", ["zeros", "header", "cut", "text", "zip", "other", "shifted", "rows", "frames", "seconds", "shards"]
)
def test_a_table_that_is_damaged_or_of_other_shards_changes_nothing_but_a_note(
    damage: str, folder: Path, tmp_path: Path, write_shards: Callable[..., Path], read_numbers: ReadNumbers
) -> None:
    table = folder / "index.npy"
    data, rows = table.read_bytes(), np.load(table)
    if damage == "zeros":
        table.write_bytes(data[:128] + bytes(len(data) - 128))
    elif damage == "cut":
        table.write_bytes(data[:-10])
    elif damage == "header":
        table.write_bytes(data[:10] + bytes(118) + data[128:])
    elif damage == "zip":
        table.write_bytes(b"PK\x03\x04" + data)
    elif damage == "text":
        table.write_text("rows, rows, rows")
    elif damage == "other":
        other = write_shards(tmp_path / "other", LENGTHS[::-1])
        shutil.copy(other / "index.npy", table)
    else:
        if damage == "shifted":
            rows["line"][5:] += 1
        elif damage == "rows":
            rows[4] = np.zeros(1, rows.dtype)[0]
        elif damage == "frames":
            rows["frames"][4] = 0
        elif damage == "shards":
            rows["shard"][5:] = 3
        else:
            rows["seconds"][4] = 100.0  # a second too many: found when the sample is read
        np.save(table, rows)
    keys, bad = survivors(folder, read_numbers)
    if damage == "seconds":
        assert (keys, bad) == ([f"ep-{i}" for i in range(10) if i != 4], 1)
        return
    assert (keys, bad) == ([f"ep-{i}" for i in range(10)], 0)
    (note,) = ShardSet.open(folder).notes
    assert "index.npy" in note and "the indices were read instead" in note
    assert len(checked(make_loader(config(folder, workers=2), "train", seed=0), read_numbers)) == 12


def test_a_table_whose_frames_are_not_those_of_the_video_is_found_when_it_is_read(
    folder: Path, read_numbers: ReadNumbers
) -> None:
    rows = np.load(folder / "index.npy")
    rows["frames"][4], rows["still"][5] = 40, True
    np.save(folder / "index.npy", rows)
    loader = make_loader(config(folder), "train", seed=0, shuffle=False)
    assert checked(loader, read_numbers) == [f"ep-{i}" for i in range(10) if i not in (4, 5)]
    assert [bad.detail for bad in loader.bad.values()] == [
        "its line in the index and its row of index.npy disagree"
    ] * 2


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda m: m["splits"]["train"]["shards"][0].update(bytes=1000), r"the manifest says 1000: not the file"),
        (lambda m: m["splits"]["train"]["shards"][0].update(file="../s/x.tar"), r"is not a plain file name"),
        (lambda m: m["splits"]["train"]["shards"][0].update(file="other.tar"), r"other.tar: missing, with 10 samples"),
        (
            lambda m: m["splits"]["train"]["shards"].append(m["splits"]["train"]["shards"][0]),
            r"names the shard .* 2 times",
        ),
        (lambda m: m.update(format="zip"), r"not a manifest this version can read \(format"),
        (lambda m: m.update(version=3), r"not a manifest this version can read \(version"),
        (lambda m: m.pop("splits"), r"not a manifest this version can read \(splits"),
        (lambda m: m.update(splits={}), r"has no split 'train'"),
        (lambda m: m.update(fps=None), r"has actions of 2 numbers and no fps"),
        (lambda m: m.update(action_size=3), r"it has actions of 2 numbers, the manifest says 3"),
        (lambda m: m.update(state_names=["x", "y"]), r"it has 1 states, the manifest says 2"),
    ],
)
def test_a_manifest_that_disagrees_is_named(
    change: Callable[[dict[str, Any]], Any], message: str, folder: Path
) -> None:
    manifest = json.loads((folder / "manifest.json").read_text())
    change(manifest)
    write_edited(folder / "manifest.json", manifest)
    with pytest.raises(DataError, match=message):
        list(make_loader(config(folder), "train", seed=0))


@pytest.mark.parametrize("samples", [0, 9, 11, -3])
def test_a_manifest_with_another_count_still_gives_what_is_there(
    samples: int, folder: Path, read_numbers: ReadNumbers
) -> None:
    manifest = json.loads((folder / "manifest.json").read_text())
    manifest["splits"]["train"]["shards"][0]["samples"] = samples
    write_edited(folder / "manifest.json", manifest)
    keys, lost = survivors(folder, read_numbers)
    assert keys == [f"ep-{i}" for i in range(10)] and lost == max(0, samples - 10)
    assert ShardSet.open(folder).notes


@pytest.mark.parametrize("text", ["", "{", "[]", "null", "\x00" * 100, "{}"])
def test_a_manifest_that_is_none_is_named(text: str, folder: Path) -> None:
    (folder / "manifest.json").write_text(text)
    with pytest.raises(DataError, match=r"manifest.json: not a manifest this version can read"):
        ShardSet.open(folder)
    (folder / "manifest.json").write_bytes(b"\xff\xfe{")
    with pytest.raises(DataError, match=r"manifest.json: not a manifest this version can read"):
        ShardSet.open(folder)
    (folder / "manifest.json").unlink()
    with pytest.raises(DataError, match=r"1 tars and no manifest.json"):
        ShardSet.open(folder)


@pytest.fixture(scope="module")
def many(tmp_path_factory: pytest.TempPathFactory, write_shards: Callable[..., Path]) -> Path:
    """A thousand short samples in a few shards; not to be changed."""
    return write_shards(tmp_path_factory.mktemp("many") / "s", [8] * 1000, shard_bytes=400_000)


@pytest.mark.slow
@pytest.mark.parametrize("count", [1, 10, 100])
def test_one_in_a_thousand_in_a_hundred_and_in_ten_damaged_samples_are_counted_exactly(
    count: int, many: Path, tmp_path: Path, read_numbers: ReadNumbers
) -> None:
    folder = Path(shutil.copytree(many, tmp_path / "s"))
    broken = sorted(random.Random(count).sample(range(1000), count))
    samples: list[Sample] = [ShardSet.open(folder).samples[i] for i in broken]
    for sample in samples:
        at, size = sample.members["mp4"]
        with (folder / sample.shard).open("r+b") as file:
            file.seek(at + size // 2)
            file.write(bytes(50))
    loader = make_loader(config(folder, batch_size=50, cache_mib=0), "train", seed=0, shuffle=False)
    seen = [key for batch in loader for key in batch.keys]
    assert seen == [f"ep-{i}" for i in range(1000) if i not in set(broken)]
    assert sorted(loader.bad) == sorted(sample.key for sample in samples) and loader.stats.bad == count
    assert loader.stats.kinds == {"damaged": count}
    allowed = config(folder, batch_size=50, cache_mib=0, max_bad_fraction=count / 1000)
    loader = make_loader(allowed, "train", seed=0)
    trained = [key for batch in loader for key in batch.keys]
    assert len(trained) == 1000 and loader.stats.bad == count and not {s.key for s in samples} & set(trained)
    if count > 1:
        stricter = allowed.model_copy(update={"max_bad_fraction": (count - 1) / 1000})
        with pytest.raises(
            DataError, match=rf"{count} of 1000 samples.*ep-{samples[0].key[3:]}|{count} of 1000"
        ) as stop:
            list(make_loader(stricter, "train", seed=0))
        assert str(stop.value).count("(damaged)") == min(count, 8)


def test_shards_without_checksums_are_said_to_have_none_in_one_line(folder: Path) -> None:
    (folder / f"{FIRST}.index.jsonl").unlink()
    notes = make_loader(config(folder), "train", seed=0).notes
    said = [note for note in notes if "have no checksums" in note]
    assert len(said) == 1 and "1 of 1 shards have no checksums" in said[0] and "\n" not in said[0]
    assert f"`jepa data index {folder} --overwrite`" in said[0]
    index(folder, overwrite=True, workers=1)
    assert not make_loader(config(folder), "train", seed=0).notes
    assert all(sample.crc32 is not None for sample in ShardSet.open(folder).samples)
