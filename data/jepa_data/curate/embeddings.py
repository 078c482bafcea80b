"""Tables of latents that `jepa embed` wrote: one vector for each sample, how alike two are, and clusters of them."""

import zipfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from jaxtyping import Bool, Float, Float32, Int64

from jepa_data.errors import DataError
from jepa_data.sources.parquet import read_parquet

COLUMNS = ("key", "steps", "vector")  # of a .parquet, a row a clip
SECONDS = ".seconds"  # jepa embed writes the times of NAME's latents beside them, as NAME.seconds
CHUNK = 2**24  # similarities in memory at a time
STEPS = 50  # of k-means, at most


@dataclass(frozen=True)
class Embeddings:
    """The mean latent of each sample that is in a table; `there` says which are."""

    path: str
    vectors: Float32[np.ndarray, "N D"]
    there: Bool[np.ndarray, " N"]


def read_embeddings(path: str, keys: Sequence[str]) -> Embeddings:
    """The mean of all latents of each key, from a .npz or .parquet file. Nothing pickled is loaded.

    Raises:
        DataError: no such file, not a table of latents, or none of these keys in it.
    """
    if not Path(path).is_file():
        raise DataError(f"{path}: no such file. Make it: jepa embed SHARDS --model RUN --out {path}")
    read = _read_parquet if Path(path).suffix == ".parquet" else _read_npz
    by_key, count = read(path, keys)
    if not by_key:
        raise DataError(
            f"{path}: holds {count} videos, none of these shards. Make it of them: "
            f"jepa embed SHARDS --model RUN --out {path}"
        )
    widths = {len(vector) for vector in by_key.values()}
    if len(widths) > 1:
        raise DataError(f"{path}: latents of different widths ({', '.join(map(str, sorted(widths)))})")
    vectors = np.zeros((len(keys), widths.pop()), np.float32)
    there = np.array([key in by_key for key in keys], np.bool_)
    vectors[there] = [by_key[key] for key in keys if key in by_key]
    return Embeddings(path, vectors, there)


def directions(vectors: Float32[np.ndarray, "R D"], center: bool) -> Float32[np.ndarray, "R D"]:
    """Vectors of length 1; of length 0 where there is nothing but the mean."""
    if center and len(vectors):
        vectors = vectors - vectors.mean(axis=0, dtype=np.float64).astype(np.float32)
    lengths = np.linalg.norm(vectors, axis=1, keepdims=True)
    return vectors / np.where(lengths > 1e-12, lengths, 1.0)


def max_similar(
    wanted: Float32[np.ndarray, "Q D"], among: Float32[np.ndarray, "K D"]
) -> tuple[Int64[np.ndarray, " Q"], Float32[np.ndarray, " Q"]]:
    """For each direction the most similar of the others, and the cosine; -1 and -1 if there are none."""
    best = np.full(len(wanted), -1, np.int64)
    cosine = np.full(len(wanted), -1.0, np.float32)
    step = max(1, CHUNK // max(1, len(wanted)))
    for first in range(0, len(among), step):
        alike = wanted @ among[first : first + step].T
        nearest = alike.argmax(axis=1)
        here = alike[np.arange(len(wanted)), nearest]
        better = here > cosine
        best[better] = nearest[better] + first
        cosine[better] = here[better]
    return best, cosine


def clusters(x: Float[np.ndarray, "R D"], count: int, seed: int) -> Int64[np.ndarray, " R"]:
    """Lloyd's k-means from k-means++ (D. Arthur, S. Vassilvitskii, 2007): the number of each row's cluster."""
    random = np.random.default_rng(seed)
    centers = x[[int(random.integers(len(x)))]]
    nearest = np.full(len(x), np.inf)
    for _ in range(min(count, len(x)) - 1):
        nearest = np.minimum(nearest, _squared(x, centers[-1:])[:, 0])
        if not nearest.any():
            break  # fewer different rows than clusters
        centers = np.concatenate([centers, x[[int(random.choice(len(x), p=nearest / nearest.sum()))]]])
    members = np.full(len(x), -1)
    for _ in range(STEPS):
        before = members
        members = _nearest(x, centers)
        if np.array_equal(before, members):
            break
        sums = np.zeros(centers.shape)
        sizes = np.bincount(members, minlength=len(centers))
        np.add.at(sums, members, x)
        centers = np.where(sizes[:, None] > 0, sums / np.maximum(1, sizes)[:, None], centers).astype(x.dtype)
    return members


def _nearest(x: np.ndarray, centers: np.ndarray) -> Int64[np.ndarray, " R"]:
    step = max(1, CHUNK // len(centers))
    parts = [_squared(x[i : i + step], centers).argmin(axis=1) for i in range(0, len(x), step)]
    return np.concatenate(parts).astype(np.int64)


def _squared(x: np.ndarray, centers: np.ndarray) -> Float[np.ndarray, "R C"]:
    """Squared distances, in double precision."""
    x = x.astype(np.float64)
    centers = centers.astype(np.float64)
    return np.maximum(0.0, (x**2).sum(axis=1)[:, None] - 2 * x @ centers.T + (centers**2).sum(axis=1))


def _read_npz(path: str, keys: Sequence[str]) -> tuple[dict[str, np.ndarray], int]:
    """Means of the latents [S, N, D] of those keys that are there, and how many videos are."""
    try:
        with np.load(path, allow_pickle=False) as table:
            names = {name for name in table.files if not name.endswith(SECONDS)}
            return {key: _mean(path, key, table[key]) for key in keys if key in names}, len(names)
    except (OSError, ValueError, EOFError, AttributeError, TypeError, zipfile.BadZipFile) as error:
        if isinstance(error, DataError):
            raise
        raise DataError(f"{path}: not a table that `jepa embed` wrote ({error})") from error


def _read_parquet(path: str, keys: Sequence[str]) -> tuple[dict[str, np.ndarray], int]:
    """The same from means of clips, which count by how many latents they are of."""
    table = read_parquet(Path(path), lambda column: column in COLUMNS)
    if missing := [name for name in COLUMNS if name not in table.column_names]:
        raise DataError(f"{path}: not a table that `jepa embed` wrote (no column {missing[0]!r})")
    try:
        names = table["key"].to_pylist()
        steps = np.asarray(table["steps"].to_numpy(), np.float64)
        vectors = np.stack([np.asarray(part, np.float64) for part in table["vector"].to_numpy()])
    except (ValueError, TypeError) as error:
        raise DataError(f"{path}: not a table that `jepa embed` wrote ({error})") from error
    if not (np.isfinite(vectors).all() and (steps > 0).all()):
        raise DataError(f"{path}: it holds vectors that are not finite, or clips of no steps")
    number = {name: i for i, name in enumerate(dict.fromkeys(names))}
    rows = np.array([number[name] for name in names])
    sums = np.zeros((len(number), vectors.shape[1]))
    np.add.at(sums, rows, vectors * steps[:, None])
    means = (sums / np.bincount(rows, steps)[:, None]).astype(np.float32)
    return {key: means[number[key]] for key in keys if key in number}, len(number)


def _mean(path: str, key: str, latents: np.ndarray) -> Float32[np.ndarray, " D"]:
    if latents.dtype.kind != "f" or latents.ndim != 3 or not latents.size or not np.isfinite(latents).all():
        raise DataError(
            f"{path}: {key!r}: expected latents [steps, tokens, width], found {latents.dtype} {latents.shape}"
        )
    return latents.mean(axis=(0, 1), dtype=np.float64).astype(np.float32)
