"""Every decoder, on every kind of file: exactly the frames that were asked for, or a refusal that says what to do."""

from pathlib import Path

import av
import numpy as np
import pytest
from av.video.reformatter import Interpolation

from jepa_data.decode import VideoIndex, get_backend
from jepa_data.errors import DecodeError
from tests.data.video_cases import CASES, make_case, needs, numbers_of, read_numbers

# What each decoder gets wrong, or cannot reach, in whole or in part, and must therefore refuse.
CUTS = {"h264, cut with an edit list", "h264, cut shorter than a group", "h264, cut of open groups"}
FRAGMENTS = {"h264, fragmented", "h264, fragmented with B-frames shown early"}
STREAMS = {"h264, MPEG-TS", "h264, MPEG-TS recorded from the middle", "mpeg2, open groups"}
AVI = {"h264, AVI", "mpeg4, B-frames in an AVI", "motion jpeg"}
OPEN = {"h264, open groups", "h264, no keyframes but a moving refresh", "mpeg4, mp4"}
REFUSED = {
    "pyav": set[str](),
    "decord": CUTS
    | FRAGMENTS
    | STREAMS
    | AVI
    | OPEN
    | {"hevc, open groups", "hevc, cut of open groups", "av1", "av1, hidden frames"}
    | {name for name in CASES if "turned" in name},
    "torchcodec": STREAMS | AVI | OPEN | FRAGMENTS | {"h264, cut of open groups"},
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("videos")


def requests(count: int) -> list[list[int]]:
    """In order, backwards, with gaps, repeated, at random."""
    random = np.random.default_rng(0)
    asked = [[0], [count - 1], list(range(count)), list(range(count))[::-1], list(range(count // 3, count, 5))]
    asked += [[count // 2] * 3 + [0, count // 2], *(random.integers(0, count, 6).tolist() for _ in range(4))]
    return asked


@pytest.mark.parametrize("name", CASES)
@pytest.mark.parametrize("backend", REFUSED)
def test_the_frames_asked_for_or_a_refusal_with_the_way_out(backend: str, name: str, folder: Path) -> None:
    needs(backend)
    path, turned = make_case(name, folder), CASES[name].turned
    decoder = get_backend(backend)
    if name in REFUSED[backend]:
        with pytest.raises(DecodeError, match=r"data\.backend=pyav") as caught, decoder.open(path) as reader:
            reader.frames([0])
        assert caught.value.kind == "not supported" and caught.value.url == str(path)
        return
    truth = numbers_of(name, path)
    index = VideoIndex.from_dict(decoder.probe(path).to_dict())
    assert index.frames == len(truth) and (index.height, index.width) == (CASES[name].height, CASES[name].width)
    with decoder.open(path) as reader:
        images = reader.frames(range(index.frames))
        assert read_numbers(np.rot90(images, -turned, (1, 2))) == truth
        for asked in requests(index.frames):
            np.testing.assert_array_equal(reader.frames(asked), images[asked])
    for asked in requests(index.frames)[4:]:
        with decoder.open(path.read_bytes(), index) as reader:
            np.testing.assert_array_equal(reader.frames(asked), images[asked])


@pytest.mark.parametrize("name", CASES)
def test_frames_are_bit_for_bit_those_of_a_plain_decode(name: str, folder: Path) -> None:
    path, case = make_case(name, folder), CASES[name]
    with av.open(str(path)) as container:
        plain = [
            frame.to_ndarray(format="rgb24", interpolation=Interpolation.BICUBIC)
            for frame in container.decode(container.streams.best("video"))
            if not frame.is_corrupt
        ]
    with get_backend("pyav").open(path) as reader:
        np.testing.assert_array_equal(reader.frames(range(reader.index.frames)), np.rot90(plain, case.turned, (1, 2)))


@pytest.mark.parametrize("name", ["h264, uneven times with gaps", "h264, Matroska with an offset", "h264, shown late"])
def test_times_are_counted_from_the_first_frame(name: str, folder: Path) -> None:
    path = make_case(name, folder)
    i = np.arange(CASES[name].count or 0)
    wanted = i / 30 + ((i // 7) * 0.4 + (i % 3) * 0.01 if "gaps" in name else 0)
    with get_backend("pyav").open(path) as reader:
        np.testing.assert_allclose(reader.index.seconds, wanted, atol=2e-3)
        between = np.array([0.0, 0.30, 1.0, 2.0, wanted[-1]])
        shown = [int(np.flatnonzero(wanted <= t + 1e-9)[-1]) for t in between]
        assert read_numbers(reader.at(between)) == shown
        for outside in (-0.1, wanted[-1] + 1):
            with pytest.raises(DecodeError, match="s was asked for") as caught:
                reader.at([outside])
            assert caught.value.kind == "out of range"
