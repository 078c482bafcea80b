"""Which hashes differ in few bits, without comparing all pairs: multi-index hashing.

M. Norouzi, A. Punjani, D. Fleet, "Fast Exact Search in Hamming Space with Multi-Index Hashing" (2014). Two hashes of
m bands of 16 bits that differ in at most r = m q + a bits agree, up to q bits, in one of the first a + 1 bands, or, up
to q - 1 bits, in one of the others:

    bands      0110..  1011..  0001..  1110..     m = 16, r = 24: q = 1, a = 8
    looked up  <= 1 bit in bands 0 to 8, 0 bits in bands 9 to 15: 9 x 17 + 7 places instead of all hashes

Not faiss: its exact binary indexes took 11 times as long or more for 100,000 hashes, and on macOS the OpenMP it brings
can crash a process that has torch's.
"""

from collections.abc import Iterator
from itertools import combinations

import numpy as np
from jaxtyping import Int64, UInt16, UInt64

BAND_BITS = 16
PAIRS = 2**21  # compared at a time
FEW = 2**20  # pairs; below it, comparing all of them is quicker

Hashes = UInt64[np.ndarray, "_ W"]


def closest(wanted: Hashes, among: Hashes, radius: int) -> tuple[Int64[np.ndarray, " Q"], Int64[np.ndarray, " Q"]]:
    """For each wanted hash the nearest of the others, the first of equally near ones, if it is near enough.

    Args:
        radius: bits that may differ, of all 64 W.

    Returns:
        Its number, -1 if there is none, and the bits that differ.
    """
    # Bits and number in one integer, so that the least is the nearest, and of those the first.
    if len(wanted) * len(among) <= FEW:
        bits = differing_bits(wanted, among).astype(np.int64)
        best = (bits << 40 | np.arange(len(among))).min(axis=1, initial=_NONE)
        best[best >> 40 > radius] = _NONE
    else:
        best = np.full(len(wanted), _NONE)
        for left, right in _candidates(wanted, among, radius):
            bits = np.zeros(len(left), np.int64)
            for word, other in zip(wanted.T, among.T, strict=True):
                bits += np.bitwise_count(word[left] ^ other[right])
            near = bits <= radius
            np.minimum.at(best, left[near], bits[near] << 40 | right[near])
    has_match = best != _NONE
    return np.where(has_match, best & (1 << 40) - 1, -1), np.where(has_match, best >> 40, 0)


def differing_bits(wanted: Hashes, among: Hashes) -> UInt16[np.ndarray, "Q K"]:
    """Between each of the wanted and each of the others."""
    bits = np.zeros((len(wanted), len(among)), np.uint16)
    for word, other in zip(wanted.T, among.T, strict=True):
        bits += np.bitwise_count(word[:, None] ^ other)
    return bits


_NONE = np.iinfo(np.int64).max
Pairs = Iterator[tuple[Int64[np.ndarray, " P"], Int64[np.ndarray, " P"]]]


def _candidates(wanted: Hashes, among: Hashes, radius: int) -> Pairs:
    """Pairs with a band in common; every pair within the radius is among them at least once."""
    bands = wanted.shape[1] * 64 // BAND_BITS
    whole, left_over = divmod(radius, bands)
    for band in range(bands if whole else left_over + 1):
        places = _bands(among)[:, band]
        order = np.argsort(places, kind="stable")
        ordered = places[order]
        for mask in _masks(whole - (band > left_over)):
            bucket = _bands(wanted)[:, band] ^ mask
            starts = np.searchsorted(ordered, bucket, side="left")
            ends = np.searchsorted(ordered, bucket, side="right")
            yield from _joined(starts, ends, order)


def _bands(hashes: Hashes) -> UInt16[np.ndarray, "_ B"]:
    return np.ascontiguousarray(hashes).view(np.uint16)


def _masks(bits: int) -> Iterator[np.uint16]:
    """All changes of at most so many bits of a band."""
    for count in range(bits + 1):
        for chosen in combinations(range(BAND_BITS), count):
            yield np.uint16(sum(1 << bit for bit in chosen))


def _joined(starts: np.ndarray, ends: np.ndarray, order: np.ndarray) -> Pairs:
    """Every query with every member of its bucket order[start:end], at most PAIRS at a time, or one whole bucket."""
    queries = np.flatnonzero(ends > starts)
    sizes = (ends - starts)[queries]
    before = np.concatenate([[0], np.cumsum(sizes)])
    first = 0
    while first < len(queries):
        last = max(first + 1, int(np.searchsorted(before, before[first] + PAIRS, side="right")) - 1)
        part = slice(first, last)
        count = sizes[part]
        within = np.arange(count.sum()) - np.repeat(np.cumsum(count) - count, count)
        yield np.repeat(queries[part], count), order[np.repeat(starts[queries[part]], count) + within]
        first = last
