"""Writes samples into shards: tars of about equal size, an index beside each, and the manifest last.

The manifest is what makes a folder readable, and it appears in one step when everything else is in place: a recording
that was interrupted is never mistaken for a whole one. The same samples give the same bytes.
"""

import hashlib
import io
import json
import os
import zlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import numpy as np
from jaxtyping import Float32

from jepa_data.decode.base import VideoIndex
from jepa_data.decode.pyav import PyAVBackend
from jepa_data.errors import DataError
from jepa_data.shards.encode import encode_mp4
from jepa_data.shards.manifest import (
    ACTIONS,
    BLOCK,
    MANIFEST,
    METADATA,
    SPLITS,
    STATES,
    VIDEO,
    Manifest,
    ShardRecord,
    SplitRecord,
    clean_key,
    index_name,
)

__all__ = ["ShardWriter", "encode_mp4"]


class ShardWriter:
    """Samples in, a folder of shards out. Use it as a context manager: leaving it writes the manifest.

    Args:
        out: folder; made if missing. One that holds anything is refused, unless `overwrite`, which removes the shards
            in it first (and nothing else).
        fps, image_size: of the corpus (short side in pixels).
        world: the simulated world it was recorded in; None for other video.
        action_size: A; 0 for video without actions.
        state_names, label_names: columns of `states` [T, X] and keys of `metadata["labels"]`.
        seed: what the corpus was drawn from; stored.
        shard_bytes: a shard that reached this size is closed.
    """

    def __init__(
        self,
        out: Path,
        *,
        fps: int | float,
        image_size: int,
        world: str | None,
        action_size: int,
        state_names: Sequence[str],
        label_names: Sequence[str],
        seed: int,
        shard_bytes: int = 64 * 2**20,
        overwrite: bool = False,
    ) -> None:
        self.out = Path(out)
        self._about = {
            "world": world,
            "fps": float(fps),
            "image_size": image_size,
            "action_size": action_size,
            "state_names": tuple(state_names),
            "label_names": tuple(label_names),
            "seed": seed,
        }
        self._action_size, self._state_size, self._labels = action_size, len(state_names), tuple(label_names)
        self._shard_bytes = shard_bytes
        self._open: dict[str, _Shard] = {}
        self._done: dict[str, list[ShardRecord]] = {}
        self._frames: dict[str, int] = {}
        self._keys: set[str] = set()
        self._backend = PyAVBackend()
        _prepare(self.out, overwrite)

    def write(
        self,
        split: str,
        key: str,
        video_bytes: bytes,
        frames: int,
        actions: Float32[np.ndarray, "P A"] | None,
        states: Float32[np.ndarray, "T X"] | None,
        metadata: Mapping[str, Any],
    ) -> None:
        """Append one sample. `metadata` is JSON-able; `metadata["labels"]` holds an int per label name (-1: none).

        Raises:
            DataError: the parts do not fit each other or the corpus, or the key is taken.
            DecodeError: the video cannot be read.
        """
        key = clean_key(key)
        if split not in SPLITS:
            raise DataError(f"split {split!r} of sample {key!r}: expected one of {', '.join(SPLITS)}")
        if key in self._keys:
            raise DataError(f"there are two samples with the key {key!r}")
        index = self._backend.probe(video_bytes)
        labels = {name: int(value) for name, value in metadata.get("labels", {}).items()}
        self._check(key, frames, index, actions, states, labels)
        members = {VIDEO: video_bytes, METADATA: json.dumps(dict(metadata), sort_keys=True).encode()}
        members |= {name: _npy(x) for name, x in ((ACTIONS, actions), (STATES, states)) if x is not None}
        if split not in self._open:
            number = len(self._done.setdefault(split, []))
            self._open[split] = _Shard(self.out / f"{split}-{number:06d}.tar")
        shard = self._open[split]
        shard.write(key, members, labels, index)
        self._keys.add(key)
        self._frames[split] = self._frames.get(split, 0) + frames
        if shard.size >= self._shard_bytes:
            self._done[split].append(self._open.pop(split).close())

    def close(self) -> Manifest:
        """Finish the open shards and write the manifest."""
        for split in list(self._open):
            self._done[split].append(self._open.pop(split).close())
        splits = {
            split: SplitRecord(
                episodes=sum(shard.samples for shard in self._done[split]),
                frames=self._frames[split],
                shards=tuple(self._done[split]),
            )
            for split in SPLITS
            if split in self._done
        }
        if not splits:
            raise DataError(f"{self.out}: no sample was written, so there is nothing to describe")
        manifest = Manifest(**self._about, splits=splits)
        partial = self.out / (MANIFEST + ".partial")
        partial.write_text(manifest.model_dump_json(indent=2) + "\n")
        os.replace(partial, self.out / MANIFEST)
        return manifest

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if error is None:
            self.close()
            return
        for shard in self._open.values():  # no manifest: the folder stays marked as unfinished
            shard.close()

    def _check(
        self,
        key: str,
        frames: int,
        index: VideoIndex,
        actions: Float32[np.ndarray, "P A"] | None,
        states: Float32[np.ndarray, "T X"] | None,
        labels: Mapping[str, int],
    ) -> None:
        if index.frames != frames:
            raise DataError(f"sample {key!r}: its video has {index.frames} frames, {frames} were announced")
        for name, found, rows, columns in (
            ("actions", actions, frames - 1, self._action_size),
            ("states", states, frames, self._state_size),
        ):
            shape = None if found is None else found.shape
            expected = (rows, columns) if columns else None
            if shape != expected:
                raise DataError(
                    f"sample {key!r}: {name} have the shape {shape}, expected {expected} for {frames} frames"
                )
        if set(labels) != set(self._labels):
            raise DataError(f"sample {key!r}: its labels are {sorted(labels)}, the corpus has {sorted(self._labels)}")


