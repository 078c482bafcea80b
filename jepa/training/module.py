"""One LightningModule for every method."""

from functools import partial
from typing import Any

import lightning as L
import torch
from jaxtyping import Float, UInt8
from torch import Tensor
from torch.distributed.fsdp import FSDPModule

from jepa.config import UserError
from jepa.methods.base import Batch, Method
from jepa.ranks import mean_over_ranks
from jepa.training.not_finite import NonFinitePolicy
from jepa.training.optim import (
    NotFiniteError,
    Optimization,
    check_state,
    clip_gradients,
    hears_later,
    norm_of_gradients,
    scale_gradients,
)
from jepa.training.run_state.checkpoints import EVENTS, ROLLBACKS, checksums, leave_out, put_back
from jepa.training.seeds import seeded
from jepa.training.sharding import FSDP2, parts_of_state, shard
from jepa_data.config import AugmentConfig
from jepa_data.transforms import normalize, to_input
from jepa_data.types import ClipBatch

POLICY = "not_finite"  # key of a checkpoint


class Pretraining(L.LightningModule):
    """Feeds normalized clips to a method and steps its optimizer.

    Every random number of a step is drawn from a generator seeded by (seed, step): a run that was killed and resumed
    goes on with the very numbers of one that was not. It is the same on all ranks, see `jepa.ranks.rank_part`.

    Args:
        method: what is trained.
        optimization: how its weights are changed.
        mean, std: normalize pixels in 0..1.
        augment: how clips are changed at random before.
        state_columns: recorded states that the method reads; (): none.
        policy: for a loss or a gradient that is not finite; None stops at the first.
        target_columns: those that it predicts.

    Attributes:
        optimizer_state: of another run, over the same parameters, to go on from; set before training.
        rollbacks: times that the run was rolled back; set before training.
    """

    def __init__(
        self,
        method: Method,
        optimization: Optimization,
        *,
        seed: int,
        total_steps: int,
        mean: tuple[float, float, float],
        std: tuple[float, float, float],
        augment: AugmentConfig,
        state_columns: tuple[int, ...] = (),
        policy: NonFinitePolicy | None = None,
        target_columns: tuple[int, ...] = (),
    ) -> None:
        super().__init__()
        self.method: Method = method
        self.optimization = optimization
        self.seed = seed
        self.total_steps = total_steps
        self.mean = mean
        self.std = std
        self.augment = augment
        self.state_columns = list(state_columns)
        self.policy = policy or NonFinitePolicy()
        self.target_columns = list(target_columns)
        self.optimizer_state: dict[int, Any] | None = None
        self.rollbacks = 0
        self._checksums: dict[str, str] | None = None  # of what is frozen
        self._gathered = list[dict[str, Tensor]]()  # of the batches of one step

    def on_before_batch_transfer(self, batch: ClipBatch, dataloader_idx: int) -> ClipBatch:
        """Raises UserError for a state that the method needs and the sample lacks, before it becomes a loss."""
        if self.state_columns and batch.states is not None:
            states = batch.states[..., self.state_columns]
            wrong = (~states.isfinite()).flatten(1).any(1).nonzero()
            if len(wrong):
                raise UserError(
                    f"sample {batch.keys[int(wrong[0])]!r}: a state of method.states is missing (NaN) or infinite, "
                    "and the predictor needs all of them. Choose other states, or leave the sample out (data.skip)"
                )
        return batch

    def training_step(self, batch: ClipBatch, batch_idx: int) -> Tensor:
        self.policy.before(self.method)
        terms = self.method.loss(self._inputs(batch), self.generator(batch_idx))
        self._log(terms, batch_idx, len(batch))
        return self.policy.spread(terms["loss"])

    def _log(self, terms: dict[str, Tensor], batch_idx: int, clips: int) -> None:
        """Each term once a step: its mean over the batches that are gathered for it, and over all processes."""
        self._gathered.append({f"train/{name}": value.detach() for name, value in terms.items()})
        if step_ended(self.trainer, batch_idx) is not None:
            names = list(self._gathered[0])
            means = torch.stack([torch.stack([part[name] for part in self._gathered]).mean().float() for name in names])
            terms = dict(zip(names, mean_over_ranks(means), strict=True))
            if self.policy.skipped:
                terms["train/skipped_steps"] = torch.tensor(float(self.policy.skipped))
            self.log_dict(terms, batch_size=clips)
            self._gathered.clear()

    def generator(self, batch_idx: int) -> torch.Generator:
        """What a method draws masks, views and directions from at this batch."""
        return seeded(self.seed, batch_idx, 0)

    def _inputs(self, batch: ClipBatch) -> Batch:
        video = to_input(batch, self.augment, self.mean, self.std) if batch.latents is None else batch.video.float()
        states, targets = (_columns(batch, columns) for columns in (self.state_columns, self.target_columns))
        actions = batch.actions
        if self.event_names:
            assert actions is not None and batch.events is not None
            actions = torch.cat((actions, batch.events), -1)
        return Batch(video, actions, batch.is_image, states, latents=batch.latents, targets=targets)

    @property
    def event_names(self) -> tuple[str, ...]:
        """Events that the dynamics take."""
        dynamics = self.method.dynamics
        return () if dynamics is None or dynamics.events is None else dynamics.events.names

    def encode(self, video: UInt8[Tensor, "B T C h w"]) -> Float[Tensor, "B S N D"]:
        """Latents of clips by the encoder as it would be evaluated now."""
        return self.encode_input(normalize(video.to(self.device), self.mean, self.std))

    def encode_input(self, video: Float[Tensor, "B T C h w"]) -> Float[Tensor, "B S N D"]:
        """The same of normalized video. All processes call it together where the weights are sharded."""
        latents = self.method.encode(video)
        if isinstance(self.method, FSDPModule):
            self.method.reshard()
        return latents

    @property
    def sharded(self) -> bool:
        """Whether each process has only a part of the weights, so that none can encode alone."""
        return isinstance(self.method, FSDPModule)

    def configure_model(self) -> None:
        """Lightning calls this before training, more than once."""
        if isinstance(self.trainer.strategy, FSDP2) and not self.sharded:
            if self.method.frozen:
                self._checksums = checksums(self.method)
            shard(self.method, self.trainer.strategy.device_mesh["data_parallel"])

    def on_train_start(self) -> None:
        """A checkpoint brings the rates of the schedule it was written under; a run that got longer has others."""
        schedule = self.lr_schedulers()
        assert isinstance(schedule, torch.optim.lr_scheduler.LambdaLR)
        for group, rate in zip(schedule.optimizer.param_groups, schedule.base_lrs, strict=True):
            group["lr"] = rate * self.optimization.lr_factor(schedule.last_epoch)
        self.policy.later = hears_later(self.device, schedule.optimizer)

    def configure_gradient_clipping(
        self,
        optimizer: torch.optim.Optimizer,
        gradient_clip_val: float | None = None,
        gradient_clip_algorithm: str | None = None,
    ) -> None:
        """Before the step and before any teacher follows. Raises NotFiniteError by the policy."""
        clip, adaptive = gradient_clip_val, self.optimization.adaptive_clip
        if self.policy.later:
            self.policy.hear()  # of the step before
            norm = norm_of_gradients(optimizer)
            scale_gradients(optimizer, norm, clip, adaptive)
            refused = ~norm.isfinite()
            self.policy.refuse_if(refused, self.method, self.global_step)
            optimizer.found_inf = refused.float()  # pyright: ignore[reportAttributeAccessIssue]
            return
        try:
            clip_gradients(self.method, optimizer, clip, self.global_step, adaptive)
        except NotFiniteError as error:
            self.policy.refuse(error, self.method, self.global_step)
            optimizer.zero_grad()  # to None: an optimizer leaves such parameters and their state as they are
        else:
            self.policy.accept()

    def optimizer_step(self, *args: Any, **kwargs: Any) -> None:
        """Teachers follow here, not at the end of the batch: checkpoints are written before that hook of the module."""
        if self.optimization.weight_decay is not None:
            for group in self.optimizers().param_groups:  # pyright: ignore[reportAttributeAccessIssue]
                if group["decayed"]:
                    group["weight_decay"] = self.optimization.weight_decay(self.global_step)
        super().optimizer_step(*args, **kwargs)
        if type(self.method).after_step is not Method.after_step:
            follow = partial(self.method.after_step, self.global_step + 1, self.total_steps)
            self.policy.unless_refused(self.method, follow)

    def on_train_end(self) -> None:
        self.policy.hear()

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Raises UserError before anything is written if a weight is not finite, or the last step was refused."""
        self.policy.hear()
        check_state(
            checkpoint["state_dict"], checkpoint["optimizer_states"], f"the checkpoint of step {self.global_step}"
        )
        checkpoint |= {POLICY: self.policy.state_dict(), ROLLBACKS: self.rollbacks}
        if self.event_names:
            checkpoint[EVENTS] = list(self.event_names)
        if self.method.frozen:
            self._checksums = self._checksums or checksums(self.method)
            leave_out(checkpoint, self.method, self._checksums)

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        if POLICY in checkpoint:
            self.policy.load_state_dict(checkpoint[POLICY])
        if self.method.frozen:
            put_back(checkpoint, self.method)

    def configure_optimizers(self) -> dict:  # pyright: ignore[reportIncompatibleMethodOverride]
        optimizer = self.optimization.make_optimizer(self.method)
        if self.optimizer_state is not None:  # with this run's own rates, not those of the other
            state = parts_of_state(self.optimizer_state, optimizer)
            optimizer.load_state_dict({"state": state, "param_groups": optimizer.state_dict()["param_groups"]})
        # A function: of an object, torch would save the numbers, and a run that got longer would get the old ones back.
        schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: self.optimization.lr_factor(step))
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": schedule, "interval": "step"}}


def _columns(batch: ClipBatch, columns: list[int]) -> Float[Tensor, "B T X"] | None:
    """Some of the recorded states; None if no column is wanted."""
    return batch.states[..., columns] if columns and batch.states is not None else None


def step_ended(trainer: L.Trainer, batch_idx: int) -> int | None:
    """How many optimizer steps are done, if this batch ended one; None while gradients are gathered."""
    step, rest = divmod(batch_idx + 1, trainer.accumulate_grad_batches)
    if rest:
        return None
    return step


def step_to_look_at(trainer: L.Trainer, module: Pretraining, batch_idx: int, every: int) -> int | None:
    """The step that this batch ended, if a callback encodes clips after it: after each `every` steps, and the last.

    None in all processes but the first one, unless they encode together because the weights are sharded.
    """
    step = step_ended(trainer, batch_idx)
    if step is None or (step % every and step != module.total_steps):
        return None
    return step if trainer.is_global_zero or module.sharded else None
