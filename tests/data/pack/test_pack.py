"""Packing from end to end: real videos in, shards out, the right frames in them."""

import io
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
from av.video.frame import VideoFrame
from numpy.typing import NDArray
from PIL import Image

from jepa_data.decode import get_backend
from jepa_data.errors import DataError
from jepa_data.pack.pack import Packing, Report, open_corpus, pack
from jepa_data.pack.recipe import Recipe
from jepa_data.shards.encode import Mp4Encoder, encode_mp4
from jepa_data.shards.index import ShardSet
from jepa_data.shards.manifest import Sample
from jepa_data.shards.read import ShardFiles, read_npy
from jepa_data.sources.rollouts import Recording, record
from tests.data.video_cases import encode_at

Images = NDArray[np.uint8]
Numbered = Callable[..., Images]
ReadNumbers = Callable[[Images], list[int]]


def packed(source: Path, out: Path, *, test_share: float = 0.0, shard_mib: int = 64, **recipe: Any) -> Report:
    return pack(
        open_corpus(source), out, Packing(Recipe(**recipe), test_share=test_share, shard_mib=shard_mib), processes=2
    )


def samples(out: Path) -> list[tuple[Sample, dict[str, bytes], dict[str, Any]]]:
    """Samples with their members and their metadata, sorted by key; every checksum is verified on the way."""
    shards, files = ShardSet.open(out), ShardFiles(out)
    found = [(sample, files.read(sample)) for sample in shards.samples]
    assert shards.notes == () and not shards.lost
    return sorted(((s, m, json.loads(m["metadata.json"])) for s, m in found), key=lambda one: one[0].key)


