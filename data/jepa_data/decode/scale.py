"""Decoded image to RGB: cropped and scaled in one pass of FFmpeg's swscale (bicubic), then turned upright.

How exact a crop is:
    without a size    the pixels of the uncropped image, bit for bit.
    with a size       brightness is cut at the pixel asked for. Color is stored at half the resolution in most video;
                      where the crop's left or top edge is odd, it lies up to one pixel off. To the scaler the edge of
                      the crop is the edge of the image, so that pixels near it differ by a few levels from a crop of
                      the scaled image; and where the crop is the whole image, from no crop (at most 4 of 255).
"""

import itertools

import numpy as np
from av.filter import Graph
from av.video.frame import VideoFrame
from av.video.reformatter import Interpolation, VideoReformatter
from jaxtyping import UInt8

from jepa_data.decode.base import Crop, Size, turned

Image = UInt8[np.ndarray, "h w C"]
CROPS = 32  # different ones that are kept ready; making one costs 0.3 ms
LIMITED = (0, 1)  # color ranges by FFmpeg's numbers: unspecified, which is taken for this, and 16..235
MATRICES = {1: "bt709", 2: "bt601", 5: "bt601", 6: "bt601"}  # of color spaces by FFmpeg's numbers; 2: unspecified


class Scaler:
    """Keeps FFmpeg's tables between frames; belongs to one reader."""

    def __init__(self) -> None:
        self._reformatter = VideoReformatter()
        self._graphs: dict[tuple[object, ...], Graph] = {}

    def image(self, frame: VideoFrame, turns: int, size: Size | None, crop: Crop | None) -> Image:
        """RGB of a decoded frame, turned by `turns` quarter turns counter-clockwise. `size` and `crop` as shown."""
        stored = (frame.height, frame.width)
        if size is not None:
            size = turned(size, turns)
        part = None if crop is None else _stored_crop(crop, turns, stored)
        if part is None:
            rgb = self._whole(frame, size or stored)
        elif size is None:
            top, left, height, width = part
            rgb = self._whole(frame, stored)[top : top + height, left : left + width]
        elif part[1] % 2 and frame.format.components[0].bits > 8:
            # FFmpeg's crop cuts the color of deep images in the middle of a number there: 31 columns are 62 bytes
            # of brightness and 31 of color.
            rgb = self.rgb(self._whole(frame, stored), size, part)
        else:
            rgb = self._part(frame, size, part)
        return np.rot90(rgb, turns)

    def rgb(self, image: Image, size: Size | None, crop: Crop | None) -> UInt8[np.ndarray, "H W C"]:
        """An RGB image, cropped, then scaled."""
        if crop is not None:
            top, left, height, width = crop
            image = image[top : top + height, left : left + width]
        if size is None or size == image.shape[:2]:
            return image
        return self._whole(VideoFrame.from_ndarray(np.ascontiguousarray(image), format="rgb24"), size)

    def _whole(self, frame: VideoFrame, size: Size) -> Image:
        # FFmpeg's own default, one thread per core, takes four times the CPU on small images.
        height, width = size
        bicubic = Interpolation.BICUBIC
        return _pixels(self._reformatter.reformat(frame, width, height, "rgb24", interpolation=bicubic, threads=1))

    def _part(self, frame: VideoFrame, size: Size, crop: Crop) -> Image:
        wanted = (frame.width, frame.height, frame.format.name, frame.colorspace, frame.color_range, size, crop)
        if wanted not in self._graphs:
            if len(self._graphs) == CROPS:
                self._graphs.clear()
            self._graphs[wanted] = _crop_and_scale(frame, size, crop)
        graph = self._graphs[wanted]
        graph.push(frame)
        rgb = graph.pull()
        assert isinstance(rgb, VideoFrame)
        return _pixels(rgb)


def _crop_and_scale(frame: VideoFrame, size: Size, crop: Crop) -> Graph:
    """The crop only moves pointers, so that what lies outside is neither converted nor scaled.

    FFmpeg scales 4:2:0 video to RGB with half the columns of color, and not by vector instructions. Scaling to 4:2:2
    and then converting gives the same but for rounding (1 of 255 on average), in half the time.
    """
    top, left, height, width = crop
    graph = Graph()
    graph.threads = 1
    steps = [
        graph.add_buffer(width=frame.width, height=frame.height, format=frame.format, time_base=frame.time_base),
        graph.add("crop", f"w={width}:h={height}:x={left}:y={top}:exact=1"),
    ]
    if frame.format.name == "yuv420p" and frame.color_range in LIMITED and frame.colorspace in MATRICES:
        steps += [
            graph.add("setparams", "colorspace=unknown:range=tv"),  # or the first one would convert colors too
            graph.add("scale", f"w={size[1]}:h={size[0]}:flags=bicubic+accurate_rnd"),
            graph.add("format", "pix_fmts=yuv422p"),
            graph.add("scale", f"in_color_matrix={MATRICES[frame.colorspace]}:flags=bicubic"),
        ]
    else:
        steps += [graph.add("scale", f"w={size[1]}:h={size[0]}:flags=bicubic")]
    steps += [graph.add("format", "pix_fmts=rgb24"), graph.add("buffersink")]
    for step, next_step in itertools.pairwise(steps):
        step.link_to(next_step)
    graph.configure()
    return graph


def _stored_crop(crop: Crop, turns: int, stored: Size) -> Crop:
    """A crop of the image as shown, in the image as stored, which is [height, width] = `stored`."""
    top, left, height, width = crop
    tall, wide = stored
    return (
        (top, left, height, width),
        (left, wide - top - height, width, height),
        (tall - top - height, wide - left - width, height, width),
        (tall - left - width, top, width, height),
    )[turns]


def _pixels(rgb: VideoFrame) -> Image:
    """A view of the pixels: rows are padded in FFmpeg's memory."""
    plane = rgb.planes[0]
    rows = np.frombuffer(memoryview(plane), np.uint8).reshape(-1, plane.line_size)[: rgb.height, : 3 * rgb.width]
    return rows.reshape(rgb.height, rgb.width, 3)
