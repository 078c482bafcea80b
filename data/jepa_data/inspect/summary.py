"""What a folder of shards holds, from its manifest, its table and its indices; no video is opened.

Lengths and images are counted over all samples (the memory-mapped table). Codecs, sizes, rates and labels need a
line of an index each: beyond LINES samples a split, evenly spread ones are looked at, and the summary says how many.
Captions and other columns are in metadata.json, inside the shards: SEEN samples a split are looked at.
"""

from collections import Counter
from collections.abc import Mapping, Sequence
from itertools import pairwise, zip_longest
from typing import Any

import numpy as np
from jaxtyping import Float64, Int64

from jepa.config import from_dict
from jepa_data.errors import DecodeError
from jepa_data.printable import first_few
from jepa_data.shards.index import ShardSet
from jepa_data.shards.manifest import METADATA, Sample
from jepa_data.shards.read import read_metadata
from jepa_data.shards.table import Samples
from jepa_data.spatial.kinds import SpatialInfo

LINES = 100_000
SEEN = 64
BINS = 8
BAR = 24  # characters of the longest bar
NAMES = 8  # values printed of a label or a column


def summary(shards: ShardSet) -> dict[str, Any]:
    """What `jepa data inspect --json` prints: sizes in bytes, lengths in seconds, counts per name."""
    about = shards.manifest.model_dump(mode="json", exclude={"splits"})
    splits = {name: _split(shards, name) for name in shards.manifest.splits}
    notes = [note for note in (*shards.notes, shards.manifest.missing_note()) if note]
    return {"folder": shards.url, **about, "splits": splits, "notes": notes}


def _split(shards: ShardSet, name: str) -> dict[str, Any]:
    samples = shards.split(name)
    record = shards.manifest.splits[name]
    frames = samples.rows["frames"]
    known = frames[frames > 0]
    readable, damaged = _lines(samples)
    videos = [sample.video for sample in readable if sample.video]
    lengths = seconds_of(frames, samples.rows["seconds"])[frames > 1]
    edges, counts = histogram(lengths)
    sources = Counter(str(sample.source["url"]) for sample in readable if "url" in sample.source)
    return {
        "samples": len(samples),
        "lost": len(shards.lost_of(name)),
        "unknown": int(np.count_nonzero(frames == 0)),
        "frames": int(known.sum()),
        "frames_per_sample": [int(known.min()), int(known.max())] if len(known) else [0, 0],
        "seconds": record.seconds,
        "lengths": {"edges": edges, "counts": counts},
        "shards": len(record.shards),
        "bytes": sum(shard.bytes for shard in record.shards),
        "images": int(np.count_nonzero(samples.rows["still"])),
        "looked_at": len(readable),
        "damaged_lines": damaged,
        "codecs": _counted(video["codec"] for video in videos),
        "sizes": _counted(f"{video['width']}x{video['height']}" for video in videos),
        "rates": _counted(f"{video['fps']:g}" for video in videos if video["fps"]),
        "labels": {
            label: dict(sorted(Counter(s.labels[label] for s in readable if label in s.labels).items()))
            for label in shards.manifest.label_names
        },
        "metadata": _columns(shards, samples),
        "sources": {"count": len(sources), "first": list(sources)[:3]},
    }


def seconds_of(frames: np.ndarray, last: np.ndarray) -> Float64[np.ndarray, " V"]:
    """Lengths of videos from their number of frames and when the last one is shown: it stays as long as the others."""
    count = frames.astype(np.float64)
    return np.where(count > 1, last * count / np.maximum(1, count - 1), 0.0)


def histogram(lengths: Float64[np.ndarray, " V"]) -> tuple[list[float], list[int]]:
    """Round edges, at most BINS + 1 of them, and how many lengths lie from each to the next; the last one included."""
    if not len(lengths):
        return [], []
    low = float(lengths.min())
    high = float(lengths.max())
    if high - low < 0.02 * high:  # all the same, but for a frame or so
        return [round(low, 2), round(high, 2)], [len(lengths)]
    step = _round_up((high - low) / (BINS - 1))
    first = np.floor(low / step)
    edges: Float64[np.ndarray, " E"] = step * np.arange(first, np.ceil(high / step) + 1)
    counts: Int64[np.ndarray, " N"] = np.histogram(lengths, edges)[0]
    return [round(float(edge), 6) for edge in edges], counts.tolist()