class _Shard:
    """One tar being written, its index, and the hash of what went into it."""

    def __init__(self, path: Path) -> None:
        from webdataset.writer import TarWriter  # imports torch, which a light command such as `inspect` does not need

        self.path, self.samples, self._lines = path, 0, []
        self._file = _HashedFile(path)
        self._tar = TarWriter(self._file, user="openjepa", group="openjepa", mtime=0, encoder=False, compress=False)

    @property
    def size(self) -> int:
        return self._tar.tarstream.offset

    def write(self, key: str, members: Mapping[str, bytes], labels: Mapping[str, int], index: VideoIndex) -> None:
        places, crc, offset = {}, 0, self.size
        for name in sorted(members):  # the order TarWriter stores them in: a header block, then data in whole blocks
            places[name] = [offset + BLOCK, len(members[name])]
            offset += BLOCK + -(-len(members[name]) // BLOCK) * BLOCK
            crc = zlib.crc32(members[name], crc)
        self._tar.write({"__key__": key, **members})
        assert self.size == offset, "webdataset stored the members in another layout"
        record = {"key": key, **index.to_dict(), "members": places, "labels": dict(labels), "crc32": crc}
        self._lines.append(json.dumps(record, separators=(",", ":")))
        self.samples += 1

    def close(self) -> ShardRecord:
        self._tar.close()
        self._file.close()
        (self.path.parent / index_name(self.path.name)).write_text("\n".join(self._lines) + "\n")
        return ShardRecord(
            file=self.path.name, bytes=self._file.bytes, sha256=self._file.sha256.hexdigest(), samples=self.samples
        )


class _HashedFile(io.BufferedWriter):
    """A file for writing that knows the hash of its contents."""

    def __init__(self, path: Path) -> None:
        super().__init__(io.FileIO(path, "w"))
        self.sha256, self.bytes = hashlib.sha256(), 0

    def write(self, data: Any) -> int:
        self.sha256.update(data)
        self.bytes += memoryview(data).nbytes
        return super().write(data)


def _npy(array: np.ndarray) -> bytes:
    buffer = io.BytesIO()
    np.save(buffer, np.ascontiguousarray(array, np.float32), allow_pickle=False)
    return buffer.getvalue()


def _prepare(out: Path, overwrite: bool) -> None:
    if out.exists() and not out.is_dir():
        raise DataError(f"{out}: is a file; shards need a folder")
    out.mkdir(parents=True, exist_ok=True)
    if any(out.iterdir()) and not overwrite:
        raise DataError(f"{out}: is not empty. Choose another folder, or add --overwrite to replace the shards in it")
    (out / MANIFEST).unlink(missing_ok=True)  # first, so that an interruption leaves no manifest without its shards
    for split in SPLITS:
        for pattern in (f"{split}-[0-9]*.tar", f"{split}-[0-9]*.index.jsonl"):
            for path in out.glob(pattern):
                path.unlink()
