"""Samples that are damaged, and shards that are cut off: counted and named, and the others keep their places."""

import logging
import random
import re
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from jepa_data.config import StreamConfig
from jepa_data.errors import DataError
from jepa_data.shards.index import ShardSet
from jepa_data.shards.manifest import Sample
from jepa_data.stream.loader import make_loader
from tests.reliability.counts import Counts
from tests.reliability.processes import command
from tests.reliability.tiny import describe, numbered_shards, write_config

SAMPLES = 1000
SHARES = (0.001, 0.01, 0.1)
Damage = Callable[[bytearray, random.Random], bytearray]


def flip(data: bytearray, draw: random.Random) -> bytearray:
    """One bit."""
    data[draw.randrange(len(data))] ^= 1 << draw.randrange(8)
    return data


def cut(data: bytearray, draw: random.Random) -> bytearray:
    """What follows some place was never written."""
    place = draw.randrange(1, len(data))
    return data[:place] + bytes(len(data) - place)


def nothing(data: bytearray, draw: random.Random) -> bytearray:
    """Zeros throughout."""
    return bytearray(len(data))


HARMS: dict[str, Damage] = {"a flipped bit": flip, "a video cut off": cut, "a video of zeros": nothing}


def run(folder: Path, count: int) -> Counts:
    """Shards of `count` samples, of which these shares are damaged after they were written."""
    counts = Counts()
    sound = numbered_shards(folder / "sound", count)
    for share in SHARES:
        damaged = folder / f"damaged-{share}"
        shutil.copytree(sound, damaged)
        harmed = _harm(damaged, max(1, round(share * count)))
        counts.tries |= {f"samples damaged, {share:.1%}": len(harmed)}
        _stream(sound, damaged, harmed, f"{share:.1%}", counts)
        _train(folder, damaged, harmed, counts)
    _all_damaged(folder, sound, counts)
    return counts


def _harm(shards: Path, number: int, seed: int = 0) -> set[str]:
    """Damage the videos of so many samples, in all ways by turns; their keys."""
    draw = random.Random(seed)
    harmed = set()
    samples = ShardSet.open(shards).samples
    for turn, at in enumerate(draw.sample(range(len(samples)), number)):
        sample = samples[at]
        way = list(HARMS)[turn % len(HARMS)]
        _change(shards / sample.shard, sample, lambda data, way=way: HARMS[way](data, draw))
        harmed.add(sample.key)
    return harmed


def _change(tar: Path, sample: Sample, change: Callable[[bytearray], bytearray]) -> None:
    offset, size = sample.members[sample.media]
    with tar.open("r+b") as file:
        file.seek(offset)
        data = change(bytearray(file.read(size)))
        file.seek(offset)
        file.write(data)


def _loader(shards: Path, **settings: Any) -> Any:
    config = {"shards": str(shards), "batch_size": 20, "clip_frames": 8, "max_bad_fraction": 0.5} | settings
    return make_loader(StreamConfig.model_validate(config), "train", seed=0)


def _stream(sound: Path, damaged: Path, harmed: set[str], share: str, counts: Counts) -> None:
    """An epoch in which every sample has its place: the damaged ones are bad, and all others where they were."""
    expected = [key for batch in _loader(sound) for key in batch.keys]
    loader = _loader(damaged)
    keys = [key for batch in loader for key in batch.keys]
    counts.check("an epoch counts and names exactly the damaged ones", set(loader.bad) == harmed, share)
    same = len(keys) == len(expected) and all(a == b for a, b in zip(expected, keys, strict=True) if a not in harmed)
    counts.check("the order of the others stays", same and not harmed.intersection(keys), share)


def _train(folder: Path, damaged: Path, harmed: set[str], counts: Counts) -> None:
    """An epoch of the command, which names them in its quarantine file."""
    out, quarantine = folder / f"run-{damaged.name}", folder / f"{damaged.name}.jsonl"
    config = describe(out, damaged, trainer__steps=SAMPLES // 20, trainer__checkpoint_every=1000)
    config["data"] |= {"batch_size": 20, "max_bad_fraction": 0.5, "quarantine": str(quarantine)}
    ended = command("pretrain", write_config(folder / f"{damaged.name}.yaml", config))
    named = quarantine.read_text() if quarantine.exists() else ""
    fits = not ended.code and all(f'"key": "{key}"' in named for key in harmed) and named.count("\n") == len(harmed)
    counts.check(
        "a training over them ends well and names them in its file", fits, f"{damaged.name}: {ended.last_line}"
    )


def _all_damaged(folder: Path, sound: Path, counts: Counts) -> None:
    """Nothing is left: one line, with the name of a shard, whatever share of bad samples is allowed."""
    ruined = folder / "ruined"
    shutil.copytree(sound, ruined)
    _harm(ruined, len(ShardSet.open(ruined).samples))
    for allowed in (0.0, 0.01, 1.0):
        out = folder / f"ruined-{allowed}"
        config = describe(out, ruined)
        config["data"]["max_bad_fraction"] = allowed
        ended = command("pretrain", write_config(folder / "ruined.yaml", config))
        fits = ended.is_refused and re.search(r"train-\d+\.tar", ended.errors) is not None
        counts.check("100 % damaged: one line that names a shard", fits, f"allowed {allowed}: {ended.errors[-400:]}")


# ---- shards that are cut off -----------------------------------------------------------------------------------------


def cuts(folder: Path, count: int) -> Counts:
    """One of two shards is cut off at so many random places: every sample before the cut is delivered, in order."""
    counts = Counts()
    shards = numbered_shards(folder / "shards", 40, shard_bytes=2**17)
    samples = list(ShardSet.open(shards).samples)
    tar = shards / samples[0].shard
    inside = [sample for sample in samples if sample.shard == tar.name]
    draw = random.Random(0)
    for place in sorted(draw.sample(range(tar.stat().st_size), count), reverse=True):
        with tar.open("r+b") as file:
            file.truncate(place)
        survivors = [sample.key for sample in samples if sample.shard != tar.name or sample.end <= place]
        with _heard() as said:
            keys, lost, problem = _evaluated(shards)
        if not survivors:
            counts.check("nothing is left: one line that names the shard", tar.name in problem, f"{place}: {problem}")
            continue
        counts.check("exactly the samples before the cut survive, in order", keys == survivors, f"{place}: {problem}")
        missing = len(inside) - sum(sample.end <= place for sample in inside)
        fits = lost == missing and (not missing or any(tar.name in line for line in said))
        counts.check("the lost ones are counted and their shard is named", fits, f"{place}: {lost} of {missing} {said}")
    return counts


def _evaluated(shards: Path) -> tuple[list[str], int, str]:
    """Keys in order, how many samples are lost, and the error."""
    try:
        config = {"shards": str(shards), "batch_size": 4, "clip_frames": 8, "max_bad_fraction": 1.0}
        loader = make_loader(StreamConfig.model_validate(config), "train", seed=0, shuffle=False)
        for note in loader.notes:
            logging.getLogger(__name__).warning(note)
        return [key for batch in loader for key in batch.keys], loader.stats.lost, ""
    except DataError as error:
        return [], 0, str(error)


@contextmanager
def _heard() -> Iterator[list[str]]:
    """What is logged here meanwhile."""
    said: list[str] = []
    handler = logging.Handler()
    handler.emit = lambda record: said.append(record.getMessage())
    logger = logging.getLogger(__name__)
    logger.addHandler(handler)
    logger.propagate = False
    yield said
    logger.removeHandler(handler)
