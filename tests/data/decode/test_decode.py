"""Decoders return exactly the frames asked for, and name what they cannot read."""

import io
import json
import sys
from collections.abc import Callable
from pathlib import Path

import av
import numpy as np
import pytest
from numpy.typing import NDArray

from jepa_data.decode import VideoIndex, get_backend
from jepa_data.decode.pyav import PyAVReader
from jepa_data.errors import DataError, DecodeError
from jepa_data.shards.encode import encode_mp4
from tests.data.video_cases import encode_at, needs

Images = NDArray[np.uint8]
LENGTH = 61


CLOSED = {
    "packed": lambda x: encode_mp4(x, 30),
    "packed 4:2:0": lambda x: encode_mp4(x, 30, pixel_format="yuv420p"),
    "one keyframe": lambda x: encode_at(x, range(len(x)), g="250", bf="0"),
    "closed groups of 12 with B-frames": lambda x: encode_at(x, range(len(x)), g="12", bf="3", flags="+cgop"),
}
HARD = {
    "open groups of 12 with B-frames": lambda x: encode_at(
        x, range(len(x)), g="12", bf="3", **{"x264-params": "open-gop=1:keyint=12:bframes=3:b-adapt=0"}
    ),
    "uneven times with gaps": lambda x: encode_at(x, np.cumsum(np.arange(len(x)) % 4 + 1).tolist(), g="10", bf="2"),
    "keyframes only": lambda x: encode_at(x, range(len(x)), g="1"),
    "mpeg4": lambda x: encode_at(x, range(len(x)), codec="mpeg4", g="12"),
}


@pytest.mark.parametrize(
    ("backend", "kind"), [(b, k) for b in ("pyav", "decord") for k in CLOSED] + [("pyav", k) for k in HARD]
)
@pytest.mark.parametrize("stored_index", [False, True])
def test_the_frames_asked_for_come_back_in_the_order_asked(
    backend: str,
    kind: str,
    stored_index: bool,
    numbered: Callable[..., Images],
    read_numbers: Callable[..., list[int]],
) -> None:
    needs(backend)
    decoder, data = get_backend(backend), (CLOSED | HARD)[kind](numbered(LENGTH))
    index = decoder.probe(data) if stored_index else None
    random = np.random.default_rng(0)
    asked = [[0], [LENGTH - 1], list(range(LENGTH)), list(range(13, 29)), list(range(3, 60, 7)), [40, 3, 17, 17, 0]]
    asked += [random.integers(0, LENGTH, 9).tolist() for _ in range(10)]
    with decoder.open(data, index) as reader:
        assert reader.index.frames == LENGTH
        for indices in asked:
            assert read_numbers(reader.frames(indices)) == indices


def test_both_decoders_return_the_same_pixels(numbered: Callable[..., Images]) -> None:
    needs("decord")
    images = numbered(20)
    images[..., 1] = images[..., 1].transpose(0, 2, 1)  # color too
    data = encode_mp4(images, 20)
    with get_backend("pyav").open(data) as a, get_backend("decord").open(data) as b:
        np.testing.assert_array_equal(a.frames(range(20)), b.frames(range(20)))


def test_clips_share_one_pass_over_the_frames_they_name(
    numbered: Callable[..., Images], read_numbers: Callable[..., list[int]]
) -> None:
    data = encode_at(numbered(LENGTH), range(LENGTH), g="250", bf="0")  # one keyframe: each pass starts at frame 0
    clips = [list(range(20, 40, 4)), [30, 24, 24, 50], np.arange(36, 56, 4)]
    with get_backend("pyav").open(data) as reader:
        assert isinstance(reader, PyAVReader)
        found = reader.clips(clips, size=(32, 32))
        assert [read_numbers(clip) for clip in found] == [list(clip) for clip in clips]
        assert reader.decoded == 53  # 0 to 52, each once
        for clip, images in zip(clips, found, strict=True):
            np.testing.assert_array_equal(reader.frames(clip, size=(32, 32)), images)
        assert reader.decoded > 53 + 100
        assert reader.clips([[], [3]])[0].shape == (0, 64, 64, 3)


