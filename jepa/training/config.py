"""The config of `jepa pretrain`."""

from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from jepa.config import DEFAULT, Component, Config, part
from jepa.config.fields import Count, Positive, Share
from jepa.encoders import ENCODERS
from jepa.encoders.base import EncoderConfig
from jepa.methods import METHODS
from jepa.methods.config import MethodConfig
from jepa.training.schedules import SCHEDULES
from jepa_data.config import AugmentConfig, StreamConfig


class OptimizerConfig(Config):
    """AdamW, LaProp as in DreamerV3, or Muon; biases and other 1-D parameters are not decayed."""

    kind: Literal["adamw", "laprop", "muon"] = Field(
        default="adamw",
        description="laprop: gradients are divided by their RMS first, then averaged (DreamerV3); muon: those of "
        "matrices are made orthogonal, which takes fewer and dearer steps",
    )
    lr: Positive = 1e-3
    weight_decay: float = Field(default=0.04, ge=0)
    final_weight_decay: float | None = Field(
        default=None, ge=0, description="reached at the last step, along a half cosine; none: weight_decay throughout"
    )
    betas: tuple[Share, Share] = (0.9, 0.999)
    adaptive_clip: Positive | None = Field(
        default=None, description="largest norm of a parameter's gradient, as a share of the parameter's own (AGC)"
    )


class TrainerConfig(Config):
    """How long, on what, and how often to log and save. `steps` counts optimizer steps."""

    steps: Count
    device: Literal["auto", "cpu", "cuda"] = "auto"
    devices: Count = Field(default=1, description="processes on this machine, each with a GPU of its own if there are")
    nodes: Count = Field(default=1, description="machines; start the command on each with torchrun or srun")
    strategy: Literal["ddp", "fsdp2"] = Field(
        default="ddp",
        description="of several processes: ddp, each has all weights; fsdp2, each has a part of the weights, of their "
        "gradients and of the optimizer's state",
    )
    precision: Literal["auto", "fp32", "bf16"] = Field(
        default="auto", description="auto: bf16 where the hardware has it"
    )
    compile: bool = Field(
        default=False,
        description="transformer blocks by torch.compile: the first step takes a minute, the others less; needs a C++ "
        "compiler",
    )
    accumulate: Count = Field(default=1, description="batches whose gradients are averaged for one step")
    clip_norm: Positive | None = 1.0
    log_every: Count = 10
    monitor_every: Count = 25
    probe_every: int = Field(default=0, ge=0, description="steps from one online probe to the next; 0: none")
    probe: Literal["knn", "linear"] = Field(default="linear", description="what it is; linear also finds true states")
    checkpoint_every: Count = 500
    keep_last: Count = Field(default=2, description="checkpoints that are kept; the newest whole one is resumed from")
    max_minutes: Positive | None = Field(default=None, description="after which the run saves its state and stops")
    not_finite: Literal["stop", "skip", "roll_back"] = Field(
        default="stop",
        description="what a loss or gradient that is NaN or infinite leads to: an error, a step that is left out, or "
        "the last checkpoint once more with other clips",
    )
    not_finite_limit: Count = Field(default=10, description="times in a row that it may")
    warn_rank_below: float = Field(default=3.0, ge=0, description="effective rank at which a collapse is reported")


class PretrainConfig(Config):
    """`jepa pretrain`: the data, the method and its parts, how it is optimized, and where the results go."""

    run: str = Field(description="folder for everything this run writes")
    seed: int = Field(default=0, ge=0)
    init_from: str | None = Field(
        default=None, description="run to start from: its weights and its optimizer; the schedule starts from scratch"
    )
    data: StreamConfig
    encoder: Annotated[EncoderConfig, part(ENCODERS)] | None = Field(
        default=None, description="only where method.encoder_from names one: it may be none"
    )
    method: Annotated[MethodConfig, part(METHODS)]
    optimizer: OptimizerConfig = OptimizerConfig()
    schedule: Annotated[Component, part(SCHEDULES, "cosine")] = DEFAULT
    trainer: TrainerConfig

    @property
    def views(self) -> AugmentConfig | None:
        """How training changes a clip at random, its crop included; None: not at all."""
        augment = self.data.augment
        views = augment.model_copy(update={"crop": self.method.view_crop() or augment.crop or self.data.crop})
        return None if views == AugmentConfig() else views

    @model_validator(mode="after")
    def _can_be_sharded(self) -> Self:
        if self.trainer.strategy == "fsdp2" and self.optimizer.kind == "muon":
            raise ValueError(
                "trainer.strategy: fsdp2 keeps parts of matrices, and optimizer muon needs whole ones; use optimizer "
                "adamw or laprop, or strategy ddp"
            )
        return self

    @model_validator(mode="after")
    def _encoder_is_somewhere(self) -> Self:
        if self.encoder is None and self.method.encoder_source() is None:
            also = ", or name a run in method.encoder_from" if "encoder_from" in type(self.method).model_fields else ""
            raise ValueError(f"encoder: missing; expected a description such as {{kind: video_vit}}{also}")
        return self