def frames(data: bytes) -> Images:
    with get_backend("pyav").open(data) as reader:
        return reader.frames(range(reader.index.frames))


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory, numbered: Numbered) -> tuple[Path, Path, Report]:
    """A folder with all that goes wrong and right, and what packing made of it."""
    root = tmp_path_factory.mktemp("corpus")
    whole = encode_mp4(numbered(60, 0, 320), 30, pixel_format="yuv420p")
    for name, data in {
        "walk/thirty.mp4": whole,
        "walk/ten.mp4": encode_mp4(numbered(20, 100), 10),
        "run/uneven.mp4": encode_at(numbered(9, 200), [0, 1, 2, 30, 31, 40, 60, 61, 90], g="4", bf="2"),
        "run/odd.mkv": encode_mp4(np.pad(numbered(6, 300), ((0, 0), (0, 1), (0, 3), (0, 0))), 30),
        "run/one.mp4": encode_mp4(numbered(1, 400), 30),
        "run/text.mp4": b"this is not a video\n" * 20,
        "run/empty.mp4": b"",
        "walk/cut.mp4": whole[: len(whole) * 2 // 3],
    }.items():
        (root / name).parent.mkdir(exist_ok=True)
        (root / name).write_bytes(data)
    small, large = Image.fromarray(numbered(1, 500)[0]), Image.fromarray(numbered(1, 501, 512)[0][:384])
    small.save(root / "walk" / "small.png")
    exif = Image.Exif()
    exif[0x0112] = 6  # lies on its side
    large.rotate(90, expand=True).save(root / "run" / "large.jpg", exif=exif)
    out = tmp_path_factory.mktemp("packed") / "out"
    return root, out, packed(root, out)


def test_frames_are_those_on_screen_at_the_asked_rate(
    corpus: tuple[Path, Path, Report], read_numbers: ReadNumbers
) -> None:
    found = {meta["source"]: (sample, members) for sample, members, meta in samples(corpus[1])}
    expected = {
        "walk/thirty.mp4": (15, list(range(0, 60, 2))),
        "walk/ten.mp4": (10, list(range(100, 120))),  # never above its own rate
        "run/one.mp4": (15, [400]),
    }
    for name, (fps, numbers) in expected.items():
        sample, members = found[name]
        assert read_numbers(frames(members["mp4"])) == numbers, name
        index = sample.video_index()
        assert index is not None and index.frames == len(numbers)
        assert len(numbers) == 1 or index.fps == pytest.approx(fps)
    rate = 8 / 3  # the uneven one has 9 frames in 3 s: those on screen every 3/8 s
    shown = np.searchsorted(np.array([0, 1, 2, 30, 31, 40, 60, 61, 90]) / 30 - 5e-4, np.arange(9) / rate, "right") - 1
    assert read_numbers(frames(found["run/uneven.mp4"][1]["mp4"])) == (200 + shown).tolist()


def test_videos_are_stored_to_be_read_at_random(corpus: tuple[Path, Path, Report]) -> None:
    found = {meta["source"]: (sample, members) for sample, members, meta in samples(corpus[1])}
    sample, members = found["walk/thirty.mp4"]
    index = sample.video_index()
    assert index is not None and (index.codec, index.width, index.height, index.rotation) == ("h264", 256, 256, 0)
    assert index.keyframes.tolist() == list(range(0, 30, 8))
    with av.open(io.BytesIO(members["mp4"]), "r") as container:
        packets = [packet for packet in container.demux(video=0) if packet.size]
        assert [p.pts for p in packets] == sorted(p.pts or 0 for p in packets), "no B-frames: stored as shown"
        assert container.streams.video[0].pix_fmt == "yuv420p"
    odd = found["run/odd.mkv"][0].video_index()
    assert odd is not None and (odd.height, odd.width) == (64, 66), "even sides, nothing enlarged"


def test_images_are_stored_as_they_are_or_upright_and_scaled(
    corpus: tuple[Path, Path, Report], read_numbers: ReadNumbers
) -> None:
    root, out, _ = corpus
    found = {meta["source"]: (sample, members) for sample, members, meta in samples(out)}
    small, large = found["walk/small.png"], found["run/large.jpg"]
    assert small[1]["png"] == (root / "walk" / "small.png").read_bytes() and small[0].frames == 1
    with Image.open(io.BytesIO(large[1]["jpg"])) as image:
        assert image.size == (340, 256) and not image.getexif()
        upright = np.asarray(image)
    assert read_numbers(np.pad(upright[:252, :340], ((0, 84), (0, 0), (0, 0)))[None])[0] & 0xFFF == 501


def test_labels_names_and_sources_are_written_down(corpus: tuple[Path, Path, Report]) -> None:
    manifest = ShardSet.open(corpus[1]).manifest
    assert manifest.label_values == {"label": ("run", "walk")} and manifest.made["short_side"] == 256
    assert (manifest.fps, manifest.image_size) == (None, None), "they vary"
    for sample, _, meta in samples(corpus[1]):
        assert sample.labels == meta["labels"] == {"label": int(meta["source"].startswith("walk"))}
        assert meta["label"] == meta["source"].split("/")[0] and sample.source["url"] == meta["source"]
    ten = next(meta for _, _, meta in samples(corpus[1]) if meta["source"] == "walk/ten.mp4")
    assert (ten["start"], ten["end"]) == (0.0, 2.0)


def test_what_cannot_be_read_is_named_and_the_rest_is_packed(corpus: tuple[Path, Path, Report]) -> None:
    _, out, report = corpus
    lines = [json.loads(line) for line in (out / "rejected.jsonl").read_text().splitlines()]
    assert {line["source"]: line["kind"] for line in lines} == {
        "run/text.mp4": "not a video",
        "run/empty.mp4": "empty",
        "walk/cut.mp4": "truncated",
    }
    assert len(report.rejected) == 3 and report.manifest.splits["train"].episodes == 7
    text = "\n".join(report.lines(out))
    assert "7 train samples" in text and "3 could not be read" in text and "nothing is kept for testing" in text
    assert not (out / "packing.jsonl").exists() and not (out / "unfinished.jsonl").exists()


def test_a_corpus_of_nothing_readable_is_an_error_that_names_the_first(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "1.mp4").write_bytes(b"no")
    with pytest.raises(DataError, match=r"none of 1 videos .* could be read; the first: 1\.mp4: not a video"):
        packed(tmp_path / "a", tmp_path / "out")
    assert not (tmp_path / "out" / "manifest.json").exists()


def test_a_rotated_video_is_packed_upright(tmp_path: Path, numbered: Numbered) -> None:
    images = numbered(6)[:, :32]
    (tmp_path / "a").mkdir()
    with av.open(str(tmp_path / "a" / "phone.mp4"), "w") as container:
        stream = container.add_stream("libx264", rate=15)
        stream.width, stream.height, stream.pix_fmt = 64, 32, "yuv420p"
        stream.set_display_rotation(90)
        for image in images:
            container.mux(stream.encode(VideoFrame.from_ndarray(np.ascontiguousarray(image), format="rgb24")))
        container.mux(stream.encode(None))
    packed(tmp_path / "a", tmp_path / "out")
    [(sample, members, _)] = samples(tmp_path / "out")
    assert sample.video is not None and (sample.video["rotation"], sample.video["height"]) == (0, 64)
    assert np.abs(frames(members["mp4"])[5].astype(int) - np.rot90(images[5]).astype(int)).mean() < 10


def test_long_videos_are_cut_into_pieces_that_hold_every_frame_once(
    tmp_path: Path, numbered: Numbered, read_numbers: ReadNumbers
) -> None:
    (tmp_path / "a").mkdir()
    with Mp4Encoder(64, 64, 10) as encoder:  # 150 s: more than one job of a worker
        encoder.add(numbered(1500))
        (tmp_path / "a" / "long.mp4").write_bytes(encoder.finish())
    (tmp_path / "a" / "short.mp4").write_bytes(encode_mp4(numbered(10, 2000), 10))
    report = packed(tmp_path / "a", tmp_path / "out", fps=10.0, max_seconds=25.0, min_seconds=2.0)
    found = samples(tmp_path / "out")
    assert [sample.key[-5:] for sample, _, _ in found] == [f"-000{i}" for i in range(6)] and report.short == 1
    assert [n for _, members, _ in found for n in read_numbers(frames(members["mp4"]))] == list(range(1500))
    assert [(meta["start"], meta["end"]) for _, _, meta in found] == [(25.0 * i, 25.0 * i + 25.0) for i in range(6)]
    assert "1 pieces were too short" in "\n".join(report.lines(tmp_path / "out"))


def test_a_table_cuts_parts_out_of_videos(tmp_path: Path, numbered: Numbered, read_numbers: ReadNumbers) -> None:
    (tmp_path / "v.mp4").write_bytes(encode_mp4(numbered(90), 30, pixel_format="yuv420p"))
    (tmp_path / "t.csv").write_text(
        "path,start,end,caption,split\nv.mp4,0.5,1.5,one,test\nv.mp4,2,,two,test\nv.mp4,9,10,late,test\n"
    )
    report = packed(tmp_path / "t.csv", tmp_path / "out", fps=10.0)
    found = {meta["caption"]: (sample, members, meta) for sample, members, meta in samples(tmp_path / "out")}
    assert read_numbers(frames(found["one"][1]["mp4"])) == list(range(15, 45, 3))
    assert read_numbers(frames(found["two"][1]["mp4"])) == list(range(60, 90, 3))
    assert {sample.split for sample, _, _ in found.values()} == {"test"} and found["one"][2]["start"] == 0.5
    assert "out of range: no frame is shown from 9 s on; it ends at 3 s" in report.rejected[0]


def test_slower_videos_reach_the_rate_by_repeating_frames_where_that_is_asked_for(
    tmp_path: Path, numbered: Numbered, read_numbers: ReadNumbers
) -> None:
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "v.mp4").write_bytes(encode_mp4(numbered(40), 10))
    packed(tmp_path / "a", tmp_path / "out", fps=20.0, slower="repeat")
    [(_, members, _)] = samples(tmp_path / "out")
    assert read_numbers(frames(members["mp4"])) == [n // 2 for n in range(80)]
    assert ShardSet.open(tmp_path / "out").manifest.fps == 20.0


def test_scenes_are_cut_where_the_image_changes(tmp_path: Path) -> None:
    rng, images = np.random.default_rng(0), np.zeros((60, 64, 96, 3), np.uint8)
    for first, color in ((0, (40, 40, 200)), (20, (230, 230, 180)), (45, (40, 140, 60))):
        images[first:] = color
    images += rng.integers(0, 20, images.shape, dtype=np.uint8)
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "v.mp4").write_bytes(encode_mp4(images, 10))
    packed(tmp_path / "a", tmp_path / "out", fps=10.0, scene_threshold=27.0)
    found = samples(tmp_path / "out")
    assert [(meta["start"], meta["end"]) for _, _, meta in found] == [(0.0, 2.0), (2.0, 4.5), (4.5, 6.0)]
    assert [sample.frames for sample, _, _ in found] == [20, 25, 15]