@pytest.mark.parametrize("backend", ["pyav", "decord", "torchcodec"])
@pytest.mark.parametrize("size", [None, (24, 20)])
def test_each_clip_of_a_pass_may_have_its_own_crop(
    backend: str, size: tuple[int, int] | None, numbered: Callable[..., Images]
) -> None:
    needs(backend)
    clips = [[1, 2, 3], [3, 2, 9], [2, 3], [3]]
    crops = [None, (8, 16, 32, 40), (1, 3, 24, 30), (8, 16, 32, 40)]
    with get_backend(backend).open(encode_mp4(numbered(12), 20)) as reader:
        found = reader.clips(clips, size=size, crop=crops)
        for clip, crop, images in zip(clips, crops, found, strict=True):
            np.testing.assert_array_equal(images, reader.frames(clip, size=size, crop=crop))
        with pytest.raises(ValueError, match="2 in a list, found 1"):
            reader.clips([[1], [2]], crop=[None])


def test_frames_are_written_where_they_are_wanted(numbered: Callable[..., Images]) -> None:
    with get_backend("pyav").open(encode_mp4(numbered(20), 20)) as reader:
        batch = np.zeros((2, 3, 4, 32, 32), np.uint8)  # clips of [C, T, h, w]: any strides do
        out = batch[1].transpose(1, 2, 3, 0)
        assert reader.frames([1, 7, 3, 3], size=(32, 32), out=out) is out
        np.testing.assert_array_equal(out, reader.frames([1, 7, 3, 3], size=(32, 32)))
        assert not batch[0].any()
        with pytest.raises(ValueError, match=r"expected the shape \(2, 64, 64, 3\), found \(4, 32"):
            reader.frames([0, 1], out=out)


def test_the_frame_on_screen_at_a_time(numbered: Callable[..., Images], read_numbers: Callable[..., list[int]]) -> None:
    with get_backend("pyav").open(encode_mp4(numbered(20), 10)) as reader:
        assert read_numbers(reader.at([0.0, 0.09, 0.1, 1.25, 1.99])) == [0, 0, 1, 12, 19]
        with pytest.raises(DecodeError, match="from 0 to 2 s"):
            reader.at([2.3])


def test_an_index_survives_json(numbered: Callable[..., Images]) -> None:
    data = HARD["uneven times with gaps"](numbered(30))
    index = get_backend("pyav").probe(data)
    copy = VideoIndex.from_dict(json.loads(json.dumps(index.to_dict())))
    np.testing.assert_array_equal(copy.pts, index.pts)
    np.testing.assert_array_equal(copy.keyframes, index.keyframes)
    assert copy.to_dict() == index.to_dict()
    np.testing.assert_allclose(np.diff(copy.seconds) * 30, np.arange(1, 30) % 4 + 1, atol=1e-6)


