"""What a config says of a predictor. Imports no torch."""

from typing import Annotated, Literal

from pydantic import Field, Tag

from jepa.config import Config
from jepa.config.fields import Count, Positive, kind_or

NORMALIZE_ACTIONS: bool = Field(
    default=True, description="the model standardizes raw actions by their mean and deviation in the training data"
)


class MLPConfig(Config):
    """jepa/predictors/mlp.py: action-conditioned residual MLP."""

    kind: Literal["mlp"] = "mlp"
    hidden: Count = 384
    depth: Count = Field(default=1, description="residual blocks")
    static: int = Field(default=0, ge=0, description="the last so many numbers of a latent stay as they are")
    normalize_actions: bool = NORMALIZE_ACTIONS


class GRUConfig(Config):
    """jepa/predictors/gru.py: the latent is the hidden state."""

    kind: Literal["gru"] = "gru"
    layer_norm_out: bool = False
    normalize_actions: bool = NORMALIZE_ACTIONS


class CausalPredictorConfig(Config):
    """jepa/predictors/causal.py: transformer over frames, actions and states (V-JEPA 2-AC, DINO-WM, JEPA-WMs, LeWM)."""

    kind: Literal["causal"] = "causal"
    state_size: int = Field(
        default=0, ge=0, description="width of what the body knows of itself; method.states says it"
    )
    hidden: Count = 1024
    depth: Count = 24
    heads: Count = 16
    mlp_ratio: Positive = 4.0
    head_dim: Count | None = Field(default=None, description="channels of a head; none: hidden / heads")
    positions: Literal["rotary", "rotary_tiled"] = "rotary"
    camera_size: int = Field(default=0, ge=0)
    layer_norm_out: bool = False
    conditioning: Literal["token", "adaln", "concat"] = Field(
        default="token",
        description="actions and states are tokens, modulate the patches of their frame, or stand beside each patch",
    )
    condition_size: Count = Field(default=10, description="with concat: numbers for the action, and for the state")
    window: Count | None = Field(default=None, description="frames that a frame reads; none: all before it")
    next_state: Literal["add_action", "apply_delta_pose", "predicted"] = Field(
        default="add_action", description="how states go on while frames are imagined"
    )
    normalize_actions: bool = NORMALIZE_ACTIONS
    normalize_states: bool = Field(default=False, description="the same for states")


Dynamics = Annotated[MLPConfig | GRUConfig | CausalPredictorConfig, Field(discriminator="kind")]
VectorDynamics = Annotated[  # for latents of one token
    Annotated[MLPConfig, Tag("mlp")]
    | Annotated[GRUConfig, Tag("gru")]
    | Annotated[CausalPredictorConfig, Tag("causal")],
    kind_or("mlp"),
]


class ACPredictorConfig(CausalPredictorConfig):
    """The same with V-JEPA 2-AC's defaults: its latents are LayerNormed."""

    layer_norm_out: bool = True


class DinoPredictorConfig(CausalPredictorConfig):
    """The same with DINO-WM's: 6 blocks, 16 heads of 64, a window of 3 frames, actions beside each patch."""

    hidden: Count = 384
    depth: Count = 6
    mlp_ratio: Positive = 2048 / 384
    head_dim: Count | None = 64
    conditioning: Literal["token", "adaln", "concat"] = "concat"
    window: Count | None = 3
    next_state: Literal["add_action", "apply_delta_pose", "predicted"] = "predicted"
    normalize_actions: bool = True
    normalize_states: bool = False


class MaskedPredictorConfig(Config):
    """jepa/predictors/masked.py: V-JEPA's predictor."""

    kind: Literal["masked"] = "masked"
    width: Count = 384
    depth: Count = 12
    heads: Count = 12
    mlp_ratio: Positive = 4.0
    positions: Literal["rotary", "rotary_tiled", "sincos"] = "rotary"
