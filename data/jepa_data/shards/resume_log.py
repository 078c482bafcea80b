"""The log that makes interrupted writing resumable: a line for each finished shard.

{"format": ..., "settings": ...}       the settings of the writer
{"split": "train", "record": ...}      a finished shard, with its size and hash
"""

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Literal

from pydantic import Field, ValidationError

from jepa.config import Config
from jepa.config.reading import parse_json
from jepa.config.writing import write_text
from jepa_data.actions import ActionSums
from jepa_data.errors import DataError
from jepa_data.shards.manifest import FORMAT, MANIFEST, SPLITS, UNFINISHED, ShardRecord, index_name
from jepa_data.shards.table import TABLE
from jepa_data.writable import is_empty, make_folder


class Finished(Config):
    """A finished shard, and statistics of its arrays."""

    split: Literal["train", "val", "test"]
    record: ShardRecord
    frames: int
    seconds: float
    actions: ActionSums | None = None
    missing_states: dict[str, int] = Field(default_factory=dict)

    def keys(self, out: Path) -> Iterator[str]:
        """Of its samples."""
        with (out / index_name(self.record.file)).open() as file:
            for line in file:
                yield parse_json(line)["key"]


def prepare(out: Path, settings: Mapping[str, Any], *, overwrite: bool, resume: bool) -> list[Finished]:
    """Prepare a folder for writing, and return its finished shards.

    Raises:
        DataError: the folder contains other files, or shards written with other settings.
    """
    if out.exists() and not out.is_dir():
        raise DataError(f"{out}: is a file; shards need a folder")
    make_folder(out)
    log = out / UNFINISHED
    kept: list[Finished] = []
    if resume and log.exists():
        kept = _read(log, settings)
    elif not is_empty(out) and not overwrite:
        raise DataError(f"{out}: is not empty. Choose another folder, or add --overwrite to replace the shards in it")
    (out / MANIFEST).unlink(missing_ok=True)  # first, so that an interruption leaves no manifest without its shards
    (out / TABLE).unlink(missing_ok=True)
    tars = [one.record.file for one in kept]
    files = {*tars, *map(index_name, tars)}
    for split in SPLITS:
        for path in [*out.glob(f"{split}-[0-9]*.tar"), *out.glob(f"{split}-[0-9]*.index.jsonl")]:
            if path.name not in files:
                path.unlink()
    lines = [json.dumps({"format": FORMAT, "settings": settings}), *(one.model_dump_json() for one in kept)]
    write_text(log, "\n".join(lines) + "\n")
    return kept


def _read(log: Path, settings: Mapping[str, Any]) -> list[Finished]:
    """Finished, complete shards; a truncated line or file ends the list of its split."""
    first, *lines = log.read_text(encoding="utf-8", errors="replace").split("\n")
    before = _settings(first)
    changed = sorted(k for k in {*before, *settings} if before.get(k) != settings.get(k))
    if changed:
        old = json.dumps({k: before.get(k) for k in changed})
        new = json.dumps({k: settings.get(k) for k in changed})
        raise DataError(
            f"{log.parent}: was being written with other settings: {old}, now {new}. "
            "Give the same ones to go on, or --overwrite to begin again"
        )
    kept: list[Finished] = []
    stopped: set[str] = set()
    for line in lines:
        try:
            one = Finished.model_validate_json(line)
        except ValidationError:
            continue  # the line that was being written
        tar = log.parent / one.record.file
        has_index = tar.with_name(index_name(tar.name)).is_file()
        whole = has_index and tar.is_file() and tar.stat().st_size == one.record.bytes
        if whole and one.split not in stopped:
            kept.append(one)
        else:
            stopped.add(one.split)
    return kept


def _settings(line: str) -> dict[str, Any]:
    try:
        return dict(parse_json(line)["settings"])
    except (ValueError, KeyError, TypeError):
        return {}