def broken(kind: str, video: bytes) -> bytes:
    silent = io.BytesIO()
    with av.open(silent, "w", format="wav") as container:
        stream = container.add_stream("pcm_s16le", rate=8000, layout="mono")
        sound = av.AudioFrame.from_ndarray(np.zeros((1, 800), np.int16), format="s16", layout="mono")
        sound.rate = 8000
        container.mux(stream.encode(sound))
    middle = len(video) // 2
    return {
        "empty": b"",
        "text": b"this is not a video\n" * 50,
        "random": np.random.default_rng(0).bytes(5000),
        "sound only": silent.getvalue(),
        "cut": video[: len(video) * 2 // 3],
        "one byte": video[:1],
        "zeroed": video[: middle - 300] + bytes(600) + video[middle + 300 :],
    }[kind]


BROKEN = {
    "empty": "empty",
    "text": "not a video",
    "random": "not a video",
    "sound only": "not a video",
    "cut": "truncated",
    "one byte": "not a video",
}


@pytest.mark.parametrize(
    ("backend", "kind", "says"),
    # decord and torchcodec paint over a hole inside an image; in shards the checksum finds it
    [(b, k, s) for b in ("pyav", "decord", "torchcodec") for k, s in BROKEN.items()] + [("pyav", "zeroed", "damaged")],
)
def test_broken_input_has_a_name(
    backend: str, kind: str, says: str, tmp_path: Path, numbered: Callable[..., Images]
) -> None:
    needs(backend)
    noise = np.random.default_rng(0).integers(0, 256, (20, 64, 64, 3), dtype=np.uint8)
    data = broken(kind, encode_mp4(noise, 20))
    path = tmp_path / "broken.mp4"
    path.write_bytes(data)
    for src in (data, path):
        with pytest.raises(DecodeError) as caught, get_backend(backend).open(src) as reader:
            reader.frames(range(reader.index.frames))
        assert caught.value.kind == says
        assert caught.value.url == ("" if isinstance(src, bytes) else str(path))


def test_a_reader_survives_a_bad_request(
    numbered: Callable[..., Images], read_numbers: Callable[..., list[int]]
) -> None:
    with get_backend("pyav").open(encode_mp4(numbered(10), 20)) as reader:
        for wrong in ([10], [-1], [0, 99]):
            with pytest.raises(DecodeError, match="the video has 10") as caught:
                reader.frames(wrong)
            assert caught.value.kind == "out of range"
        assert read_numbers(reader.frames([9])) == [9]


def test_a_missing_file_and_a_wrong_index_are_named(tmp_path: Path, numbered: Callable[..., Images]) -> None:
    with pytest.raises(DecodeError, match="No such file"):
        get_backend("pyav").open(tmp_path / "nowhere.mp4")
    long, short = encode_mp4(numbered(30), 20), encode_mp4(numbered(10), 20)
    backend = get_backend("pyav")
    with backend.open(short, backend.probe(long)) as reader, pytest.raises(DecodeError) as caught:
        reader.frames([25])
    assert caught.value.kind == "missing frame"


def test_decord_refuses_by_name_what_it_gets_wrong(numbered: Callable[..., Images]) -> None:
    needs("decord")
    with pytest.raises(DecodeError, match=r"mpeg4.*data.backend=pyav"):
        get_backend("decord").open(HARD["mpeg4"](numbered(20)))


def test_without_decord_the_error_names_the_way_out(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "decord", None)  # makes `import decord` fail, as where it has no wheel
    monkeypatch.delitem(sys.modules, "jepa_data.decode.decord", raising=False)
    with pytest.raises(DataError, match=r"not installed.*data.backend=pyav"):
        get_backend("decord")
    monkeypatch.setitem(sys.modules, "torchcodec.decoders", None)
    monkeypatch.delitem(sys.modules, "jepa_data.decode.torchcodec", raising=False)
    with pytest.raises(DataError, match=r"torchcodec.*pip install.*data.backend=pyav"):
        get_backend("torchcodec")
    with pytest.raises(DataError, match="pyav, decord, torchcodec"):
        get_backend("gstreamer")


def test_encoding_is_deterministic_sharp_and_in_closed_groups(numbered: Callable[..., Images]) -> None:
    images = numbered(20)
    images[..., 0] //= 2
    data = encode_mp4(images, 29.97)
    assert data == encode_mp4(images, 29.97)
    index = get_backend("pyav").probe(data)
    assert index.keyframes.tolist() == [0, 8, 16] and index.fps == pytest.approx(30000 / 1001, abs=1e-4)
    with get_backend("pyav").open(data) as reader:
        error = reader.frames(range(20)).astype(float) - images
    assert 10 * np.log10(255**2 / (error**2).mean()) > 40  # dB
    with pytest.raises(DataError, match="even sides"):
        encode_mp4(images[:, :63], 20, pixel_format="yuv420p")
    with pytest.raises(DataError, match="at least 1 frame"):
        encode_mp4(images[:0], 20)
