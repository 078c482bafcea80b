"""A table of videos: CSV, TSV, JSON lines or Parquet, or V-JEPA's lists without a heading.

    path,label,start,end,caption,split,camera         only `path` is needed; times in seconds; any other column is kept
    a/b.mp4,dancing,0,9.5,two people dance,train,3

    /data/k400/clip_1.mp4 27                          V-JEPA: path, a space, the number of the class (.csv or .txt)

Paths are relative to the folder of the table. A column that has the name of a field of ours (source, labels) is kept
with an underscore behind its name.
"""

import math
from collections import Counter
from collections.abc import Mapping
from datetime import date, datetime, time
from decimal import Decimal
from pathlib import Path
from typing import Any

from jepa_data.errors import DataError
from jepa_data.printable import printable
from jepa_data.sources.corpus import SPLIT_NAMES, Corpus, Item, key_of, label_numbers, mixed
from jepa_data.sources.rows import Row, read_rows

RENAMED = {"source": "source_", "labels": "labels_"}  # columns that have the name of a field of ours


def read_table(path: Path, *, labels: bool = True) -> Corpus:
    """The rows of a table.

    Args:
        labels: whether the column `label` becomes the label of the samples. It stays in their metadata.

    Raises:
        DataError: no column `path`, a time that is no number, an unknown split, or a video in two splits.
    """
    rows, notes = read_rows(path)
    if not rows:
        raise DataError(f"{path}: has no rows")
    numbers, plain = label_numbers(label for row in rows if labels and (label := _label(row)))
    seen = Counter[str]()
    items = [_item(path, number, row, seen, numbers) for number, row in enumerate(rows, start=1)]
    _check_splits(path, items)
    if more := len(items) - len(seen):
        notes = (*notes, f"{path}: {more} rows say the same video and times as an earlier one; all are packed")
    return Corpus(
        kind="table",
        count=len(items),
        items=lambda seed: iter(mixed(items, seed)),
        label_names=("label",) if numbers else (),
        label_values={"label": tuple(numbers)} if numbers and not plain else {},
        about={"name": printable(path.name), "labels": labels},
        notes=notes,
    )


def _check_splits(path: Path, items: list[Item]) -> None:
    """Raises DataError if parts of a video are in different splits."""
    firsts: dict[str, tuple[str | None, int]] = {}
    for number, item in enumerate(items, start=1):
        split, first = firsts.setdefault(item.group, (item.split, number))
        if split != item.split:
            raise DataError(
                f"{path}: {item.group} is in the split {split or '(none)'} in row {first} and in "
                f"{item.split or '(none)'} in row {number}. All parts of a video belong to one split"
            )


def _item(table: Path, number: int, row: Row, seen: Counter[str], numbers: Mapping[str, int]) -> Item:
    name = _text(row.get("path"))
    if name is None:
        raise DataError(f"{table}: row {number} has no path")
    start = _seconds(row, "start", table, number)
    end = _seconds(row, "end", table, number)
    if start is not None and end is not None and end <= start:
        raise DataError(f"{table}: row {number} ends at {end:g} s, before it starts ({start:g} s)")
    split = _text(row.get("split"))
    if split is not None and split.lower() not in SPLIT_NAMES:
        raise DataError(f"{table}: row {number} has the split {split!r}, expected train, val or test")
    same = f"{name}\0{start}\0{end}"
    seen[same] += 1
    metadata = {k: _plain(v) for k, v in row.items() if k not in ("path", "start", "end", "split")}
    return Item(
        name=printable(name),
        key=key_of(name, start, end, seen[same]),
        group=printable(name),
        path=table.parent / name,
        start=start,
        end=end,
        split=split and SPLIT_NAMES[split.lower()],
        labels={"label": numbers.get(_label(row), -1)} if numbers else {},
        metadata={RENAMED.get(k, k): v for k, v in metadata.items() if v is not None},
    )


def _label(row: Row) -> str:
    """Empty where the row has none."""
    label = _text(row.get("label")) or ""
    return "" if label == "-1" else printable(label)


def _text(cell: Any) -> str | None:
    """A cell as text; None if it is empty."""
    if cell is None or (isinstance(cell, float) and math.isnan(cell)):
        return None
    if isinstance(cell, float) and cell.is_integer():  # a column of whole numbers with gaps is read as floats
        cell = int(cell)
    return str(cell).strip() or None


def _seconds(row: Row, column: str, table: Path, number: int) -> float | None:
    text = _text(row.get(column))
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
    if cell == "" or (isinstance(cell, float) and not math.isfinite(cell)):
        return None
    return cell