def test_damage_in_the_middle_costs_the_piece_it_is_in(
    tmp_path: Path, numbered: Numbered, read_numbers: ReadNumbers
) -> None:
    data = bytearray(encode_mp4(numbered(60), 10))
    with av.open(io.BytesIO(bytes(data)), "r") as container:
        spoilt = [
            p
            for p in container.demux(video=0)
            if p.size and p.pts is not None and 20 <= round(p.pts * p.time_base * 10) < 40
        ]
    for packet in spoilt:
        assert packet.pos is not None
        data[packet.pos : packet.pos + packet.size] = b"\xff" * packet.size
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "v.mp4").write_bytes(bytes(data))
    report = packed(tmp_path / "a", tmp_path / "out", fps=10.0, max_seconds=2.0)
    assert [sample.key[-5:] for sample, _, _ in samples(tmp_path / "out")] == ["-0000", "-0002"]
    assert len(report.rejected) == 1 and "v.mp4 from 2.00 to 4.00 s" in report.rejected[0]


def test_a_recorded_world_can_be_packed_again_at_half_the_rate_with_its_actions(tmp_path: Path) -> None:
    record(Recording("billiards-easy", 4, frames=9, image_size=64), tmp_path / "world")
    with pytest.raises(DataError, match=r"--fps 4: actions and states come 10 times a second. Choose 10, 5, "):
        packed(tmp_path / "world", tmp_path / "out", fps=4.0)
    packed(tmp_path / "world", tmp_path / "out", fps=5.0, short_side=32, pixel_format="yuv444p")
    before, after = ({s.key: (s, m) for s, m, _ in samples(tmp_path / name)} for name in ("world", "out"))
    assert {key: s.split for key, (s, _) in before.items()} == {key: s.split for key, (s, _) in after.items()}
    assert after.keys() == before.keys() and {s.split for s, _ in after.values()} == {"train", "test"}
    manifest = ShardSet.open(tmp_path / "out").manifest
    assert (manifest.fps, manifest.image_size, manifest.action_size, manifest.world) == (5, 32, 4, "billiards-easy")
    for key, (sample, members) in after.items():
        old = before[key][1]
        assert sample.frames == 5 and frames(members["mp4"]).shape == (5, 32, 32, 3)
        assert sample.labels == before[key][0].labels
        actions, states = read_npy(old["actions.npy"], 8), read_npy(old["states.npy"], 9)
        np.testing.assert_array_equal(read_npy(members["actions.npy"], 4), actions.reshape(4, 4))
        np.testing.assert_array_equal(read_npy(members["states.npy"], 5), states[::2])


def test_shards_that_are_repacked_keep_where_they_came_from(
    tmp_path: Path, numbered: Numbered, read_numbers: ReadNumbers
) -> None:
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "v.mp4").write_bytes(encode_mp4(numbered(40), 10))
    packed(tmp_path / "a", tmp_path / "one", fps=10.0, max_seconds=2.0)
    packed(tmp_path / "one", tmp_path / "two", fps=10.0, max_seconds=1.0)
    found = samples(tmp_path / "two")
    assert [(meta["source"], meta["start"]) for _, _, meta in found] == [("v.mp4", float(i)) for i in range(4)]
    assert [n for _, members, _ in found for n in read_numbers(frames(members["mp4"]))] == list(range(40))
    packed(tmp_path / "one", tmp_path / "same", video="copy", max_seconds=None)
    for (a, x, _), (b, y, _) in zip(samples(tmp_path / "one"), samples(tmp_path / "same"), strict=True):
        assert a.key == b.key and x["mp4"] == y["mp4"]
