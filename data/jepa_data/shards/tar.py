"""A tar being written, with its index and hash."""

import hashlib
import io
import math
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from jepa.config.writing import write_text
from jepa_data.actions import ActionSums
from jepa_data.decode.base import VideoIndex
from jepa_data.shards.manifest import BLOCK, ShardRecord, index_line, index_name
from jepa_data.shards.read import crc32


class OpenShard:
    """An open shard to append samples to, with statistics of their arrays."""

    def __init__(self, path: Path) -> None:
        from webdataset.writer import TarWriter  # imports torch, which a light command such as `inspect` does not need

        self.path = path
        self.frames = 0
        self.seconds = 0.0
        self.actions: list[ActionSums] = []
        self.missing_states: Counter[str] = Counter()
        self._lines: list[str] = []
        self._file = _HashedFile(path)
        self._tar = TarWriter(self._file, user="openjepa", group="openjepa", mtime=0, encoder=False, compress=False)

    @property
    def size(self) -> int:
        return self._tar.tarstream.offset

    def write(
        self,
        key: str,
        members: Mapping[str, bytes],
        labels: Mapping[str, int],
        index: VideoIndex,
        source: Mapping[str, Any] | None,
        spatial: Mapping[str, bytes],
    ) -> None:
        """Append a sample. `spatial`: files of aligned arrays; they come last, so that others need not read them."""
        places = {}
        offset = self.size
        for part in (members, spatial):
            for name in sorted(part):  # the order TarWriter stores them in: a header block, then data in whole blocks
                places[name] = [offset + BLOCK, len(part[name])]
                offset += BLOCK + -(-len(part[name]) // BLOCK) * BLOCK
            if part:
                self._tar.write({"__key__": key, **part})
        assert self.size == offset, "webdataset stored the members in another layout"
        record = {"key": key, **index.to_dict(), "members": places, "labels": dict(labels), "crc32": crc32(members)}
        if source:
            record["source"] = dict(source)
        self._lines.append(index_line(record))
        self.frames += index.frames
        self.seconds += index.frames / (index.fps or math.inf)

    def close(self) -> ShardRecord:
        """Close the shard, and return its record."""
        self._tar.close()
        self._file.close()
        write_text(self.path.parent / index_name(self.path.name), "\n".join(self._lines) + "\n")
        return ShardRecord(
            file=self.path.name, bytes=self._file.bytes, sha256=self._file.sha256.hexdigest(), samples=len(self._lines)
        )


class _HashedFile(io.BufferedWriter):
    """A file for writing that computes the hash of its contents."""

    def __init__(self, path: Path) -> None:
        super().__init__(io.FileIO(path, "w"))
        self.sha256 = hashlib.sha256()
        self.bytes = 0

    def write(self, data: Any) -> int:
        self.sha256.update(data)
        self.bytes += memoryview(data).nbytes
        return super().write(data)
