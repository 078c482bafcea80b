"""The stages: pure functions from the table of measurements to what is dropped, and why.

`rows` are the samples that earlier stages left. The same table gives the same decisions, whatever measured it.
"""

import hashlib
from collections import Counter, defaultdict
from collections.abc import Mapping
from typing import Any

import numpy as np
from jaxtyping import Float64, Int64

from jepa_data.curate.config import Balance, Blurred, Dark, Denoise, NearDuplicates, Resample, Stage, Static, TooShort
from jepa_data.curate.duplicates import near_embeddings, near_hashes
from jepa_data.curate.embeddings import Embeddings, clusters, directions
from jepa_data.curate.measure import Problem
from jepa_data.curate.table import Decision, Drop, Rows, Table, they_stay
from jepa_data.errors import DataError

NEAREST = 64  # of those that stay, whose values are kept for examples
RATE_SLACK = 1e-3  # relative: 29.97 and 30000/1001 are one rate


def decide(stage: Stage | None, table: Table, rows: Rows, embeddings: Mapping[str, Embeddings]) -> Decision:
    """What a stage drops of `rows`; None: what cannot be read. `embeddings`: the tables that stages name, by path."""
    match stage:
        case None:
            return unreadable(table, rows)
        case TooShort():
            return too_short(stage, table, rows)
        case Static():
            moving = rows[~table.still[rows]]
            return _below(table.motion, moving, stage.min_motion, "motion", "gray levels")
        case Dark():
            return _below(table.brightness, rows, stage.min_brightness, "brightness", "gray levels")
        case Blurred():
            return _below(table.sharpness, rows, stage.min_sharpness, "sharpness", "gray levels squared")
        case NearDuplicates(embeddings=None):
            return near_hashes(stage, table, rows)
        case NearDuplicates(embeddings=str(path)):
            return near_embeddings(stage, table, rows, embeddings[path])
        case Balance():
            return balance(stage, table, rows, embeddings)
        case Resample():
            return resample(table, rows)
        case Denoise():
            return Decision((), f"nothing: {stage.method} of strength {stage.strength:g} on what stays")
    raise AssertionError(stage)


def unreadable(table: Table, rows: Rows) -> Decision:
    """What cannot be read at all; comes before all stages."""
    return Decision(_named(table.problems, rows), "cannot be read")


def too_short(stage: TooShort, table: Table, rows: Rows) -> Decision:
    """Shorter in seconds, or in frames."""
    videos = rows[~table.still[rows]]
    seconds = _below(table.seconds, videos, stage.min_seconds, "length", "s")
    gone = {drop.row for drop in seconds.drops}
    left = videos[[row not in gone for row in videos.tolist()]]
    frames = _below(table.frames.astype(np.float64), left, float(stage.min_frames), "length", "frames")
    if stage.min_frames == 1:
        return seconds
    if not stage.min_seconds:
        return frames
    drops = sorted((*seconds.drops, *frames.drops), key=lambda drop: drop.row)
    return Decision(tuple(drops), f"{seconds.rule}, or below {stage.min_frames} frames", seconds.values)


def balance(stage: Balance, table: Table, rows: Rows, embeddings: Mapping[str, Embeddings]) -> Decision:
    """The same number of each group at most, split by split."""
    if stage.label is not None:
        what = stage.label
        left_out = "have none"
        groups = table.labels[stage.label][rows]
    else:
        assert stage.embeddings is not None
        what = "cluster"
        left_out = f"are not in {stage.embeddings}"
        groups = _clustered(stage, rows, embeddings[stage.embeddings])

    def lot(row: int) -> bytes:  # random, and of the sample alone: others do not change who stays before whom
        return hashlib.sha256(f"balance:{stage.seed}:{table.keys[row]}".encode()).digest()

    members: dict[tuple[str, int], list[int]] = defaultdict(list)
    for row, group in zip(rows.tolist(), groups.tolist(), strict=True):
        if table.splits[row] in stage.splits:
            members[table.splits[row], group].append(row)
    drops = []
    free = 0
    for (split, group), group_rows in members.items():
        if group < 0:
            free += len(group_rows)
            continue
        drawn = sorted(group_rows, key=lot)
        reason = f"{what} {group} has {len(group_rows)} in {split}, at most {stage.max_samples} stay"
        drops += [Drop(row, reason) for row in drawn[stage.max_samples :]]
    rule = f"at most {stage.max_samples} of each {what} in {', '.join(stage.splits)}"
    notes = they_stay(free, f"{left_out} ({what})")
    return Decision(tuple(sorted(drops, key=lambda drop: drop.row)), rule, notes=notes)


