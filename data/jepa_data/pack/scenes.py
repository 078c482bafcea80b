"""Changes of scene, found by PySceneDetect in frames that the decoder of the project delivers.

PySceneDetect is B. Castellano's; its content detector compares hue, saturation and brightness of neighboring frames.
"""

from collections.abc import Iterator

import numpy as np
from jaxtyping import UInt8

from jepa_data.decode import Reader
from jepa_data.errors import DataError

SHORT_SIDE = 96  # pixels: what is compared are means over the image
CHUNK = 64  # frames decoded at a time
SHORTEST = 0.6  # seconds between two changes


def find_scenes(reader: Reader, first: int, last: int, threshold: float) -> list[float]:
    """Times in seconds at which a scene begins, within the frames `first` to `last` (not included).

    Args:
        threshold: PySceneDetect's; 27 is its default, lower finds more.

    Raises:
        DataError: PySceneDetect is not installed.
        DecodeError: a frame cannot be decoded.
    """
    check_installed()
    from scenedetect import FrameTimecode
    from scenedetect.detectors import ContentDetector

    index = reader.index
    fps = index.fps or 1.0
    detector = ContentDetector(threshold=threshold, min_scene_len=max(1, round(SHORTEST * fps)))
    cuts = []
    for number, image in enumerate(_images(reader, first, last)):
        cuts += detector.process_frame(FrameTimecode(number, fps=fps), np.ascontiguousarray(image[..., ::-1]))
    cuts += detector.post_process(FrameTimecode(max(0, last - first - 1), fps=fps))
    numbers = sorted({first + time.frame_num for time in cuts})
    return [float(index.seconds[number]) for number in numbers if first < number < last]


def check_installed() -> None:
    """Raises DataError if PySceneDetect is not there."""
    try:
        import scenedetect  # noqa: F401
    except ImportError as error:
        raise DataError("--scenes needs PySceneDetect: pip install 'openjepa[pack]'") from error


def _images(reader: Reader, first: int, last: int) -> Iterator[UInt8[np.ndarray, "h w 3"]]:
    index = reader.index
    scale = min(1.0, SHORT_SIDE / min(index.height, index.width))
    size = (max(2, round(index.height * scale)), max(2, round(index.width * scale)))
    for start in range(first, last, CHUNK):
        yield from reader.frames(range(start, min(start + CHUNK, last)), size=size)
