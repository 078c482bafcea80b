"""Find the samples of a tar by its headers, if the index of a shard is missing."""

import tarfile
from pathlib import Path

from jepa_data.errors import DataError
from jepa_data.shards.manifest import MEDIA, MEMBERS, Sample, checked_members, clean_key


def scan_tar(tar: Path, shard: str, split: str) -> list[Sample]:
    """Samples of a shard in file order; stops at the first damaged header. Reads no data.

    Args:
        tar: the file; `shard` is its name in the manifest.

    Raises:
        DataError: a member of an unknown kind, or two of one name.
    """
    samples: dict[str, dict[str, tuple[int, int]]] = {}
    for name, span in _files(tar):
        stem, ending = split_name(name)
        members = samples.setdefault(clean_key(stem), {})
        if ending in members:
            raise DataError(f"{shard}: has two members for .{ending} of one sample: {name!r}. Name samples apart")
        members[ending] = span
    for key, members in samples.items():
        if set(members) & set(MEDIA) or set(members) - set(MEMBERS):
            checked_members(shard, key, set(members))
    return [Sample(k, split, shard, m, 0, None, {}, None, {}) for k, m in samples.items() if set(m) & set(MEDIA)]


def split_name(name: str) -> tuple[str, str]:
    """Key and suffix of a member, split as in WebDataset: `a.b/c.d.jpg` is `d.jpg` of `a.b/c`."""
    folder, _, file = name.rpartition("/")
    stem, _, ending = file.partition(".")
    return f"{folder}/{stem}".removeprefix("/"), ending


def _files(tar: Path) -> list[tuple[str, tuple[int, int]]]:
    """Name, byte offset and size of regular files, up to the first damaged header."""
    files: list[tuple[str, tuple[int, int]]] = []
    end = 0
    try:
        # "r:" refuses compression: members of a compressed tar have no byte offset.
        with tarfile.open(tar, "r:") as archive:
            for member in archive:
                # A negative size would lead back to headers that were read, without end.
                if member.size < 0 or member.offset < end:
                    break
                end = member.offset_data
                if member.isreg() and not member.issparse():  # the bytes of a sparse one are not those of its file
                    files.append((member.name, (member.offset_data, member.size)))
    except (tarfile.TarError, EOFError, OSError, ValueError):
        pass  # the caller compares their number with the manifest
    return files
