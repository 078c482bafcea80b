"""One changed byte, or a cut, in every kind of file: noticed by name, or left out by name, and never a traceback.

Each try has one of these outcomes:

noticed     one line of error, or a note or a sample left out that names the file or the sample
the same    what is read is what was written: the change is in what nobody reads, or in spaces
another     what is read differs, and nothing said so: a text file with another valid value, such as 31 for 30
traceback   an error that nobody foresaw
"""

import hashlib
import logging
import random
import shutil
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

import jepa
from jepa.config import UserError, from_dict, load
from jepa.training.config import PretrainConfig
from jepa.training.run_state.checkpoints import FOLDER, newest_whole
from jepa.training.run_state.metrics_log import read_rows
from jepa.training.run_state.resume import resumption
from jepa_data.config import StreamConfig
from jepa_data.errors import DataError
from jepa_data.shards.index import ShardSet
from jepa_data.stream.latents import Latents
from jepa_data.stream.loader import make_loader
from tests.reliability.counts import Counts
from tests.reliability.processes import Child, command, tell
from tests.reliability.tiny import corpus, describe, succeed, write_config

Read = Callable[[], Any]


class NoticedError(Exception):
    """What was read says itself that something is wrong."""


def run(folder: Path, count: int) -> Counts:
    """So many flips and so many cuts of each kind of file."""
    counts = Counts()
    shards = corpus(folder, episodes=12)
    model = folder / "run"
    succeed(command("pretrain", write_config(folder / "c.yaml", describe(model, shards))))
    succeed(command("data", "tokenize", shards, folder / "latents", "--model", model))
    child = Child(lambda: _all(folder, shards, model, count))
    while (line := child.line()) is not None:
        file, how, outcome, detail = line.split("|", 3)
        counts.add(f"{file}, {how}: {outcome}")
        counts.check("no traceback", outcome != "traceback", f"{file}, {how}: {detail}")
        if file in CHECKED:
            counts.check("files with checksums: no other content is used", outcome != "another", f"{file}, {how}")
    ended = child.wait()
    counts.check("the process ends well", ended.code == 0, ended.errors[-1000:])
    return counts


# Those with checksums, of their bytes or of their content.
CHECKED = (
    "checkpoint",
    "model.safetensors",
    "model.json",
    "shard",
    "manifest of the shards",
    "latents",
    "manifest of latents",
    "index of a shard",
    "pretrain.json",
    "config.yaml of another command",
)


def _all(folder: Path, shards: Path, model: Path, count: int) -> None:
    warnings.simplefilter("ignore")
    tar = ShardSet.open(shards).samples[0].shard
    config = from_dict(describe(model, shards), PretrainConfig)
    last = model / FOLDER / "last.ckpt"
    stem = tar.removesuffix(".tar")
    latents = folder / "latents"
    kinds: dict[str, tuple[Path, Read]] = {
        "checkpoint": (last, lambda: _checkpoint(model)),
        "model.safetensors": (model / "model" / "model.safetensors", lambda: _model(model)),
        "model.json": (model / "model" / "model.json", lambda: _model(model)),
        "config.yaml": (model / "config.yaml", lambda: _resumed(config)),
        "config.yaml of another command": (model / "config.yaml", lambda: _config(model / "config.yaml")),
        "metrics.csv": (model / "logs" / "metrics.csv", lambda: _rows(model)),
        "pretrain.json": (model / "pretrain.json", lambda: _figures(model)),
        "shard": (shards / tar, lambda: _epoch(shards)),
        "shard without an index": (shards / tar, lambda: _epoch(shards)),
        "index of a shard": (shards / f"{stem}.index.jsonl", lambda: _epoch(shards)),
        "table of the shards": (shards / "index.npy", lambda: _epoch(shards)),
        "manifest of the shards": (shards / "manifest.json", lambda: _epoch(shards)),
        "latents": (latents / f"{stem}.safetensors", lambda: _latents(latents, shards)),
        "manifest of latents": (latents / "latents.json", lambda: _latents(latents, shards)),
    }
    for name, (path, read) in kinds.items():
        hidden = shards / f"{stem}.index.jsonl"
        if name == "shard without an index":
            hidden.rename(folder / "hidden")
        try:
            _harm(name, path, read, count)
        finally:
            if name == "shard without an index":
                (folder / "hidden").rename(hidden)


def _harm(name: str, path: Path, read: Read, count: int) -> None:
    """Change the file in each way so often; what comes of reading it."""
    sound = path.read_bytes()
    expected = _outcome(read)[1]
    draw = random.Random(0)
    for number in range(count):
        data = bytearray(sound)
        data[draw.randrange(len(data))] ^= 1 << draw.randrange(8)
        _try(name, "a flipped bit", path, bytes(data), read, expected)
        place = draw.randrange(len(sound)) if number else 0
        _try(name, "cut off", path, sound[:place], read, expected)
    _replace(path, sound)


