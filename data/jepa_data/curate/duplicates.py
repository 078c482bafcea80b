"""Which samples show what another one shows. The first comes, and the later ones that are near it go.

Order: test before val before train, then as in the shards. Every sample that is dropped is near one that stays, so
chains of small differences do not pull in what is unlike; and a test sample never goes for a training sample.
"""

from dataclasses import dataclass
from typing import Protocol

import numpy as np
from jaxtyping import Float32, Float64, Int64, UInt64

from jepa_data.curate.config import NearDuplicates
from jepa_data.curate.embeddings import Embeddings, directions, max_similar
from jepa_data.curate.frame_stats import HASHED
from jepa_data.curate.hamming_index import closest, differing_bits
from jepa_data.curate.table import Decision, Drop, Rows, Table, they_stay

PRECEDENCE = ("test", "val", "train")
BLOCK = 256  # rows that are compared all with all
Near = tuple[Int64[np.ndarray, " Q"], Float64[np.ndarray, " Q"]]


class Space(Protocol):
    """How unlike samples are: the less the nearer, and up to `limit` they show the same."""

    @property
    def limit(self) -> float: ...

    def nearest(self, wanted: Rows, among: Rows) -> Near:
        """For each wanted row the place of the nearest of the others (-1 if none is near), and how unlike it is."""
        ...

    def each_other(self, rows: Rows) -> Float64[np.ndarray, "R R"]:
        """How unlike each two of a few rows are."""
        ...


def near_hashes(stage: NearDuplicates, table: Table, rows: Rows) -> Decision:
    """By perceptual hashes: bits of 64 that differ, the mean of four frames."""
    drops = []
    for row, like, value in first_come(_in_order(table, rows), _Hashes(table.hashes, stage.bits)):
        reason = f"{value:g} of 64 bits differ from {_named(table, like)}, at most {stage.bits:g}"
        drops.append(Drop(row, reason, value, stage.bits, like))
    return Decision(tuple(drops), f"hashes within {stage.bits:g} of 64 bits")


def near_embeddings(stage: NearDuplicates, table: Table, rows: Rows, embeddings: Embeddings) -> Decision:
    """By the cosine of mean latents. Samples that are not in the table stay."""
    known = rows[embeddings.there[rows]]
    units = np.zeros(embeddings.vectors.shape, np.float32)
    units[known] = directions(embeddings.vectors[known], stage.center)
    drops = []
    for row, like, value in first_come(_in_order(table, known), _Directions(units, -stage.cosine)):
        reason = f"cosine {-value:.4f} with {_named(table, like)}, at least {stage.cosine:g}"
        drops.append(Drop(row, reason, -value, stage.cosine, like))
    notes = they_stay(len(rows) - len(known), f"are not in {embeddings.path}")
    return Decision(tuple(drops), f"cosine of embeddings from {stage.cosine:g}", notes=notes)


def first_come(order: Rows, space: Space) -> list[tuple[int, int, float]]:
    """Rows that are near an earlier one that stays, with that one and how unlike it is, as they come in `order`.

    The result is that of going through the rows one by one; halves are compared as a whole: the second half is rid of
    what is near the first half's survivors, then looked at by itself.
    """
    duplicates: list[tuple[int, int, float]] = []

    def kept(part: Rows) -> Rows:
        if len(part) <= BLOCK:
            return one_by_one(part)
        half = len(part) // 2
        before = kept(part[:half])
        after = part[half:]
        nearest, unlike = space.nearest(after, before)
        near = nearest >= 0
        duplicates.extend(zip(after[near].tolist(), before[nearest[near]].tolist(), unlike[near].tolist(), strict=True))
        return np.concatenate([before, kept(after[~near])])

    def one_by_one(part: Rows) -> Rows:
        unlike = space.each_other(part)
        near = np.tril(unlike <= space.limit, -1)
        stays = np.ones(len(part), np.bool_)
        for row in np.flatnonzero(near.any(axis=1)).tolist():
            earlier = np.flatnonzero(near[row] & stays)
            if len(earlier):
                like = int(earlier[unlike[row, earlier].argmin()])
                duplicates.append((int(part[row]), int(part[like]), float(unlike[row, like])))
                stays[row] = False
        return part[stays]

    kept(order)
    places = {row: position for position, row in enumerate(order.tolist())}
    return sorted(duplicates, key=lambda each: places[each[0]])


@dataclass(frozen=True)
class _Hashes:
    """Bits of 64 that differ, the mean of four frames."""

    hashes: UInt64[np.ndarray, "N 4"]
    limit: float

    def nearest(self, wanted: Rows, among: Rows) -> Near:
        nearest, bits = closest(self.hashes[wanted], self.hashes[among], int(self.limit * HASHED))
        return nearest, bits / HASHED

    def each_other(self, rows: Rows) -> Float64[np.ndarray, "R R"]:
        hashes = self.hashes[rows]
        return differing_bits(hashes, hashes) / np.float64(HASHED)


@dataclass(frozen=True)
class _Directions:
    """The cosine of two directions, with its sign turned."""

    units: Float32[np.ndarray, "N D"]
    limit: float

    def nearest(self, wanted: Rows, among: Rows) -> Near:
        nearest, cosine = max_similar(self.units[wanted], self.units[among])
        return np.where(-cosine <= self.limit, nearest, -1), -cosine.astype(np.float64)

    def each_other(self, rows: Rows) -> Float64[np.ndarray, "R R"]:
        units = self.units[rows]
        return -(units @ units.T).astype(np.float64)


def _in_order(table: Table, rows: Rows) -> Rows:
    return rows[np.argsort([PRECEDENCE.index(table.splits[row]) for row in rows], kind="stable")]


def _named(table: Table, row: int) -> str:
    return f"{table.splits[row]} {table.keys[row]!r}"
