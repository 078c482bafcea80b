"""Whether a video file is as long as it says: FFmpeg reads a file that was cut short to the cut, and says nothing.

The outermost parts of three containers carry their sizes:

    mp4, mov    [size 4][type 4]...   [size 4][type 4]...      until the end of the file
    Matroska    [EBML header] [Segment: id, size]              the Segment is the rest of the file
    AVI         "RIFF" [size 4] "AVI " ...                     the RIFF is the rest of the file (or several follow)
"""

import io

from jepa_data.decode.base import Source, opened, url_of
from jepa_data.errors import DecodeError

EBML = b"\x1a\x45\xdf\xa3"
SEGMENT = b"\x18\x53\x80\x67"
MAX_BOXES = 100_000  # a fragmented hour has some thousands


def check_whole(src: Source) -> None:
    """Raises DecodeError ("truncated") for an mp4, Matroska or AVI file that ends too early; looks at no other."""
    with opened(src) as file:
        size = file.seek(0, io.SEEK_END)
        file.seek(0)
        head = file.read(12)
        end = size
        if head[4:8] == b"ftyp":
            end = _end_of_boxes(file, size)
        elif head[:4] == EBML:
            end = _end_of_segment(file, size)
        elif head[:4] == b"RIFF":
            end = 8 + int.from_bytes(head[4:8], "little")
    if end > size:
        raise DecodeError("truncated", f"it has {size} bytes of {end}. Copy it again", url=url_of(src))


def _end_of_boxes(file: io.BufferedIOBase, size: int) -> int:
    at = 0
    for _ in range(MAX_BOXES):
        file.seek(at)
        head = file.read(16)
        length = int.from_bytes(head[:4])
        if len(head) < 8 or not head[4:8].isalnum() or length == 0:
            break  # what follows the last box; 0: to the end of the file
        if length == 1:
            length = int.from_bytes(head[8:16])
        if length < 8:
            break
        at += length
        if at >= size:
            break
    return at


def _end_of_segment(file: io.BufferedIOBase, size: int) -> int:
    file.seek(4)
    file.seek(_ebml_size(file), io.SEEK_CUR)
    if file.read(4) != SEGMENT:
        return size
    length = _ebml_size(file)
    return file.tell() + length


def _ebml_size(file: io.BufferedIOBase) -> int:
    """A size of Matroska: the number of leading zero bits says how many bytes follow. 0: unknown (all ones)."""
    first = file.read(1)
    if not first or not first[0]:
        return 0
    more = 8 - first[0].bit_length()
    ones = (1 << 7 * (more + 1)) - 1
    value = int.from_bytes(first + file.read(more)) & ones
    return 0 if value == ones else value
