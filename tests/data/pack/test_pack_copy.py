"""Packing without re-encoding: the same bytes, cut only where that loses no frame."""

import io
import json
from collections.abc import Callable
from pathlib import Path

import av
import numpy as np
import pytest
from av.video.frame import VideoFrame
from numpy.typing import NDArray

from jepa_data.decode import get_backend
from jepa_data.pack.copy import at_borders, borders, copy_packets
from jepa_data.pack.cuts import cut
from jepa_data.pack.pack import Packing, open_corpus, pack
from jepa_data.pack.recipe import Recipe
from jepa_data.shards.encode import encode_mp4
from jepa_data.shards.index import ShardSet
from jepa_data.shards.read import ShardFiles

Images = NDArray[np.uint8]
Numbered = Callable[..., Images]
ReadNumbers = Callable[[Images], list[int]]
OPEN = {"x264-params": "open-gop=1:keyint=12:min-keyint=12:bframes=3:b-adapt=0:scenecut=0"}
CLOSED = {"x264-params": "keyint=10:min-keyint=10:bframes=3:b-adapt=0:scenecut=0"}


def video(images: Images, options: dict[str, str], container: str = "mp4", rotation: int = 0) -> bytes:
    buffer = io.BytesIO()
    with av.open(buffer, "w", format=container) as out:
        stream = out.add_stream("libx264", rate=10)
        stream.height, stream.width = images.shape[1:3]
        stream.pix_fmt, stream.options = "yuv420p", dict[str, object](options)
        if rotation:
            stream.set_display_rotation(rotation)
        for image in images:
            out.mux(stream.encode(VideoFrame.from_ndarray(np.ascontiguousarray(image), format="rgb24")))
        out.mux(stream.encode(None))
    return buffer.getvalue()


def frames(data: bytes) -> Images:
    with get_backend("pyav").open(data) as reader:
        return reader.frames(range(reader.index.frames))


def test_whole_files_keep_their_bytes(tmp_path: Path, numbered: Numbered) -> None:
    (tmp_path / "a").mkdir()
    files = {
        "one.mp4": encode_mp4(numbered(30), 30),
        "two.mkv": video(numbered(30), CLOSED, "matroska"),
        "three.m4v": encode_mp4(numbered(12), 12),
        "four.flv": video(numbered(12), CLOSED, "flv"),
    }
    for name, data in files.items():
        (tmp_path / "a" / name).write_bytes(data)
    report = pack(
        open_corpus(tmp_path / "a"), tmp_path / "out", Packing(Recipe(video="copy", max_seconds=None)), processes=1
    )
    reader, found = ShardFiles(tmp_path / "out"), {}
    for sample in ShardSet.open(tmp_path / "out").samples:
        found[sample.source["url"]] = sample.media, reader.read(sample)[sample.media]
    assert found == {name: ("mp4" if name == "three.m4v" else name[-3:], files[name]) for name in list(files)[:3]}
    assert len(report.rejected) == 1 and "four.flv: not supported: .flv" in report.rejected[0]


@pytest.mark.parametrize("container", ["mp4", "matroska", "mpegts"])
def test_packets_are_copied_from_keyframe_to_keyframe_and_give_the_same_images(
    container: str, tmp_path: Path, numbered: Numbered, read_numbers: ReadNumbers
) -> None:
    data = video(numbered(60), CLOSED, container)
    path = tmp_path / "v"
    path.write_bytes(data)
    index, whole = get_backend("pyav").probe(path), frames(data)
    places = borders(path, index)
    assert places.tolist() == [0, 10, 20, 30, 40, 50, 60]
    pieces = at_borders(cut(0.0, 6.0, [], 2.5), index, places, False)
    np.testing.assert_allclose([(piece.start, piece.end) for piece in pieces], [(0, 2), (2, 4), (4, 6)], atol=1e-3)
    for first, last in ((0, 20), (20, 40), (40, 60)):
        copied = copy_packets(path, index, first, last)
        assert copied == copy_packets(path, index, first, last)
        np.testing.assert_array_equal(frames(copied), whole[first:last])
        assert read_numbers(frames(copied)) == list(range(first, last))


def test_a_stretch_reaches_out_to_the_keyframes_around_it(tmp_path: Path, numbered: Numbered) -> None:
    (tmp_path / "v.mp4").write_bytes(video(numbered(60), CLOSED))
    (tmp_path / "t.csv").write_text("path,start,end\nv.mp4,1.4,3.6\nv.mp4,5.5,\n")
    pack(open_corpus(tmp_path / "t.csv"), tmp_path / "out", Packing(Recipe(video="copy"), test_share=0.0), processes=1)
    files = ShardFiles(tmp_path / "out")
    found = sorted((s.source["start"], s.source["end"], s.frames) for s in ShardSet.open(tmp_path / "out").samples)
    assert found == [(1.0, 4.0, 30), (5.0, 6.0, 10)]
    metas = [json.loads(files.read(s)["metadata.json"]) for s in ShardSet.open(tmp_path / "out").samples]
    assert sorted(meta["start"] for meta in metas) == [1.0, 5.0], "what was stored, not what was asked"


def test_a_copied_piece_keeps_its_rotation(tmp_path: Path, numbered: Numbered) -> None:
    path = tmp_path / "v.mp4"
    path.write_bytes(video(numbered(40)[:, :32], CLOSED, rotation=90))
    index = get_backend("pyav").probe(path)
    piece = at_borders(cut(1.0, 3.0, [], None), index, borders(path, index), False)[0]
    assert (round(piece.start, 3), round(piece.end, 3)) == (1.0, 3.0)
    copied = get_backend("pyav").probe(copy_packets(path, index, 10, 30))
    assert (copied.rotation, copied.height, copied.frames) == (90, 64, 20)


def test_open_groups_and_far_keyframes_are_refused_with_the_way_out(tmp_path: Path, numbered: Numbered) -> None:
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "open.mp4").write_bytes(video(numbered(60), OPEN))
    (tmp_path / "a" / "far.mp4").write_bytes(video(numbered(60), {"g": "250"}))
    (tmp_path / "a" / "near.mp4").write_bytes(video(numbered(60), CLOSED))
    index = get_backend("pyav").probe(tmp_path / "a" / "open.mp4")
    assert len(index.keyframes) > 3 and borders(tmp_path / "a" / "open.mp4", index).tolist() == [0, 60]
    recipe = Recipe(video="copy", max_seconds=2.0)
    report = pack(open_corpus(tmp_path / "a"), tmp_path / "out", Packing(recipe, test_share=0.0), processes=1)
    assert report.manifest.splits["train"].episodes == 3
    assert len(report.rejected) == 2
    assert all("no keyframe: there is none to cut at near" in one and "--copy" in one for one in report.rejected)
