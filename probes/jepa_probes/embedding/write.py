"""The files that `jepa embed` writes. All of them open without pickle, and appear only when they are whole.

    x.npz        NAME          latents [S, N, D] of the file NAME, not pooled
                 NAME.seconds  [S]: the time of each latent, that is of the last frame it has seen
    x.parquet    a row a clip: key, start_seconds, steps, vector [D]: the mean of its latents over steps and tokens
    FOLDER       features-000000.tar …, WebDataset: KEY.latents.npy, KEY.seconds.npy (as above, not pooled) and KEY.json
                 ({"name": NAME}); features.json, written last, counts them

`jepa data curate` reads .npz and .parquet. The same latents give the same bytes. Latents of long videos wait on disk,
beside the output, and not in memory. What was written before something failed is kept under another name.
"""

import io
import json
import os
import shutil
import tarfile
import tempfile
import zipfile
from abc import ABC, abstractmethod
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float32

from jepa.config import UserError
from jepa.config.writing import write_text
from jepa_data.sources.corpus import key_of
from jepa_data.writable import check_writable, holding, holding_file, is_empty

SHARD_BYTES = 2**30
GROUP = 4096  # rows of a Parquet file that are written at a time
IN_MEMORY = 2**26  # bytes of one video's latents; more wait on disk
KINDS = ("npz", "parquet", "shards")


@dataclass(frozen=True)
class EncodedVideo:
    """The latents of one video, computed as they are read.

    Attributes:
        seconds: time of each latent step.
        step_seconds: time a latent takes.
        parts: latents [K, S, N, D] of K clips at a time; together as many steps as `seconds`.
    """

    name: str
    seconds: Float32[np.ndarray, " S"]
    step_seconds: float
    parts: Iterator[Float32[np.ndarray, "K S N D"]]


class Writer(ABC):
    """Takes videos one by one, each whole or not at all.

    Attributes:
        count: videos written.
        failed: the output itself cannot be written any more.
    """

    def __init__(self, out: Path) -> None:
        self.out = out
        self.count, self.failed = 0, False

    def add(self, video: EncodedVideo) -> None:
        """Write the latents of a video. Raises what its parts raise; nothing of it is written then."""
        self._add(video)
        self.count += 1

    @contextmanager
    def writing(self) -> Iterator[None]:
        """Marks what goes wrong within as a fault of the output."""
        try:
            yield
        except BaseException:
            self.failed = True
            raise

    @abstractmethod
    def _add(self, video: EncodedVideo) -> None: ...

    @abstractmethod
    def close(self) -> str:
        """Finish; gives what was written, in words."""
        ...

    @abstractmethod
    def abandon(self) -> Path | None:
        """Finish early: where the videos are that were written whole; None, and nothing is left, if there are none."""
        ...


def kind_of(out: Path, kind: str | None) -> str:
    """What is written to `out`; None: by its ending. Raises UserError for an unknown kind or ending."""
    if kind is None:
        kind = {".npz": "npz", ".parquet": "parquet", "": "shards"}.get(out.suffix)
        if kind is None:
            raise UserError(f"--out is {out}; give FILE.npz, FILE.parquet, a FOLDER for shards, or say --format")
    if kind not in KINDS:
        raise UserError(f"--format is {kind}; it is one of {', '.join(KINDS)}")
    if kind != "shards" and out.is_dir():
        raise UserError(f"--out is {out}, a folder; {kind} is one file")
    return kind


@contextmanager
def writer_of(out: Path, kind: str) -> Iterator[Writer]:
    """A writer of "npz", "parquet" or "shards" to what no other process writes meanwhile.

    Raises:
        UserError: a folder that is not empty, or there is no pyarrow.
        DataError: no permission, or another process writes there.
    """
    made = {"npz": NpzWriter, "parquet": ParquetWriter, "shards": ShardWriter}[kind]
    check_writable(out if kind == "shards" else out.parent)
    with holding(out) if kind == "shards" else holding_file(out):
        yield made(out)


