"""A checkpoint of two processes goes on with one and with four: the same samples and losses as of one process."""

from pathlib import Path
from shutil import copytree
from typing import Any

from tests.reliability.counts import Counts
from tests.reliability.processes import Child, forked
from tests.reliability.tiny import ORDER, Steps, describe, losses, succeed, train
from tests.reliability.tiny import corpus as make_corpus
from tests.torchrun import become_rank, free_port

STEPS = 10
HALF = 5
RELATIVE = 1e-5


class RankSteps(Steps):
    """Writes down the samples of a rank."""

    def on_train_batch_start(self, trainer: Any, pl_module: Any, batch: Any, batch_idx: int) -> None:
        with (Path(trainer.loggers[0].save_dir).parent / f"{trainer.global_rank}-{ORDER}").open("a") as file:
            file.write(f"{batch_idx} {' '.join(batch.keys)}\n")


def run(folder: Path, count: int) -> Counts:
    """The first `count` of the methods lewm and vjepa."""
    counts = Counts()
    shards = make_corpus(folder)
    for method in ("lewm", "vjepa")[:count]:
        one, two = folder / f"{method}-1", folder / f"{method}-2"
        _train(one, shards, method, 1, STEPS)
        _train(two, shards, method, 2, HALF)
        _compare(one, two, 2, HALF, counts)
        for ranks in (1, 4):
            gone_on = folder / f"{method}-2-{ranks}"
            copytree(two, gone_on)
            for path in gone_on.glob(f"*-{ORDER}"):
                path.unlink()
            _train(gone_on, shards, method, ranks, STEPS, resume=True)
            _compare(one, gone_on, ranks, STEPS, counts)
    return counts


def _train(run: Path, shards: Path, method: str, ranks: int, steps: int, *, resume: bool = False) -> None:
    """With so many processes, started as torchrun starts them."""
    config = describe(run, shards, method, schedule={"kind": "flat"}, data__batch_size=8)
    config["trainer"] |= {"steps": steps, "devices": ranks, "checkpoint_every": HALF}
    port = free_port()

    def work(rank: int) -> None:
        become_rank(rank, ranks, port)
        train(config, RankSteps(), resume=resume)

    if ranks == 1:
        succeed(forked(lambda: work(0)), [method, ranks])
        return
    children = [Child(lambda rank=rank: work(rank)) for rank in range(ranks)]
    for ended in [child.wait() for child in children]:
        succeed(ended, [method, ranks])


def _compare(one: Path, several: Path, ranks: int, steps: int, counts: Counts) -> None:
    """All losses of both, and the samples of the steps that this number of processes took."""
    expected = [float(loss) for _, loss in losses(one)][:steps]
    found = [float(loss) for _, loss in losses(several)]
    far = [abs(a - b) / abs(a) for a, b in zip(expected, found, strict=False)]
    counts.most("largest relative difference of a loss, in 1e-6", max(far, default=1.0) * 1e6)
    same = len(found) == len(expected) == steps and max(far) <= RELATIVE
    counts.check("the losses are those of one process within 1e-5", same, f"{several.name}: {found} {expected}")
    whole = _samples(one, 1)
    parts = _samples(several, ranks)
    fits = bool(parts) and all(whole[step] == keys for step, keys in parts.items())
    counts.check("the same samples in every batch, in the same order", fits, several.name)


def _samples(run: Path, ranks: int) -> dict[int, list[str]]:
    """Of each step, the parts of the ranks one after the other."""
    steps: dict[int, list[str]] = {}
    for rank in range(ranks):
        for line in (run / f"{rank}-{ORDER}").read_text().splitlines():
            step, *keys = line.split()
            steps.setdefault(int(step), []).extend(keys)
    return steps
