"""The rows of a table, as dictionaries: CSV, TSV, JSON lines, Parquet, or V-JEPA's lists without a heading."""

import csv
import json
from collections import Counter
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from jepa_data.errors import DataError
from jepa_data.lines import read_lines
from jepa_data.sources.parquet import read_parquet

TABLES = ("csv", "tsv", "txt", "jsonl", "parquet")
LARGEST_CELL = 2**31 - 1  # characters; csv's own limit of 128 Ki is less than a long caption or a list of boxes
Row = dict[str, Any]


def read_rows(path: Path) -> tuple[list[Row], tuple[str, ...]]:
    """The rows of a table, and a line for each thing that a person should know.

    Raises:
        DataError: the file cannot be read, a row is malformed, or two columns or keys have one name.
    """
    ending = path.suffix[1:].lower()
    if ending == "parquet":
        table = read_parquet(path)
        _check_names(f"{path}: the schema", table.column_names)
        return table.to_pylist(), ()
    lines = read_lines(path)
    filled = [line for line in lines if line.strip()]
    if ending == "jsonl":
        return [_json(path, number, line) for number, line in enumerate(filled, start=1)], ()
    delimiter = "\t" if ending == "tsv" else ","
    if filled and "path" in map(str.strip, next(csv.reader(filled[:1], delimiter=delimiter))):
        return _separated(path, lines, delimiter)
    return [_listed(path, number, line) for number, line in enumerate(filled, start=1)], ()


def _separated(path: Path, lines: Iterable[str], delimiter: str) -> tuple[list[Row], tuple[str, ...]]:
    """Rows of CSV. Line ends are kept, for a cell in quotes may hold some."""
    rows: list[Row] = []
    short = 0
    reader = _csv_rows(path, lines, delimiter)
    heading = [cell.strip() for cell in next(reader)]
    _check_names(f"{path}: the heading", heading)
    for number, cells in enumerate(reader, start=1):
        if len(cells) > len(heading):
            raise DataError(f"{path}: row {number} has more cells than the heading names. Quote cells that hold commas")
        short += len(cells) < len(heading)
        rows.append(dict.fromkeys(heading) | dict(zip(heading, cells, strict=False)))
    if not short:
        return rows, ()
    return rows, (f"{path}: {short} rows have fewer cells than the heading; those that lack are empty",)


def _csv_rows(path: Path, lines: Iterable[str], delimiter: str) -> Iterator[list[str]]:
    """Cells of each row that is not empty. Strict: a quote that is never closed would swallow the rest of the file."""
    before = csv.field_size_limit(LARGEST_CELL)
    number = 0
    try:
        for cells in csv.reader((line + "\n" for line in lines), delimiter=delimiter, strict=True):
            if cells:
                yield cells
                number += 1
    except csv.Error as error:
        raise DataError(
            f"{path}: row {max(1, number)} is no CSV ({error}). Put a cell that holds quotes in quotes, and double "
            'them: "a ""big"" dog"'
        ) from error
    finally:
        csv.field_size_limit(before)


def _listed(path: Path, number: int, line: str) -> Row:
    """A row of V-JEPA's lists. The path may hold spaces."""
    name, _, label = line.strip().rpartition(" ")
    if not name or not label.isdigit():
        raise DataError(
            f"{path}: row {number}: expected a heading with a column `path`, or rows such as `videos/a.mp4 3`; "
            f"found {line.strip()[:80]!r}"
        )
    return {"path": name.strip().strip('"'), "label": label}


def _json(path: Path, number: int, line: str) -> Row:
    def unique(pairs: list[tuple[str, Any]]) -> Row:
        _check_names(f"{path}: row {number}", [name for name, _ in pairs])
        return dict(pairs)

    try:
        row = json.loads(line, object_pairs_hook=unique)
    except DataError:
        raise
    except (ValueError, RecursionError) as error:
        raise DataError(f"{path}: row {number} is no JSON: {error}") from error
    if not isinstance(row, dict):
        raise DataError(f'{path}: row {number}: expected an object such as {{"path": "a.mp4"}}, found {line[:60]!r}')
    return row


def _check_names(where: str, names: Iterable[str]) -> None:
    """Raises DataError for a name that is there twice: only one of its values could be used."""
    twice = [name for name, count in Counter(names).items() if count > 1 and name]
    if twice:
        raise DataError(f"{where} names {twice[0]!r} twice. Keep one of them")
