"""Labels that other people keep in the `.json` of a sample.

{"label": "dog"}   {"class": 3}   {"class_name": "dog"}   {"labels": {"breed": 7}}

A whole number stays the number it is, and text is the name of a class: names are numbered once all samples are known,
so a label is text until then, as in a table. `labels` is as we write it, a number each, and is read as it is.
"""

import json
from collections import Counter
from collections.abc import Iterable, Mapping
from typing import Any

from jepa_data.errors import DecodeError
from jepa_data.printable import printable
from jepa_data.sources.corpus import label_numbers

NAMED = ("label", "class", "class_name")  # keys of .json


def named_labels(metadata: Mapping[str, Any], ignored: list[str]) -> dict[str, str]:
    """The labels of a sample, as text. What cannot be one is added to `ignored`; a missing one is not."""
    texts = dict[str, str]()
    for name in NAMED:
        value = metadata.get(name)
        if isinstance(value, float) and value.is_integer():
            value = int(value)
        text = str(value).strip() if isinstance(value, str | int) and not isinstance(value, bool) else None
        if value is None or text in ("", "-1"):
            continue  # none, in the words of JSON, of tables, and here
        if text is None or (isinstance(value, int) and value < 0):
            ignored.append(f".json with {name!r} that is no text or whole number")
        else:
            texts[name] = printable(text)
    return texts


def number_labels(
    samples: Iterable[tuple[dict[str, int], Mapping[str, str]]], ignored: Counter[str]
) -> dict[str, tuple[str, ...]]:
    """Give every sample the numbers of its named labels, and every label that any of them has (-1: none).

    Args:
        samples: of each the labels it has as numbers, which is added to, and those it has as text.

    Returns:
        The names of the classes of each label that has some.
    """
    rows = list(samples)
    fixed = {name for numbers, _ in rows for name in numbers}
    classes = dict[str, tuple[str, ...]]()
    for name in NAMED:
        given = [text[name] for _, text in rows if name in text]
        if name in fixed and given:
            ignored[f".json with {name!r}, which is also in `labels` of some sample"] += len(given)
        elif given:
            known, plain = label_numbers(given)
            fixed.add(name)
            if not plain:
                classes[name] = tuple(known)
            for numbers, text in rows:
                if name in text:
                    numbers[name] = known[text[name]]
    for numbers, _ in rows:
        of_tar = {name: numbers.get(name, -1) for name in sorted(fixed)}
        numbers.clear()
        numbers.update(of_tar)
    return classes


def repeated_keys(data: bytes) -> list[str]:
    """Keys that an object of a JSON text has twice: only the last value of each is read."""
    repeated = list[str]()

    def note(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        repeated.extend(key for key, count in Counter(key for key, _ in pairs).items() if count > 1)
        return dict(pairs)

    try:
        json.loads(data, object_pairs_hook=note)
    except (ValueError, RecursionError) as error:
        raise DecodeError("damaged", f"its .json cannot be read: {error}") from error
    return repeated
