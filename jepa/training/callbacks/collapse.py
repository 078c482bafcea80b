"""The collapse monitors: effective rank and spread of the latents while they are learned.

Every `every` steps: one forward pass of at most 16 clips, two more for LiDAR, and an SVD of at most 1024 latents.
`seconds` counts what that takes; docs/collapse.md has figures.
"""

import logging
import time

import lightning as L
import torch
from jaxtyping import Float
from torch import Tensor

from jepa.objectives.collapse import dimension_std, effective_rank, lidar
from jepa.training.module import Pretraining, step_to_look_at
from jepa_data.config import AugmentConfig
from jepa_data.transforms import to_input
from jepa_data.types import ClipBatch

logger = logging.getLogger(__name__)
CLIPS = 16
LATENTS = 1024
SETTLING_STEPS = 50  # a fresh encoder's latents point one way; training turns that within some dozens of steps


class CollapseMonitor(L.Callback):
    """Logs the monitors, and warns once when the effective rank is below `warn_below`.

    monitor/effective_rank   RankMe of the latents, tokens apart
    monitor/std, min_std   spread over the latents: mean of the dimensions, and the dimension of the least
    monitor/lidar            where the run changes its clips at random: two views of each of the clips

    Of several processes the first one measures, on its own clips; all encode theirs where the weights are sharded.

    Args:
        warn_below: 0 where the encoder is frozen, which cannot collapse.
        views: how clips are changed to views; None: not at all, and there is no LiDAR.

    Attributes:
        values: the last ones, without "monitor/"; empty before the first.
        warnings: what was said.
        seconds: spent so far.
    """

    def __init__(self, every: int, warn_below: float, views: AugmentConfig | None) -> None:
        self.every = every
        self.warn_below = warn_below
        self.views = views
        self.values: dict[str, float] = {}
        self.warnings: list[str] = []
        self.seconds = 0.0

    def on_train_batch_end(  # pyright: ignore[reportIncompatibleMethodOverride]
        self, trainer: L.Trainer, module: Pretraining, outputs: object, batch: ClipBatch, batch_idx: int
    ) -> None:
        step = step_to_look_at(trainer, module, batch_idx, self.every)
        if step is None:
            return
        began = time.perf_counter()
        self.values = self._measure(module, batch)
        self.seconds += time.perf_counter() - began
        if not trainer.is_global_zero:
            return
        module.log_dict({f"monitor/{name}": value for name, value in self.values.items()}, batch_size=len(batch))
        rank = self.values["effective_rank"]
        if rank < self.warn_below and step >= SETTLING_STEPS and not self.warnings:
            text = (
                f"step {step}: the latents are collapsing: effective rank {rank:.2f}, std {self.values['std']:.3g}. "
                "Raise the regularizer (method.sigreg_weight), check that the teacher is a moving average "
                "(method.teacher=ema) that moves slowly (method.ema), or lower optimizer.lr. See docs/collapse.md"
            )
            self.warnings.append(text)
            logger.warning(text)

    def _measure(self, module: Pretraining, batch: ClipBatch) -> dict[str, float]:
        latents = module.encode(batch.video[:CLIPS]) if batch.latents is None else batch.latents[:CLIPS]
        latents = latents.flatten(0, 2)
        latents = latents[:: -(-len(latents) // LATENTS)]
        spread = dimension_std(latents)
        metrics = {"effective_rank": effective_rank(latents), "std": spread.mean(), "min_std": spread.min()}
        if self.views is not None and batch.latents is None and len(batch) > 1:
            metrics["lidar"] = lidar(torch.stack([self._view(module, batch, number) for number in range(2)], 1))
        return {name: value.item() for name, value in metrics.items()}

    def _view(self, module: Pretraining, batch: ClipBatch, number: int) -> Float[Tensor, "B D"]:
        """One vector a clip, of one way to change it."""
        assert self.views is not None and batch.seeds is not None
        few = ClipBatch(
            video=batch.video[:CLIPS],
            actions=None,
            states=None,
            keys=batch.keys[:CLIPS],
            start_seconds=batch.start_seconds[:CLIPS],
            seeds=batch.seeds[:CLIPS] + number,
        )
        return module.encode_input(to_input(few, self.views, module.mean, module.std)).mean((1, 2))
