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
from dataclasses import replace
from datetime import date, datetime, time
from decimal import Decimal
from pathlib import Path
from typing import Any

from jepa_data.errors import DataError
from jepa_data.printable import printable
from jepa_data.sources.corpus import SPLIT_NAMES, Corpus, Item, key_of, label_numbers, mixed
from jepa_data.sources.rows import Row, read_rows


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
    values = [_label(row) for row in rows] if labels else [None] * len(rows)
    numbers, plain = label_numbers(value for value in values if value is not None)
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
    more = sum(count - 1 for count in seen.values())
    repeated = (f"{path}: {more} rows say the same video and times as an earlier one; all are packed",) if more else ()
    return Corpus(
        kind="table",
        count=len(items),
        items=lambda seed: iter(mixed(items, seed)),
        label_names=("label",) if numbers else (),
        label_values={"label": tuple(numbers)} if numbers and not plain else {},
        about={"name": printable(path.name), "labels": labels},
        notes=notes + repeated,
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
        name=printable(name),
        key=key_of(name, start, end, seen[same]),
        group=printable(name),
        path=table.parent / name,
        start=start,
        end=end,
        split=None if split is None else SPLIT_NAMES[split.lower()],
        metadata={k: v for k, v in metadata.items() if v is not None},
    )


def _label(row: Row) -> str | None:
    label = _text(row.get("label"))
    return None if label in (None, "-1") else printable(label)


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
