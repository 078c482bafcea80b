"""Speed, and a line of progress where no progress bar can be drawn."""

import logging
import time
from dataclasses import dataclass
from pathlib import Path

import lightning as L

from jepa.training.module import Pretraining, step_ended
from jepa_data.stream.loader import ClipLoader
from jepa_data.types import ClipBatch

logger = logging.getLogger(__name__)
QUIET_SECONDS = 60.0


@dataclass(frozen=True)
class Mark:
    """What was counted at a moment; `waited` is for data, in seconds."""

    time: float
    clips: int
    waited: float


class Throughput(L.Callback):
    """Logs at each log line how fast it goes and what the data are like.

    `speed/clips_per_second`, `speed/wait_share` (of the time, spent on waiting), `data/epoch` (of the first source),
    `data/bad` (samples left out), `data/errors/KIND`, and for a mix `data/mix/SOURCE` (share of the clips so far).

    Attributes:
        clips, seconds: of all processes since training began.
    """

    def __init__(self) -> None:
        self.clips = 0
        self.seconds = 0.0

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        assert isinstance(trainer.train_dataloader, ClipLoader)
        self.loader = trainer.train_dataloader
        self._first = self._last = self._mark()

    def on_train_batch_end(  # pyright: ignore[reportIncompatibleMethodOverride]
        self, trainer: L.Trainer, module: Pretraining, outputs: object, batch: ClipBatch, batch_idx: int
    ) -> None:
        self.clips += len(batch) * trainer.world_size
        step = step_ended(trainer, batch_idx)
        if step is None or step % trainer.log_every_n_steps:  # pyright: ignore[reportAttributeAccessIssue]
            return
        now = self._mark()
        last = self._last
        seconds = now.time - last.time
        speed = {
            "speed/clips_per_second": (now.clips - last.clips) / seconds,
            "speed/wait_share": (now.waited - last.waited) / seconds,
        }
        module.log_dict(speed, batch_size=len(batch))
        module.log_dict(self._data(), batch_size=len(batch))
        self.seconds = now.time - self._first.time
        self._last = now

    def _mark(self) -> Mark:
        return Mark(time.perf_counter(), self.clips, self.loader.stats.wait_seconds)

    def _data(self) -> dict[str, float]:
        stats = self.loader.stats
        metrics = {"data/epoch": self.loader.position["epochs"][0], "data/bad": float(stats.bad)}
        metrics |= {f"data/errors/{kind}": float(count) for kind, count in stats.kinds.items()}
        if len(self.loader.sources) > 1:
            total = sum(stats.drawn.values())
            names = {source.shards: Path(source.shards).name for source in self.loader.config.sources}
            metrics |= {f"data/mix/{names[source]}": count / total for source, count in stats.drawn.items()}
        return metrics


class ProgressLines(L.Callback):
    """Logs a line of progress every tenth of the run, and after a minute without one, for logs and pipes."""

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        self._began = self._told = time.perf_counter()
        self._first = trainer.global_step

    def on_train_batch_end(  # pyright: ignore[reportIncompatibleMethodOverride]
        self, trainer: L.Trainer, module: Pretraining, outputs: object, batch: ClipBatch, batch_idx: int
    ) -> None:
        step = step_ended(trainer, batch_idx)
        total = module.total_steps
        if step is None or not trainer.is_global_zero:
            return
        now = time.perf_counter()
        if step % max(1, total // 10) and step != total and now - self._told < QUIET_SECONDS:
            return
        self._told = now
        metrics = trainer.callback_metrics
        seconds = now - self._began
        left = seconds / (step - self._first) * (total - step)
        rank = metrics.get("monitor/effective_rank")
        logger.info(
            f"step {step}/{total}  loss {metrics['train/loss'].item():.4f}"
            + (f"  rank {rank.item():.1f}" if rank is not None else "")
            + f"  {seconds:.0f} s, {left:.0f} s left"
        )