def _try(name: str, how: str, path: Path, data: bytes, read: Read, expected: Any) -> None:
    _replace(path, data)
    outcome, found = _outcome(read)
    if outcome == "read":
        outcome = "the same" if found == expected else "another"
    tell(f"{name}|{how}|{outcome}|{found if outcome == 'traceback' else ''}")


def _replace(path: Path, data: bytes) -> None:
    """By a new file: the old one may be another's too, or be mapped into memory."""
    partial = path.with_name("harmed")
    partial.write_bytes(data)
    shutil.move(partial, path)


def _outcome(read: Read) -> tuple[str, Any]:
    try:
        return "read", read()
    except NoticedError as error:
        return "noticed", str(error)
    except UserError as error:
        text = str(error)
        return ("noticed", text) if "\n" not in text.strip() or "yaml" in text else ("traceback", f"lines: {text!r}")
    except OSError as error:
        return "traceback", repr(error)
    except Exception as error:  # noqa: BLE001  it is what is looked for
        return "traceback", repr(error).replace("\n", " ")[:300]


def _checkpoint(run: Path) -> str:
    _, checkpoint, why = newest_whole(run / FOLDER)
    if why:
        raise NoticedError(why)
    return _digest({name: x.numpy() for name, x in checkpoint["state_dict"].items()})


def _model(run: Path) -> str:
    model = jepa.load(run)
    arrays = {name: x.numpy() for name, x in model.state_dict().items()}
    return _digest(arrays) + repr((model.spec, model.preprocessing))


def _resumed(config: PretrainConfig) -> str:
    """As `--resume` compares it: what may change is said."""
    start = resumption(config)
    if start.notes:
        raise NoticedError(" ".join(start.notes))
    return str(start.step)


def _config(path: Path) -> PretrainConfig:
    with told_by("jepa.config") as warnings:
        config = load(path, PretrainConfig)
    if warnings:
        raise NoticedError(" ".join(warnings))
    return config


@contextmanager
def told_by(name: str) -> Iterator[list[str]]:
    """What a logger warns of meanwhile."""
    told = list[str]()
    handler = logging.Handler(logging.WARNING)
    handler.emit = lambda record: told.append(record.getMessage())
    logger = logging.getLogger(name)
    logger.addHandler(handler)
    try:
        yield told
    finally:
        logger.removeHandler(handler)


def _rows(run: Path) -> str:
    return repr(read_rows(run / "logs" / "metrics.csv"))


def _figures(run: Path) -> str:
    from jepa.training.result import PretrainResult

    return PretrainResult.read(run).model_dump_json()


def _epoch(shards: Path) -> str:
    """All batches of an epoch, with everything in them."""
    config = {"shards": str(shards), "batch_size": 1, "clip_frames": 8, "max_bad_fraction": 1.0, "short": "skip"}
    loader = make_loader(StreamConfig.model_validate(config), "train", seed=0, shuffle=False)
    lines = [repr((loader.shards.manifest.state_names, loader.shards.manifest.fps))]
    for batch in loader:
        arrays = {"video": batch.video.numpy(), "start": batch.start_seconds.numpy()}
        arrays |= {name: labels.numpy() for name, labels in batch.labels.items()}
        arrays |= {} if batch.actions is None else {"actions": batch.actions.numpy()}
        arrays |= {} if batch.states is None else {"states": batch.states.numpy()}
        lines.append(f"{batch.keys} {_digest(arrays)}")
    if loader.bad or loader.stats.lost:
        raise NoticedError(f"{list(loader.bad)}, {loader.stats.lost} lost")
    if loader.notes and "its index is missing" not in " ".join(loader.notes):
        raise NoticedError("; ".join(loader.notes))
    return "\n".join(lines)


def _latents(folder: Path, shards: Path) -> str:
    opened = ShardSet.open(shards)
    latents = Latents.open(folder, opened.manifest)
    arrays = {}
    for sample in opened.samples:
        try:
            arrays[sample.key] = latents.rows(sample.shard, sample.key, np.arange(8))
        except DataError as error:
            raise NoticedError(str(error)) from error
    return _digest(arrays) + latents.about.model_dump_json()


def _digest(arrays: dict[str, Any]) -> str:
    digest = hashlib.sha256()
    for name, array in sorted(arrays.items()):
        digest.update(f"{name} {array.dtype} {array.shape}".encode() + np.ascontiguousarray(array).tobytes())
    return digest.hexdigest()