def _round_up(step: float) -> float:
    """The next of 1, 2, 5, 10, 20, …"""
    scale = 10.0 ** np.floor(np.log10(step))
    return float(next(factor * scale for factor in (1, 2, 5, 10) if factor * scale >= step * (1 - 1e-9)))


def evenly(count: int, max_count: int) -> list[int]:
    """At most `most` numbers below `count`, evenly spread."""
    return np.unique(np.linspace(0, max(0, count - 1), min(count, max_count)).round().astype(int)).tolist()


def _lines(samples: Samples) -> tuple[list[Sample], int]:
    """Samples that the indices describe, and how many lines cannot be read."""
    readable: list[Sample] = []
    damaged = 0
    for number in evenly(len(samples), LINES):
        try:
            readable.append(samples[number])
        except DecodeError:
            damaged += 1
    return readable, damaged


def _columns(shards: ShardSet, samples: Samples) -> dict[str, Any]:
    """What metadata.json holds besides labels: in how many of the samples looked at, and an example."""
    columns: dict[str, dict[str, Any]] = {}
    seen = 0
    for number in evenly(len(samples), SEEN):
        try:
            sample = samples[number]
            if METADATA not in sample.members:
                continue
            metadata = read_metadata({METADATA: shards.store.read(sample.shard, *sample.members[METADATA])})
            seen += 1
            for name, value in metadata.items():
                if name != "labels" and value is not None:
                    columns.setdefault(str(name), {"count": 0, "example": value})["count"] += 1
        except DecodeError:
            continue  # `check` names it
    return {"looked_at": seen, "columns": columns}


def _counted(values: Any) -> dict[str, int]:
    return dict(Counter(values).most_common())


# ---- for people ------------------------------------------------------------------------------------------------------


def lines(summary: Mapping[str, Any]) -> list[str]:
    """The summary of one folder, to read."""
    first = f"{summary['folder']}: {summary['world'] or 'video'}"
    if summary["image_size"]:
        first += f", {summary['image_size']} px"
    if summary["fps"]:
        first += f", {summary['fps']:g} frames a second"
    lines = [first]
    if summary["action_size"] or summary["state_names"]:
        width = f"{summary['action_size']} wide"
        if actions := summary["actions"]:
            width += f", {min(actions['low']):.4g} to {max(actions['high']):.4g}"
        lines.append(f"  actions  {width}    state  {len(summary['state_names'])} columns")
    if events := summary.get("events"):
        lines.append(f"  events   {', '.join(events)}")
    lines += [f"  spatial  {from_dict(info, SpatialInfo).text()}" for info in summary.get("spatial", ())]
    if summary["made"]:
        lines.append(f"  made by  {_flat(summary['made'])}")
    for name, split in summary["splits"].items():
        lines += _split_lines(name, split, summary["label_values"])
    return lines + [f"  note: {note}" for note in summary["notes"]]


def _split_lines(name: str, split: Mapping[str, Any], values: Mapping[str, Sequence[str]]) -> list[str]:
    each = " to ".join(str(frames) for frames in sorted(set(split["frames_per_sample"])))
    lines = [
        f"  {name:<8} {split['samples']} samples in {split['shards']} shard(s), {each} frames each, "
        f"{split['seconds'] / 60:.1f} min, {split['bytes'] / 2**20:.1f} MiB"
    ]
    problems = [
        (split["lost"], "lost"),
        (split["unknown"], "without an index"),
        (split["damaged_lines"], "damaged lines"),
    ]
    facts = [
        ("codecs", _listed(split["codecs"])),
        ("sizes", _listed(split["sizes"])),
        ("rates", _listed(split["rates"])),
        ("images", str(split["images"] or "")),
        *zip_longest(["lengths"], _bars(split["lengths"]), fillvalue=""),
        *((label, _classes(counts, values.get(label, ()))) for label, counts in split["labels"].items()),
        ("metadata", _metadata(split["metadata"])),
        ("sources", _sources(split["sources"])),
        ("problems", ", ".join(f"{count} {what}" for count, what in problems if count)),
    ]
    lines += [f"           {fact:<8} {text}" for fact, text in facts if text]
    seen = split["looked_at"]
    if seen + split["damaged_lines"] < split["samples"]:
        lines.append(f"           (codecs, sizes, rates, labels and sources of {seen} samples, evenly spread)")
    return lines


