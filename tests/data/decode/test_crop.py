"""Images are cropped, scaled and turned upright as they are decoded."""

from collections.abc import Callable
from pathlib import Path

import av
import numpy as np
import pytest
from av.video.frame import VideoFrame
from numpy.typing import NDArray

from jepa_data.decode import get_backend
from jepa_data.errors import DecodeError
from jepa_data.shards.encode import encode_mp4
from tests.data.video_cases import needs

Images = NDArray[np.uint8]


@pytest.mark.parametrize("backend", ["pyav", "decord", "torchcodec"])
def test_images_are_cropped_then_scaled(
    backend: str, numbered: Callable[..., Images], read_numbers: Callable[..., list[int]]
) -> None:
    needs(backend)
    data = encode_mp4(numbered(20), 20)
    with get_backend(backend).open(data) as reader:
        native = reader.frames([4, 9])
        cropped = reader.frames([4, 9], crop=(8, 16, 32, 40))
        np.testing.assert_array_equal(cropped, native[:, 8:40, 16:56])
        assert reader.frames([4, 9], crop=(8, 16, 32, 40), size=(16, 20)).shape == (2, 16, 20, 3)
        small = reader.frames([4, 9], size=(32, 32))
        assert small.shape == (2, 32, 32, 3) and read_numbers(small) == [4, 9]
        with pytest.raises(DecodeError, match="beyond"):
            reader.frames([0], crop=(40, 0, 32, 64))


def test_a_rotated_video_is_returned_upright(tmp_path: Path, numbered: Callable[..., Images]) -> None:
    images = numbered(6)[:, :32]
    path = tmp_path / "phone.mp4"
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=30)
        stream.width, stream.height, stream.pix_fmt = 64, 32, "yuv420p"
        stream.set_display_rotation(90)
        for image in images:
            container.mux(stream.encode(VideoFrame.from_ndarray(np.ascontiguousarray(image), format="rgb24")))
        container.mux(stream.encode(None))
    with get_backend("pyav").open(path) as reader:
        assert (reader.index.height, reader.index.width, reader.index.rotation) == (64, 32, 90)
        upright = reader.frames([5])[0].astype(int)
        assert np.abs(upright - np.rot90(images[5]).astype(int)).mean() < 10


FORMATS = {
    "4:2:0": ("libx264", "yuv420p", 2),
    "4:2:0 of BT.709": ("libx264", "yuv420p", 1),
    "4:2:0 of BT.2020": ("libx264", "yuv420p", 9),
    "4:4:4": ("libx264", "yuv444p", 2),
    "10 bits": ("libx265", "yuv420p10le", 2),
    "motion jpeg": ("mjpeg", "yuvj420p", 2),
}


@pytest.mark.parametrize("kind", FORMATS)
def test_a_crop_is_the_same_part_of_the_image_scaled_or_not(kind: str, tmp_path: Path) -> None:
    ramp = np.stack(np.broadcast_arrays(*np.ogrid[0:192:2, 0:128], 60), axis=-1).astype(np.uint8)  # [96, 128, 3]
    codec, pixels, colors = FORMATS[kind]
    path = tmp_path / "ramp.mkv"
    with av.open(str(path), "w") as container:
        stream = container.add_stream(codec, rate=30)
        stream.width, stream.height, stream.pix_fmt = 128, 96, pixels
        stream.options = {"x265-params": "log-level=none:lossless=1:pools=1", "crf": "1", "qscale": "1"}
        stream.codec_context.colorspace = colors
        frame = VideoFrame.from_ndarray(ramp, format="rgb24")
        container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    with get_backend("pyav").open(path) as reader:
        whole = reader.frames([0])[0].astype(int)
        for crop in [(0, 0, 96, 128), (8, 16, 40, 60), (7, 31, 41, 61), (2, 33, 50, 30), (55, 67, 41, 61)]:
            top, left, height, width = crop
            part = whole[top : top + height, left : left + width]
            np.testing.assert_array_equal(reader.frames([0], crop=crop)[0], part)
            np.testing.assert_allclose(reader.frames([0], crop=crop, size=(height, width))[0], part, atol=6)
            double = reader.frames([0], crop=crop, size=(2 * height, 2 * width))[0].astype(int)
            np.testing.assert_allclose(double.reshape(height, 2, width, 2, 3).mean(axis=(1, 3)), part, atol=6)


@pytest.mark.parametrize("turns", [1, 2, 3])
def test_a_crop_of_a_turned_video_is_in_the_image_as_it_is_shown(turns: int, tmp_path: Path) -> None:
    ramp = np.stack(np.broadcast_arrays(*np.ogrid[0:192:2, 0:128], 60), axis=-1).astype(np.uint8)
    path = tmp_path / "phone.mp4"
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=30)
        stream.width, stream.height, stream.pix_fmt, stream.options = 128, 96, "yuv444p", {"crf": "1"}
        stream.set_display_rotation(90 * turns)
        container.mux(stream.encode(VideoFrame.from_ndarray(ramp, format="rgb24")))
        container.mux(stream.encode(None))
    with get_backend("pyav").open(path) as reader:
        whole = reader.frames([0])[0].astype(int)
        np.testing.assert_allclose(whole, np.rot90(ramp, turns), atol=8)
        part = whole[9:50, 20:51]
        np.testing.assert_array_equal(reader.frames([0], crop=(9, 20, 41, 31))[0], part)
        np.testing.assert_allclose(reader.frames([0], crop=(9, 20, 41, 31), size=(41, 31))[0], part, atol=6)
        large = reader.frames([0], size=(2 * whole.shape[0], 2 * whole.shape[1]))[0].astype(int)
        np.testing.assert_allclose(large[::2, ::2], whole, atol=6)
