"""The files that `jepa embed` writes. All of them open without pickle, and appear only when they are whole.

    x.npz        NAME          latents [S, N, D] of the video NAME, not pooled
                 NAME.seconds  [S]: the time of each latent, that is of the last frame it has seen
    x.parquet    a row a clip: key, start_seconds, steps, vector [D]: the mean of its latents over steps and tokens
    FOLDER       features-000000.tar …, WebDataset: KEY.latents.npy, KEY.seconds.npy (as above, not pooled) and KEY.json
                 ({"name": NAME}); features.json, written last, counts them

`jepa data curate` reads .npz and .parquet. The same latents give the same bytes.
"""

import io
import json
import os
import zipfile
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, Protocol

import numpy as np
from jaxtyping import Float32

from jepa.config import UserError
from jepa_data.sources.corpus import key_of

SHARD_BYTES = 2**30
GROUP = 4096  # rows of a Parquet file that are written at a time
KINDS = ("npz", "parquet", "shards")


@dataclass(frozen=True)
class VideoLatents:
    """The latents of one video.

    Attributes:
        latents: of all its clips, one after the other.
        seconds: time of each.
        steps: latents of each clip.
        step_seconds: time a latent takes.
    """

    name: str
    latents: Float32[np.ndarray, "S N D"]
    seconds: Float32[np.ndarray, " S"]
    steps: tuple[int, ...]
    step_seconds: float


class Writer(Protocol):
    """Takes videos one by one."""

    def add(self, video: VideoLatents) -> None: ...

    def close(self) -> str:
        """Finish; gives what was written, in words."""
        ...

    def discard(self) -> None:
        """Leave nothing of it behind."""
        ...


def open_writer(out: Path, kind: str | None = None) -> Writer:
    """A writer of "npz", "parquet" or "shards"; None: by the ending.

    Raises:
        UserError: an unknown kind or ending, a folder that is not empty, or there is no pyarrow.
    """
    if kind is None:
        kind = {".npz": "npz", ".parquet": "parquet", "": "shards"}.get(out.suffix)
        if kind is None:
            raise UserError(f"--out is {out}; give FILE.npz, FILE.parquet, a FOLDER for shards, or say --format")
    if kind not in KINDS:
        raise UserError(f"--format is {kind}; it is one of {', '.join(KINDS)}")
    if kind == "shards":
        return ShardWriter(out)
    if out.is_dir():
        raise UserError(f"--out is {out}, a folder; {kind} is one file")
    return NpzWriter(out) if kind == "npz" else ParquetWriter(out)


class NpzWriter:
    """A zip of arrays, each written when it comes."""

    def __init__(self, out: Path) -> None:
        self.out, self.partial = out, out.with_name(out.name + ".partial")
        self._zip: zipfile.ZipFile | None = None
        self._about = ""

    def add(self, video: VideoLatents) -> None:
        if self._zip is None:
            self.out.parent.mkdir(parents=True, exist_ok=True)
            self._zip = zipfile.ZipFile(self.partial, "w")
        for name, array in ((video.name, video.latents), (f"{video.name}.seconds", video.seconds)):
            # A ZipInfo of its own has a fixed date; numpy's savez writes the present one.
            with self._zip.open(zipfile.ZipInfo(f"{name}.npy"), "w", force_zip64=True) as file:
                np.lib.format.write_array(file, np.ascontiguousarray(array), allow_pickle=False)
        self._about = _described(video)

    def close(self) -> str:
        assert self._zip is not None, "nothing was added"
        self._zip.close()
        os.replace(self.partial, self.out)
        return self._about

    def discard(self) -> None:
        if self._zip is not None:
            self._zip.close()
        self.partial.unlink(missing_ok=True)


