"""What a config says of a method. Imports no torch."""

from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from jepa.config import Config
from jepa.config.fields import Count, Share
from jepa.masks import VJEPA_MASKS, Masks
from jepa.predictors.config import (
    ACPredictorConfig,
    DinoPredictorConfig,
    MaskedPredictorConfig,
    MLPConfig,
    VectorDynamics,
)


class LeWMConfig(Config):
    """jepa/methods/lewm.py: latent prediction with actions, SIGReg, inverse dynamics, time-similarity."""

    kind: Literal["lewm"] = "lewm"
    predictor: VectorDynamics = MLPConfig()
    sigreg_weight: float = Field(default=0.02, ge=0)
    inverse_weight: float = Field(default=1.0, ge=0)
    similarity_weight: float = Field(default=0.5, ge=0)
    static_weight: float = Field(
        default=10.0, ge=0, description="of the static part's likeness in time, if there is one"
    )
    directions: Count = 256
    sigreg_samples: Literal["per_step", "pooled"] = Field(
        default="per_step",
        description="per_step: SIGReg of each latent step's embeddings, averaged over the steps, as published; pooled: "
        "of all steps together, a value up to as many times larger as a clip has steps",
    )
    teacher_forced: bool = Field(default=False, description="predict from the true latents; else from the predicted")


class PLDMConfig(Config):
    """jepa/methods/pldm.py: latent prediction with actions, VICReg, time-similarity, inverse dynamics."""

    kind: Literal["pldm"] = "pldm"
    predictor: VectorDynamics = MLPConfig()
    variance_weight: float = Field(default=16.0, ge=0)
    covariance_weight: float = Field(default=8.0, ge=0)
    time_variance_weight: float = Field(default=0.0, ge=0)
    similarity_weight: float = Field(default=12.0, ge=0)
    inverse_weight: float = Field(default=1.0, ge=0)


class FrozenEncoderConfig(Config):
    """What methods on a frozen encoder have in common."""

    encoder_from: str | None = Field(
        default=None, description="run, model folder or hub id whose encoder it is; none: `encoder` as it is"
    )
    states: tuple[str, ...] = Field(default=(), description="recorded states that the predictor is told: agent.x, …")
    distance: Literal["l1", "l2"] = "l1"
    rollout_steps: int = Field(default=2, ge=0, description="predicted from its own predictions in training; 0: none")
    rollout_context: Count | Literal["random"] = Field(default=1, description="true latents before them")
    detach_rollout: bool = False

    @model_validator(mode="after")
    def _rollout_is_one(self) -> Self:
        if self.rollout_steps == 1:
            raise ValueError("rollout_steps: a rollout of 1 step is teacher forcing itself; expected 0 (none) or 2 up")
        if len(set(self.states)) < len(self.states):
            raise ValueError(f"states: each once, found {', '.join(self.states)}")
        return self


class VJEPAACConfig(FrozenEncoderConfig):
    """jepa/methods/vjepa_ac.py: V-JEPA 2-AC, what a frozen video encoder sees next under an action."""

    kind: Literal["vjepa_ac"] = "vjepa_ac"
    predictor: ACPredictorConfig = ACPredictorConfig()
    rollout_context: Count = 1


class DinoWMConfig(FrozenEncoderConfig):
    """jepa/methods/dino_wm.py: DINO-WM, dynamics over the patches of a frozen backbone; JEPA-WMs' as settings."""

    kind: Literal["dino_wm"] = "dino_wm"
    predictor: DinoPredictorConfig = DinoPredictorConfig()
    distance: Literal["l1", "l2"] = "l2"
    rollout_steps: int = Field(default=0, ge=0)
    rollout_context: Count | Literal["random"] = "random"
    detach_rollout: bool = True


class DenseConfig(Config):
    """V-JEPA 2.1's loss at the visible tokens: its weight rises from 0 at step `start` to `weight` at step `end`."""

    weight: float = Field(default=0.5, ge=0)
    start: int = Field(default=15_000, ge=0)
    end: int = Field(default=30_000, ge=0)


class VJEPAConfig(Config):
    """jepa/methods/vjepa.py: masked latent prediction. 1, 2, 2.1 and SALT are settings of it (table in that file)."""

    kind: Literal["vjepa"] = "vjepa"
    predictor: MaskedPredictorConfig = MaskedPredictorConfig()
    masks: Masks = VJEPA_MASKS
    ema: tuple[Share, Share] = (0.99925, 0.99925)
    teacher: Literal["ema", "frozen", "none"] = "ema"
    teacher_from: str | None = Field(default=None, description="run whose encoder is the frozen teacher (SALT)")
    dense: DenseConfig | None = None

    @model_validator(mode="after")
    def _teacher_is_somewhere(self) -> Self:
        if (self.teacher == "frozen") != (self.teacher_from is not None):
            raise ValueError("teacher: frozen and teacher_from: RUN go together; give both, or neither")
        return self


class VPixelConfig(Config):
    """jepa/methods/pixel_reconstruction.py: hidden patches from visible ones; makes the teacher of SALT."""

    kind: Literal["vpixel"] = "vpixel"
    predictor: MaskedPredictorConfig = MaskedPredictorConfig()
    masks: Masks = VJEPA_MASKS


class LeVJEPAConfig(Config):
    """jepa/methods/levjepa.py: views agree, SIGReg keeps them apart."""

    kind: Literal["levjepa"] = "levjepa"
    local_views: Count = 10
    local_size: Count | None = None
    global_scale: tuple[Share, Share] = (0.3, 1.0)
    local_scale: tuple[Share, Share] = (0.05, 0.3)
    drop: Share = 0.95
    projector_width: Count = 2048
    embedding_width: Count = 256
    sigreg_weight: float = Field(default=0.02, ge=0)
    directions: Count = 1024
    evaluation_ema: Share | None = 0.9999


Method = Annotated[
    LeWMConfig | PLDMConfig | VJEPAACConfig | DinoWMConfig | VJEPAConfig | VPixelConfig | LeVJEPAConfig,
    Field(discriminator="kind"),
]
