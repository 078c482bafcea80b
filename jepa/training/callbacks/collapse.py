"""The collapse gauge: effective rank and spread of the latents while they are learned.

Costs one forward pass of at most 16 clips every `every` steps: under 1 % of a run at the default of 25.
"""

import logging

import lightning as L
import torch

from jepa.methods.base import Batch
from jepa.objectives.collapse import dimension_std, effective_rank
from jepa.training.module import Pretraining, step_ended
from jepa_data.transforms import normalize
from jepa_data.types import ClipBatch

log = logging.getLogger("jepa")
CLIPS, LATENTS = 16, 1024
SETTLING_STEPS = 50  # a fresh encoder's latents point one way; training turns that within some dozens of steps


class CollapseGauge(L.Callback):
    """Logs `gauge/effective_rank` and `gauge/std`, and warns once when the rank is below `warn_below`.

    Attributes:
        effective_rank, std: the last values; None before the first.
        warnings: what was said.
    """

    def __init__(self, every: int = 25, warn_below: float = 3.0) -> None:
        self.every, self.warn_below = every, warn_below
        self.effective_rank: float | None = None
        self.std: float | None = None
        self.warnings: list[str] = []

    def on_train_batch_end(  # pyright: ignore[reportIncompatibleMethodOverride]
        self, trainer: L.Trainer, module: Pretraining, outputs: object, batch: ClipBatch, batch_idx: int
    ) -> None:
        step = step_ended(trainer, batch_idx)
        if step is None or (step % self.every and step != module.total_steps):
            return
        self.effective_rank, self.std = self._measure(module, batch)
        module.log_dict({"gauge/effective_rank": self.effective_rank, "gauge/std": self.std}, batch_size=len(batch))
        if self.effective_rank < self.warn_below and step >= SETTLING_STEPS and not self.warnings:
            text = (
                f"step {step}: the latents are collapsing: effective rank {self.effective_rank:.2f}, "
                f"std {self.std:.3g}. Raise the regulariser (method.sigreg_weight), check that the teacher is a moving "
                "average (method.teacher=ema) that moves slowly (method.ema), or lower optimizer.lr."
            )
            self.warnings.append(text)
            log.warning(text)

    @torch.no_grad()
    def _measure(self, module: Pretraining, batch: ClipBatch) -> tuple[float, float]:
        encoder = module.method.evaluation_encoder()
        training = encoder.training
        encoder.eval()
        z = encoder(Batch(normalize(batch.video[:CLIPS], module.mean, module.std), None).video)
        encoder.train(training)
        latents = z.flatten(0, 2)
        latents = latents[:: -(-len(latents) // LATENTS)]
        return effective_rank(latents).item(), dimension_std(latents).item()
