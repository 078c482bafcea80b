"""A table of videos: CSV, TSV, JSON lines or Parquet, or V-JEPA's lists without a heading.

    path,label,start,end,caption,split,camera         only `path` is needed; times in seconds; any other column is kept
    a/b.mp4,dancing,0,9.5,two people dance,train,3

    /data/k400/clip_1.mp4 27                          V-JEPA: path, a space, the number of the class (.csv or .txt)

Paths are relative to the folder of the table. A column that has the name of a field of ours (source, labels) is kept
with an underscore behind its name.
"""

import csv
import json
import math
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import replace
from datetime import date, datetime, time
from decimal import Decimal
from pathlib import Path
from typing import Any

from jepa_data.errors import DataError
from jepa_data.sources.corpus import SPLIT_NAMES, Corpus, Item, class_numbers, key_of, mixed
from jepa_data.sources.parquet import read_parquet

TABLES = ("csv", "tsv", "txt", "jsonl", "parquet")
Row = dict[str, Any]


def read_table(path: Path, *, labels: bool = True) -> Corpus:
    """The rows of a table.

    Args:
        labels: whether the column `label` becomes the label of the samples. It stays in their metadata.

    Raises:
        DataError: no column `path`, a time that is no number, an unknown split, or a video in two splits.
    """
    rows = list(_rows(path))
    if not rows:
        raise DataError(f"{path}: has no rows")
    values = [_text(row.get("label")) for row in rows] if labels else [None] * len(rows)
    values = [None if value == "-1" else value for value in values]
    given = [value for value in values if value is not None]
    plain = all(value.isdigit() for value in given)  # numbers stay the numbers they are
    numbers = {value: int(value) for value in given} if plain else class_numbers(given)
    items, seen, splits = list[Item](), Counter[str](), dict[str, tuple[str | None, int]]()
    for number, (row, value) in enumerate(zip(rows, values, strict=True), start=1):
        item = _item(path, number, row, seen)
        first = splits.setdefault(item.group, (item.split, number))
        if first[0] != item.split:
            raise DataError(
                f"{path}: {item.group} is in the split {first[0] or '(none)'} in row {first[1]} and in "
                f"{item.split or '(none)'} in row {number}. All parts of a video belong to one split"
            )
        mark = {"label": -1 if value is None else numbers[value]} if numbers else {}
        items.append(replace(item, labels=mark))
    return Corpus(
        kind="table",
        count=len(items),
        items=lambda seed: iter(mixed(items, seed)),
        label_names=("label",) if numbers else (),
        label_values={"label": tuple(numbers)} if numbers and not plain else {},
        about={"name": path.name, "labels": labels},
    )


def _item(table: Path, number: int, row: Row, seen: Counter[str]) -> Item:
    name = _text(row.get("path"))
    if name is None:
        raise DataError(f"{table}: row {number} has no path")
    start, end = (_seconds(row.get(column), table, number, column) for column in ("start", "end"))
    if start is not None and end is not None and end <= start:
        raise DataError(f"{table}: row {number} ends at {end:g} s, before it starts ({start:g} s)")
    split = _text(row.get("split"))
    if split is not None and split.lower() not in SPLIT_NAMES:
        raise DataError(f"{table}: row {number} has the split {split!r}, expected train, val or test")
    same = f"{name}\0{start}\0{end}"
    seen[same] += 1
    metadata = {f"{k}_" if k in ("source", "labels") else k: _plain(v) for k, v in row.items()}
    for used in ("path", "start", "end", "split"):
        metadata.pop(used, None)
    return Item(
        name=name,
        key=key_of(name, start, end, seen[same]),
        group=name,
        path=table.parent / name,
        start=start,
        end=end,
        split=None if split is None else SPLIT_NAMES[split.lower()],
        metadata={k: v for k, v in metadata.items() if v is not None},
    )


def _rows(path: Path) -> Iterator[Row]:
    ending = path.suffix[1:].lower()
    if ending == "parquet":
        yield from read_parquet(path).to_pylist()
        return
    try:
        text = path.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as error:
        raise DataError(f"{path}: is not text in UTF-8 ({error.reason} at byte {error.start})") from error
    except OSError as error:
        raise DataError(f"{path}: cannot be read ({error.strerror})") from error
    lines = [line for line in text.splitlines() if line.strip()]
    if ending == "jsonl":
        yield from (_json(path, number, line) for number, line in enumerate(lines, start=1))
    elif lines and (heading := _heading(lines[0], "\t" if ending == "tsv" else ",")):
        yield from _separated(path, text, heading, "\t" if ending == "tsv" else ",")
    else:
        yield from (_listed(path, number, line) for number, line in enumerate(lines, start=1))


def _separated(path: Path, text: str, heading: list[str], delimiter: str) -> Iterator[Row]:
    # Line ends are kept, for a cell in quotes may hold some.
    reader = csv.DictReader(text.splitlines(keepends=True), heading, delimiter=delimiter)
    next(reader)  # the heading
    for number, row in enumerate(reader, start=1):
        if None in row:
            raise DataError(f"{path}: row {number} has more cells than the heading names. Quote cells that hold commas")
        yield row


def _heading(line: str, delimiter: str) -> list[str] | None:
    cells = [cell.strip() for cell in next(csv.reader([line], delimiter=delimiter))]
    return cells if "path" in cells else None


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
    try:
        row = json.loads(line)
    except ValueError as error:
        raise DataError(f"{path}: row {number} is no JSON: {error}") from error
    if not isinstance(row, dict):
        raise DataError(f'{path}: row {number}: expected an object such as {{"path": "a.mp4"}}, found {line[:60]!r}')
    return row


def _text(cell: Any) -> str | None:
    """A cell as text; None if it is empty."""
    if cell is None or (isinstance(cell, float) and math.isnan(cell)):
        return None
    if isinstance(cell, float) and cell.is_integer():  # a column of whole numbers with gaps is read as floats
        cell = int(cell)
    return str(cell).strip() or None


def _seconds(cell: Any, table: Path, number: int, column: str) -> float | None:
    text = _text(cell)
    if text is None:
        return None
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not (math.isfinite(value) and value >= 0):
        raise DataError(f"{table}: row {number}: {column} is a time in seconds, found {text!r}")
    return value


def _plain(cell: Any) -> Any:
    """A cell as JSON holds it; empty ones are None."""
    if isinstance(cell, Mapping):
        return {str(k): _plain(v) for k, v in cell.items()}
    if isinstance(cell, list | tuple):
        return [_plain(v) for v in cell]
    if isinstance(cell, bytes):
        return cell.hex()
    if isinstance(cell, datetime | date | time | Decimal):
        return str(cell)
    return None if cell == "" or (isinstance(cell, float) and not math.isfinite(cell)) else cell