def _clustered(stage: Balance, rows: Rows, known: Embeddings) -> Int64[np.ndarray, " R"]:
    """The cluster of each row; -1 where it is in no table."""
    groups = np.full(len(rows), -1)
    there = known.there[rows]
    if there.any():
        groups[there] = clusters(directions(known.vectors[rows[there]], center=False), stage.clusters, stage.seed)
    return groups


def resample(table: Table, rows: Rows) -> Decision:
    """What cannot be brought to the frames' clock, or is unlike the rest: shards have one width, and one rate."""
    drops = list(_named(table.not_resampled, rows))
    left = [row for row in rows.tolist() if row not in table.not_resampled]
    usual = _most_common([tuple(table.widths[row].tolist()) for row in left])
    for row in left:
        if (widths := tuple(table.widths[row].tolist())) != usual:
            drops.append(
                Drop(row, f"its actions and states have the widths {widths}, those of most samples are {usual}")
            )
    left = [row for row in left if tuple(table.widths[row].tolist()) == usual]
    if usual is not None and usual[0]:
        rate = common_rate(table, np.array(left, np.int64))
        for row in left:
            if abs(table.rate[row] - rate) > RATE_SLACK * rate:
                drops.append(
                    Drop(row, f"{table.rate[row]:g} frames a second, most have {rate:g}; actions need one rate")
                )
    return Decision(tuple(sorted(drops, key=lambda drop: drop.row)), "actions and states at the times of frames")


def common_rate(table: Table, rows: Rows) -> float:
    """Frames a second of most of the samples."""
    rounded = _most_common([float(f"{table.rate[row]:.3g}") for row in rows.tolist()])
    near = [table.rate[row] for row in rows.tolist() if float(f"{table.rate[row]:.3g}") == rounded]
    return float(_most_common(near) or 0.0)


def check(stages: tuple[Stage, ...], label_names: tuple[str, ...]) -> None:
    """Raises DataError for a stage that needs a label that the corpus does not have. Before the long work."""
    for number, stage in enumerate(stages):
        if isinstance(stage, Balance) and stage.label is not None and stage.label not in label_names:
            there = f"They have: {', '.join(label_names)}" if label_names else "They have no labels"
            raise DataError(f"stages.{number}.label: the shards have no label {stage.label!r}. {there}")


def _below(values: Float64[np.ndarray, " N"], rows: Rows, threshold: float, what: str, unit: str) -> Decision:
    low = values[rows] < threshold
    drops = tuple(
        Drop(row, f"{what} {values[row]:.4g} {unit}, at least {threshold:g}", float(values[row]), threshold)
        for row in rows[low].tolist()
    )
    kept = rows[~low]
    nearest = kept[np.argsort(values[kept], kind="stable")[:NEAREST]]
    stays = {row: float(values[row]) for row in nearest.tolist()}
    return Decision(drops, f"{what} below {threshold:g} {unit}", stays)


def _named(problems: Mapping[int, Problem], rows: Rows) -> tuple[Drop, ...]:
    there = set(rows.tolist())
    return tuple(Drop(row, f"{kind}: {detail}") for row, (kind, detail) in sorted(problems.items()) if row in there)


def _most_common(values: list[Any]) -> Any:
    """The most frequent, the first of equally frequent ones; None of nothing."""
    return next((value for value, _ in Counter(values).most_common(1)), None)