def _bars(lengths: Mapping[str, Sequence[Any]]) -> list[str]:
    counts = lengths["counts"]
    ranges = [f"{low:g} to {high:g} s" for low, high in pairwise(lengths["edges"])]
    if len(counts) == 1:
        low, high = lengths["edges"]
        return [f"all {low:g} s"] if low == high else ranges
    wide = max(map(len, ranges), default=0)
    digits = len(str(max(counts, default=0)))
    bars = ["█" * -(-BAR * count // max(counts)) for count in counts]
    return [f"{r:<{wide}} {n:>{digits}} {bar}".rstrip() for r, n, bar in zip(ranges, counts, bars, strict=True)]


def _listed(counts: Mapping[str, int]) -> str:
    texts = [f"{name} {count}" for name, count in counts.items()]
    if len(texts) > NAMES:
        texts[NAMES:] = [f"and {len(texts) - NAMES} more"]
    return ", ".join(texts)


def _classes(counts: Mapping[Any, int], names: Sequence[str]) -> str:
    """Counts by name of the class, the largest first where there are too many to show."""
    items = list(counts.items())
    if len(items) > NAMES:
        items.sort(key=lambda item: -item[1])
    known = {-1: "none", **dict(enumerate(names))}
    texts = [f"{known.get(int(value), value)}: {count}" for value, count in items]
    if len(texts) > NAMES:
        texts[NAMES:] = [f"and {len(texts) - NAMES} more classes"]
    return "  ".join(texts)


def _metadata(metadata: Mapping[str, Any]) -> str:
    columns = metadata["columns"]
    if not metadata["looked_at"]:
        return ""
    text = "no captions"
    if "caption" in columns:
        text = f"captions in {columns['caption']['count']} of {metadata['looked_at']} looked at"
    if others := [name for name in columns if name != "caption"]:
        text += f"; also {first_few(others, NAMES)}"
    return text


def _sources(sources: Mapping[str, Any]) -> str:
    if not sources["count"]:
        return ""
    return f"{sources['count']} files: {', '.join(sources['first'])}{', …' * (sources['count'] > 3)}"


def _flat(made: Mapping[str, Any]) -> str:
    """`pack, source folder, short_side 256, …`"""
    parts: list[str] = []
    for name, value in made.items():
        if isinstance(value, dict):
            value = "/".join(map(str, value.values()))
        if name == "command":
            parts.insert(0, value)
        elif value is not None:
            parts.append(f"{name} {value}")
    return ", ".join(parts)


def mix(summaries: Sequence[Mapping[str, Any]]) -> list[list[str]]:
    """A row for each of several folders, and what share of all of them it is. The first row is a heading."""
    totals = [
        [sum(s[what] for s in one["splits"].values()) for what in ("samples", "seconds", "bytes")] for one in summaries
    ]
    whole = [max(sum(column), 1e-9) for column in zip(*totals, strict=True)]
    rows = [["folder", "samples", "hours", "MiB", "of the samples", "of the time", "size", "rate", "problems"]]
    for one, (samples, seconds, size) in zip(summaries, totals, strict=True):
        problems = sum(s["lost"] + s["unknown"] + s["damaged_lines"] for s in one["splits"].values())
        rows.append(
            [
                str(one["folder"]),
                str(samples),
                f"{seconds / 3600:.2f}",
                f"{size / 2**20:.1f}",
                f"{samples / whole[0]:.1%}",
                f"{seconds / whole[1]:.1%}",
                f"{one['image_size']} px" if one["image_size"] else "varies",
                f"{one['fps']:g}" if one["fps"] else "varies",
                str(problems or ""),
            ]
        )
    return rows
