"""File names as text that every terminal, JSON file and manifest can hold.

A file name on Linux is any bytes. Python gives those that are not UTF-8 as lone surrogates, which cannot be encoded,
and a name may also hold line ends and escape sequences.
"""

import re
from collections.abc import Sequence
from pathlib import PurePath

# C0 and C1 control characters, the line and paragraph separators, and lone surrogates.
UNPRINTABLE = re.compile("[\x00-\x1f\x7f-\x9f\u2028\u2029\ud800-\udfff]")


def printable(name: str | PurePath) -> str:
    r"""A file name with what cannot be printed written as escapes: `caf\xe9.mp4` for a Latin-1 name, `a\nb.mp4`.

    Any other name is returned as it is, with "/" between its parts.
    """
    return UNPRINTABLE.sub(_escaped, name.as_posix() if isinstance(name, PurePath) else name)


def first_few(items: Sequence[object], count: int, separator: str = ", ") -> str:
    """The first `count` of them, and how many more there are: `a, b, c and 2 more`."""
    listed = separator.join(map(str, items[:count]))
    return f"{listed} and {len(items) - count} more" if len(items) > count else listed


def _escaped(match: re.Match[str]) -> str:
    code = ord(match.group())
    if 0xDC80 <= code <= 0xDCFF:  # a byte that is not UTF-8, as `os.fsdecode` gives it
        return f"\\x{code - 0xDC00:02x}"
    return match.group().encode("unicode_escape").decode("ascii")