class FileWriter(Writer):
    """Writes one file, under another name until it is whole."""

    def __init__(self, out: Path) -> None:
        super().__init__(out)
        self.partial = out.with_name(out.name + ".partial")

    @abstractmethod
    def _finish(self) -> str:
        """Close the file; gives what was written, in words."""

    def close(self) -> str:
        about = self._finish()
        os.replace(self.partial, self.out)
        return about

    def abandon(self) -> Path | None:
        if self.count and not self.failed:
            self._finish()
            return _kept(self.partial, self.out)
        self.partial.unlink(missing_ok=True)
        return None


class NpzWriter(FileWriter):
    """A zip of arrays, each written when it comes."""

    def __init__(self, out: Path) -> None:
        super().__init__(out)
        self._zip: zipfile.ZipFile | None = None
        self._about = ""

    def _add(self, video: EncodedVideo) -> None:
        with _stored(video, self.out.parent) as (latents, self._about), self.writing():
            if self._zip is None:
                self._zip = zipfile.ZipFile(self.partial, "w")
            for name, array in ((video.name, latents), (f"{video.name}.seconds", _npy(video.seconds))):
                # A ZipInfo of its own has a fixed date; numpy's savez writes the present one.
                with self._zip.open(zipfile.ZipInfo(f"{name}.npy"), "w", force_zip64=True) as file:
                    shutil.copyfileobj(array, file)

    def _finish(self) -> str:
        assert self._zip is not None, "nothing was added"
        self._zip.close()
        return self._about

    def abandon(self) -> Path | None:
        if (not self.count or self.failed) and self._zip is not None and (broken := self._zip.fp) is not None:
            self._zip.fp = None  # without the directory, which would not fit on a full disk
            broken.close()
        return super().abandon()


class ParquetWriter(FileWriter):
    """Pooled vectors, a row a clip."""

    def __init__(self, out: Path) -> None:
        super().__init__(out)
        try:
            import pyarrow.parquet
        except ImportError as error:
            raise UserError(
                "writing Parquet needs pyarrow: pip install 'openjepa[pack]', or give --out FILE.npz"
            ) from error
        self._arrow: Any = pyarrow
        self._file: Any = None
        self._rows: dict[str, list[Any]] = {}
        self._count, self._width = 0, 0

    def _add(self, video: EncodedVideo) -> None:
        rows, first = list[dict[str, Any]](), 0
        for part in video.parts:
            for clip in part:
                vector = clip.mean(axis=(0, 1), dtype=np.float64).astype(np.float32)
                start = round(first * video.step_seconds, 6)
                rows.append({"key": video.name, "start_seconds": start, "steps": len(clip), "vector": vector})
                first += len(clip)
        with self.writing():
            if self._file is None:
                self._open_table(len(rows[0]["vector"]))
            for row in rows:
                for name, value in row.items():
                    self._rows[name].append(value)
            self._count += len(rows)
            if len(self._rows["key"]) >= GROUP:
                self._flush()

    def _finish(self) -> str:
        self._flush()
        self._file.close()
        return f"a row for each of {self._count} clip(s): the mean [{self._width}] of its latents"

    def _open_table(self, width: int) -> None:
        arrow = self._arrow
        self._width = width
        self._schema = arrow.schema(
            [
                arrow.field("key", arrow.string(), nullable=False),
                arrow.field("start_seconds", arrow.float64(), nullable=False),
                arrow.field("steps", arrow.int32(), nullable=False),
                arrow.field("vector", arrow.list_(arrow.float32(), width), nullable=False),
            ]
        )
        self.out.parent.mkdir(parents=True, exist_ok=True)
        self._file = arrow.parquet.ParquetWriter(self.partial, self._schema)
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


