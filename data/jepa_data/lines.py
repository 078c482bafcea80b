r"""Text files that people and other programs wrote, line by line.

A line ends at a line feed, a carriage return, or both, as in a spreadsheet or an editor. `str.splitlines()` also splits
at U+2028, U+0085, form feeds and others, which may stand within a cell of a table or a string of JSON.
"""

from pathlib import Path

from jepa_data.errors import DataError


def read_lines(path: Path) -> list[str]:
    """The lines of a file in UTF-8, with or without a byte order mark. Raises DataError."""
    try:
        return path.read_text(encoding="utf-8-sig").removesuffix("\n").split("\n")
    except UnicodeDecodeError as error:
        raise DataError(
            f"{path}: is not text in UTF-8 ({error.reason} at byte {error.start}). Save it again as UTF-8"
        ) from error
    except OSError as error:
        raise DataError(f"{path}: cannot be read ({error.strerror})") from error
