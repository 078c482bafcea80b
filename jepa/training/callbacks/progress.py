"""Speed, and a line of progress where no progress bar can be drawn."""

import logging
import time
from pathlib import Path

import lightning as L

from jepa.training.module import Pretraining, step_ended
from jepa_data.stream.loader import ClipLoader
from jepa_data.types import ClipBatch

logger = logging.getLogger(__name__)


class Throughput(L.Callback):
    """Logs at each log line how fast it goes and what the data are like.

    `speed/clips_per_second`, `speed/wait_share` (of the time, spent on waiting), `data/epoch` (of the first source),
    `data/bad` (samples left out), `data/errors/KIND`, and for a mix `data/mix/SOURCE` (share of the clips so far).

    Attributes:
        clips, seconds: of all processes since training began.
    """

    def __init__(self) -> None:
        self.clips, self.seconds = 0, 0.0

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        assert isinstance(trainer.train_dataloader, ClipLoader)
        self.loader = trainer.train_dataloader
        self._began = self._last = time.perf_counter()
        self._since, self._waited = 0, self.loader.stats.wait_seconds

    def on_train_batch_end(  # pyright: ignore[reportIncompatibleMethodOverride]
        self, trainer: L.Trainer, module: Pretraining, outputs: object, batch: ClipBatch, batch_idx: int
    ) -> None:
        self.clips += len(batch) * trainer.world_size
        self._since += len(batch) * trainer.world_size
        step = step_ended(trainer, batch_idx)
        if step is None or step % trainer.log_every_n_steps:  # pyright: ignore[reportAttributeAccessIssue]
            return
        now, waited = time.perf_counter(), self.loader.stats.wait_seconds
        self.seconds = now - self._began
        speed, share = self._since / (now - self._last), (waited - self._waited) / (now - self._last)
        module.log_dict({"speed/clips_per_second": speed, "speed/wait_share": share}, batch_size=len(batch))
        module.log_dict(self._data(), batch_size=len(batch))
        self._since, self._last, self._waited = 0, now, waited

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
    """Logs a line of progress every tenth of the run, for logs and pipes."""

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        self._began, self._first = time.perf_counter(), trainer.global_step

    def on_train_batch_end(  # pyright: ignore[reportIncompatibleMethodOverride]
        self, trainer: L.Trainer, module: Pretraining, outputs: object, batch: ClipBatch, batch_idx: int
    ) -> None:
        step, total = step_ended(trainer, batch_idx), module.total_steps
        if step is None or (step % max(1, total // 10) and step != total) or not trainer.is_global_zero:
            return
        metrics = trainer.callback_metrics
        seconds = time.perf_counter() - self._began
        left = seconds / (step - self._first) * (total - step)
        rank = metrics.get("monitor/effective_rank")
        logger.info(
            f"step {step}/{total}  loss {metrics['train/loss'].item():.4f}"
            + (f"  rank {rank.item():.1f}" if rank is not None else "")
            + f"  {seconds:.0f} s, {left:.0f} s left"
        )
