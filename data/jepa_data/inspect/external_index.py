"""Samples of a tar that somebody else wrote, from its headers alone: which members there are, and which can be used.

One video or image of a sample is used, `.json` or `.metadata.json`, arrays of actions and states, aligned arrays as
`jepa data record` writes them, and `.cls`. Of two
members with one name the first is used, and the other one is named.
"""

import hashlib
import tarfile
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from jepa_data.errors import DataError, DecodeError
from jepa_data.printable import printable
from jepa_data.shards.manifest import ACTIONS, EVENTS, IMAGES, METADATA, SPATIAL, STATES, VIDEOS, clean_key
from jepa_data.shards.quarantine import Finding
from jepa_data.shards.scan import split_name

Places = dict[str, tuple[int, int]]  # of members: byte offset and bytes
PICKLES = frozenset(("pyd", "pkl", "pickle", "pth", "pt", "ckpt", "joblib", "dill"))
CLASS = "cls"


@dataclass(frozen=True)
class SampleInTar:
    """A sample of a tar: its own name, the key it gets, and where each member that is used lies."""

    tar: Path
    name: str
    key: str
    members: Places


def places(
    tar: Path, taken: set[str], rejected: list[Finding], ignored: Counter[str], notes: list[str]
) -> Iterator[SampleInTar]:
    """The samples of a tar that have one video or image. Raises DataError for pickles."""
    groups, repeated, truncated = _members(tar, ignored)
    if truncated:
        notes.append(f"{tar.name}: damaged or cut short; {len(groups)} samples lie before the damage")
    size = tar.stat().st_size
    for name, members in groups.items():
        media = [m for m in members if m in VIDEOS] or [m for m in members if m in IMAGES]
        key = _free_key(name, tar, taken)
        if len(media) != 1:
            kind = "several videos" if media else "no video"
            rejected.append(Finding(key, tar.name, kind, f"it has {_dotted(members)}"))
            continue
        used = {name: name for name in (media[0], METADATA, ACTIONS, STATES, EVENTS, CLASS, *SPATIAL)}
        if METADATA not in members:
            used["json"] = METADATA
        ignored.update(f".{ending}" for ending in members if ending not in used)
        places = {used[ending]: span for ending, span in members.items() if ending in used}
        if max(offset + length for offset, length in places.values()) > size:
            rejected.append(Finding(key, tar.name, "truncated", "the tar ends inside it. Copy the tar again"))
            continue
        taken.add(key)
        if name in repeated:
            detail = f"it has {_dotted(repeated[name])} again in this tar; the first is used"
            rejected.append(Finding(key, tar.name, "two of one key", detail))
        yield SampleInTar(tar, name, key, places)


def _members(tar: Path, ignored: Counter[str]) -> tuple[dict[str, Places], dict[str, Counter[str]], bool]:
    """Members by name and ending, as WebDataset names them: places, those that come again, whether the tar ends early.

    Raises DataError for pickles, and DecodeError for a tar that cannot be read at all.
    """
    groups: dict[str, Places] = {}
    repeated: dict[str, Counter[str]] = {}
    try:
        with tarfile.open(tar, "r:") as archive:
            for member in archive:
                if member.isdir():
                    continue
                name, ending = split_name(printable(member.name))
                if not member.isfile():
                    ignored["links or devices"] += 1
                    continue
                if not ending or not name or name.endswith("/"):
                    ignored["names without a stem or an ending"] += 1
                    continue
                ending = ending.lower()
                if PICKLES & set(ending.split(".")):
                    raise DataError(
                        f"{tar}: holds {member.name!r}, a pickle, which can run code when it is read. "
                        "Make the tar again without it"
                    )
                group = groups.setdefault(name, {})
                if ending in group:
                    repeated.setdefault(name, Counter())[ending] += 1
                else:
                    group[ending] = (member.offset_data, member.size)
            truncated = tar.stat().st_size < archive.offset
    except DataError:
        raise
    except OSError as error:
        raise DecodeError("unreadable", f"the tar cannot be read ({error.strerror or error})") from error
    except (tarfile.TarError, EOFError, ValueError):
        truncated = True
    return groups, repeated, truncated


def _free_key(name: str, tar: Path, taken: set[str]) -> str:
    """A key of its own for each sample: many tars begin to count at 0 again."""
    for key in (clean_key(name), clean_key(f"{tar.stem}_{name}")):
        if key not in taken:
            return key
    digest = hashlib.sha256(f"{tar.name}/{name}".encode()).hexdigest()[:8]
    return f"{clean_key(name)[:60]}-{digest}"


def _dotted(endings: Mapping[str, Any]) -> str:
    return ", ".join(f".{ending}" for ending in sorted(endings))