class ParquetWriter:
    """Pooled vectors, a row a clip."""

    def __init__(self, out: Path) -> None:
        try:
            import pyarrow as arrow
            import pyarrow.parquet as parquet
        except ImportError as error:
            raise UserError(
                f"{out}: Parquet is written by pyarrow: pip install 'openjepa[pack]'; or give .npz"
            ) from error
        self._arrow, self._parquet = arrow, parquet
        self.out, self.partial = out, out.with_name(out.name + ".partial")
        self._file: Any = None
        self._rows: dict[str, list[Any]] = {}
        self._count, self._width = 0, 0

    def add(self, video: VideoLatents) -> None:
        if self._file is None:
            self._begin(video.latents.shape[2])
        ends = np.cumsum(video.steps)
        for steps, end in zip(video.steps, ends.tolist(), strict=True):
            first = end - steps
            row = {
                "key": video.name,
                "start_seconds": round(first * video.step_seconds, 6),
                "steps": steps,
                "vector": video.latents[first:end].mean(axis=(0, 1), dtype=np.float64).astype(np.float32),
            }
            for name, value in row.items():
                self._rows[name].append(value)
            self._count += 1
        if len(self._rows["key"]) >= GROUP:
            self._flush()

    def close(self) -> str:
        self._flush()
        self._file.close()
        os.replace(self.partial, self.out)
        return f"a row for each of {self._count} clip(s): the mean [{self._width}] of its latents"

    def discard(self) -> None:
        if self._file is not None:
            self._file.close()
        self.partial.unlink(missing_ok=True)

    def _begin(self, width: int) -> None:
        arrow = self._arrow
        self.out.parent.mkdir(parents=True, exist_ok=True)
        self._width = width
        self._schema = arrow.schema(
            [
                arrow.field("key", arrow.string(), nullable=False),
                arrow.field("start_seconds", arrow.float64(), nullable=False),
                arrow.field("steps", arrow.int32(), nullable=False),
                arrow.field("vector", arrow.list_(arrow.float32(), width), nullable=False),
            ]
        )
        self._file = self._parquet.ParquetWriter(self.partial, self._schema)
        self._rows = {name: [] for name in self._schema.names}

    def _flush(self) -> None:
        if not self._rows["key"]:
            return
        arrow = self._arrow
        vectors = arrow.FixedSizeListArray.from_arrays(
            arrow.array(np.concatenate(self._rows["vector"])), type=self._schema.field("vector").type
        )
        columns = [arrow.array(self._rows[name], self._schema.field(name).type) for name in self._schema.names[:-1]]
        self._file.write_table(arrow.Table.from_arrays([*columns, vectors], schema=self._schema))
        self._rows = {name: [] for name in self._rows}


class ShardWriter:
    """WebDataset tars of arrays."""

    def __init__(self, out: Path) -> None:
        if out.exists() and (not out.is_dir() or any(out.iterdir())):
            raise UserError(f"--out is {out}, which is not an empty folder; shards are written to a new one")
        self.out, self._made = out, not out.exists()
        self._paths, self._counts = list[Path](), list[int]()
        self._file: IO[bytes] | None = None
        self._tar: Any = None
        self._about = ""

    def add(self, video: VideoLatents) -> None:
        tar = self._tar if self._tar is not None and self._tar.tarstream.offset < SHARD_BYTES else self._next()
        members = {
            "__key__": key_of(video.name) if "." in video.name or "/" in video.name else video.name,
            "json": json.dumps(
                {"name": video.name, "clip_steps": video.steps, "step_seconds": video.step_seconds}
            ).encode(),
            "latents.npy": _npy(video.latents),
            "seconds.npy": _npy(video.seconds),
        }
        tar.write(members)
        self._counts[-1] += 1
        self._about = _described(video)

    def close(self) -> str:
        self._end()
        files = [{"file": path.name, "samples": n} for path, n in zip(self._paths, self._counts, strict=True)]
        about = {"format": "openjepa-features", "version": 1, "samples": sum(self._counts), "shards": files}
        (self.out / "features.json").write_text(json.dumps(about, indent=2) + "\n")
        return f"{self._about} in {len(files)} shard(s)"

    def discard(self) -> None:
        self._end()
        for path in self._paths:
            path.unlink(missing_ok=True)
        if self._made and self.out.is_dir():
            self.out.rmdir()

    def _next(self) -> Any:
        from webdataset.writer import TarWriter

        self._end()
        self.out.mkdir(parents=True, exist_ok=True)
        path = self.out / f"features-{len(self._paths):06d}.tar"
        self._paths.append(path)
        self._counts.append(0)
        self._file = path.open("wb")
        self._tar = TarWriter(self._file, user="openjepa", group="openjepa", mtime=0, encoder=False, compress=False)
        return self._tar

    def _end(self) -> None:
        if self._file is not None:
            self._tar.close()
            self._file.close()


def _described(video: VideoLatents) -> str:
    _, tokens, width = video.latents.shape
    return f"latents [steps, {tokens}, {width}] every {video.step_seconds:g} s"


def _npy(array: np.ndarray) -> bytes:
    buffer = io.BytesIO()
    np.save(buffer, np.ascontiguousarray(array), allow_pickle=False)
    return buffer.getvalue()