class ShardWriter(Writer):
    """WebDataset tars of arrays."""

    def __init__(self, out: Path) -> None:
        super().__init__(out)
        if not is_empty(out):
            raise UserError(f"--out is {out}, which is not an empty folder; shards are written to a new one")
        self._paths, self._counts = list[Path](), list[int]()
        self._tar: tarfile.TarFile | None = None
        self._about = ""

    def _add(self, video: EncodedVideo) -> None:
        clip_steps = list[int]()
        with _stored(video, self.out.parent, clip_steps) as (latents, self._about), self.writing():
            if self._tar is None or self._tar.offset >= SHARD_BYTES:
                self._tar = self._next()
            about = {"name": video.name, "clip_steps": clip_steps, "step_seconds": video.step_seconds}
            key = key_of(video.name) if "." in video.name or "/" in video.name else video.name
            for ending, file in (
                ("json", io.BytesIO(json.dumps(about).encode())),
                ("latents.npy", latents),
                ("seconds.npy", _npy(video.seconds)),
            ):
                member = tarfile.TarInfo(f"{key}.{ending}")
                member.size = file.seek(0, os.SEEK_END)
                member.mode = 0o444
                file.seek(0)
                self._tar.addfile(member, file)
            self._counts[-1] += 1

    def close(self) -> str:
        self._end()
        files = [{"file": path.name, "samples": n} for path, n in zip(self._paths, self._counts, strict=True)]
        about = {"format": "openjepa-features", "version": 1, "samples": sum(self._counts), "shards": files}
        write_text(self.out / "features.json", json.dumps(about, indent=2) + "\n")
        return f"{self._about} in {len(files)} shard(s)"

    def abandon(self) -> Path | None:
        if self.count and not self.failed:
            self._end()
            return self.out
        if self._tar is not None and self._tar.fileobj is not None:
            self._tar.fileobj.close()
        if self._counts and self.count > self._counts[-1]:  # the shards before the last one are whole
            self._paths[-1].unlink(missing_ok=True)
            return self.out
        for path in self._paths:
            path.unlink(missing_ok=True)
        return None

    def _next(self) -> tarfile.TarFile:
        self._end()
        path = self.out / f"features-{len(self._paths):06d}.tar"
        self._paths.append(path)
        self._counts.append(0)
        return tarfile.open(path, "w", format=tarfile.PAX_FORMAT)

    def _end(self) -> None:
        if self._tar is not None:
            self._tar.close()


@contextmanager
def _stored(video: EncodedVideo, baselines: Path, clip_steps: list[int] | None = None) -> Iterator[tuple[Any, str]]:
    """The latents [S, N, D] of a video as a .npy file, read from its beginning, and what they are in words.

    Args:
        baselines: where large ones wait.
        clip_steps: is filled with the steps of each clip.
    """
    baselines.mkdir(parents=True, exist_ok=True)
    with tempfile.SpooledTemporaryFile(IN_MEMORY, dir=str(baselines), prefix=".latents-") as file:
        about = ""
        for part in video.parts:
            if not about:
                tokens, width = part.shape[2:]
                shape = (len(video.seconds), tokens, width)
                np.lib.format.write_array_header_1_0(file, {"descr": "<f4", "fortran_order": False, "shape": shape})
                about = f"latents [steps, {tokens}, {width}] every {video.step_seconds:g} s"
            file.write(np.ascontiguousarray(part, "<f4").tobytes())
            if clip_steps is not None:
                clip_steps += [part.shape[1]] * len(part)
        file.seek(0)
        yield file, about


def _npy(array: np.ndarray) -> io.BytesIO:
    buffer = io.BytesIO()
    np.save(buffer, np.ascontiguousarray(array), allow_pickle=False)
    buffer.seek(0)
    return buffer


def _kept(partial: Path, out: Path) -> Path:
    """A name that can be opened, and cannot be mistaken for the whole."""
    kept = out.with_name(f"{out.stem}.incomplete{out.suffix}")
    number = 2
    while kept.exists():  # of an earlier job that was stopped
        kept = out.with_name(f"{out.stem}.incomplete-{number}{out.suffix}")
        number += 1
    os.replace(partial, kept)
    return kept
