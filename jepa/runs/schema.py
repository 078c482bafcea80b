"""The typed description of a run. Light: reading a config does not import torch.

Every component is chosen by its `kind:` from a closed list; `jepa/runs/build.py` makes the objects.
"""

from typing import Annotated, Any, Literal, Self

from pydantic import Discriminator, Field, Tag, model_validator

from jepa.config import Config
from jepa.encoders.sizes import SIZES
from jepa.runs.training import (
    CosineConfig,
    Count,
    OptimizerConfig,
    Positive,
    Schedule,
    Share,
    TrainerConfig,
)
from jepa_data.actions import ActionStats
from jepa_data.config import StreamConfig


def kind_or(default: str) -> Discriminator:
    """Chooses by `kind`, which may be left out."""

    def choose(value: Any) -> str:
        return str(value.get("kind", default) if isinstance(value, dict) else getattr(value, "kind", default))

    return Discriminator(choose)


class ConvConfig(Config):
    """jepa/encoders/conv.py: one vector per latent step."""

    kind: Literal["conv"] = "conv"
    width: Count = 64
    tubelet: Count = 2
    channels: Count = 32
    hidden: Count = 256


class ImpalaConfig(Config):
    """jepa/encoders/impala.py: one vector per latent step, as EB-JEPA and PLDM have it."""

    kind: Literal["impala"] = "impala"
    width: Count = 512
    tubelet: Count = 1
    channels: Annotated[tuple[Count, ...], Field(min_length=1)] = (16, 32, 32)
    blocks: Count = 2


class VideoViTConfig(Config):
    """jepa/encoders/video_vit.py: h/patch x w/patch tokens per latent step."""

    kind: Literal["video_vit"] = "video_vit"
    size: Literal["tiny", "small", "base", "large", "huge", "giant", "gigantic"] | None = Field(
        default=None, description="a published size, in place of width, depth, heads and mlp_ratio"
    )
    patch: Count = 16
    tubelet: Count = 2
    width: Count = 192
    depth: Count = 12
    heads: Count = 3
    mlp_ratio: Positive = 4.0
    cls_token: bool = False
    attention: Literal["bidirectional", "causal", "block_causal"] = "bidirectional"
    positions: Literal["rotary", "rotary_tiled", "sincos"] = "rotary"
    levels: tuple[int, ...] = Field(default=(), description="blocks given out, from 0; (): the last alone")
    position_grid: Count | None = None
    images: bool = False
    checkpoint_every: int = Field(default=0, ge=0, description="recompute every n-th block in the backward pass")

    @model_validator(mode="after")
    def _fill_size(self) -> Self:
        """`size: base` says width, depth, heads and mlp_ratio."""
        for name, value in vars(SIZES[self.size]).items() if self.size else ():
            if name in self.model_fields_set and (given := getattr(self, name)) != value:
                raise ValueError(f"size {self.size} has {name} {value:.6g}, found {given}; leave out one of the two")
            object.__setattr__(self, name, value)  # frozen, but nobody has seen it yet
        return self


class FrameConfig(Config):
    """jepa/encoders/frame.py: a timm model applied to each frame."""

    kind: Literal["frame"] = "frame"
    model: str = Field(description="a name of timm's, such as vit_tiny_patch16_224 or resnet18")
    pretrained: bool = Field(default=False, description="start from timm's weights, which are downloaded once")
    output: Literal["tokens", "pooled"] = "tokens"
    patch: Count | None = Field(default=None, description="of a transformer, in pixels; none: what its name says")
    projection: Count | None = Field(
        default=None, description="with pooled: hidden units of an MLP with BatchNorm behind it, as LeWM has"
    )
    tubelet: Literal[1] = 1

    @property
    def width(self) -> int:
        """D of the latents. Only timm knows it, so asking imports torch."""
        from jepa.encoders.frame import latent_width

        return latent_width(self.model, self.output)


class StillsConfig(Config):
    """jepa/encoders/stills.py: a video encoder that is shown one frame at a time."""

    kind: Literal["stills"] = "stills"
    of: VideoViTConfig
    layer_norm: bool = True
    tubelet: Literal[1] = 1

    @property
    def width(self) -> int:
        """D of the latents."""
        return self.of.width


Encoder = Annotated[
    ConvConfig | ImpalaConfig | VideoViTConfig | FrameConfig | StillsConfig, Field(discriminator="kind")
]


NORMALIZE_ACTIONS: bool = Field(
    default=True, description="the model standardizes raw actions by their mean and deviation in the training data"
)


class MarkovConfig(Config):
    """jepa/predictors/markov.py: action-conditioned residual MLP."""

    kind: Literal["markov"] = "markov"
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
    next_state: Literal["add_action", "move_gripper", "predicted"] = Field(
        default="add_action", description="how states go on while frames are imagined"
    )
    normalize_actions: bool = NORMALIZE_ACTIONS
    normalize_states: bool = Field(default=False, description="the same for states")


Dynamics = Annotated[MarkovConfig | GRUConfig | CausalPredictorConfig, Field(discriminator="kind")]
VectorDynamics = Annotated[  # for latents of one token
    Annotated[MarkovConfig, Tag("markov")]
    | Annotated[GRUConfig, Tag("gru")]
    | Annotated[CausalPredictorConfig, Tag("causal")],
    kind_or("markov"),
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
    next_state: Literal["add_action", "move_gripper", "predicted"] = "predicted"
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


class MultiBlockConfig(Config):
    """jepa/masks/multiblock.py: how many blocks, and the share of the picture each covers."""

    kind: Literal["multiblock"] = "multiblock"
    blocks: Count
    scale: Share
    aspect: tuple[Positive, Positive] = (0.75, 1.5)


class TubeConfig(Config):
    """jepa/masks/tube.py: the same random cells are hidden at every step."""

    kind: Literal["tube"] = "tube"
    ratio: Share = 0.9


class CausalConfig(Config):
    """jepa/masks/causal.py: the later steps are predicted from the earlier ones."""

    kind: Literal["causal"] = "causal"
    context: tuple[Share, Share] = Field(default=(0.5, 0.5), description="range of the share of steps that are seen")


class RandomDropConfig(Config):
    """jepa/masks/random_drop.py: tokens hidden at random."""

    kind: Literal["random_drop"] = "random_drop"
    ratio: Share = 0.9


MaskConfig = Annotated[
    Annotated[MultiBlockConfig, Tag("multiblock")]
    | Annotated[TubeConfig, Tag("tube")]
    | Annotated[CausalConfig, Tag("causal")]
    | Annotated[RandomDropConfig, Tag("random_drop")],
    kind_or("multiblock"),  # masks were blocks before there were others
]
Masks = Annotated[tuple[MaskConfig, ...], Field(min_length=1)]
VJEPA_MASKS = (MultiBlockConfig(blocks=8, scale=0.15), MultiBlockConfig(blocks=2, scale=0.7))


class LeWMConfig(Config):
    """jepa/methods/lewm.py: latent prediction with actions, SIGReg, inverse dynamics, time-similarity."""

    kind: Literal["lewm"] = "lewm"
    predictor: VectorDynamics = MarkovConfig()
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
    predictor: VectorDynamics = MarkovConfig()
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


class PretrainConfig(Config):
    """`jepa pretrain`: the data, the method and its parts, how it is optimised, and where the results go."""

    run: str = Field(description="folder for everything this run writes")
    seed: int = Field(default=0, ge=0)
    init_from: str | None = Field(
        default=None, description="run to start from: its weights and its optimiser; the schedule starts anew"
    )
    data: StreamConfig
    encoder: Encoder | None = Field(
        default=None, description="only where method.encoder_from names one: it may be none"
    )
    method: Method
    optimizer: OptimizerConfig = OptimizerConfig()
    schedule: Schedule = Field(default=CosineConfig(), discriminator="kind")
    trainer: TrainerConfig

    @model_validator(mode="after")
    def _encoder_is_somewhere(self) -> Self:
        named = isinstance(self.method, FrozenEncoderConfig) and self.method.encoder_from is not None
        if self.encoder is None and not named:
            also = ", or name a run in method.encoder_from" if isinstance(self.method, FrozenEncoderConfig) else ""
            raise ValueError(f"encoder: missing; expected a description such as {{kind: video_vit}}{also}")
        return self


class SpecConfig(Config):
    """jepa.world_model.LatentSpec."""

    tokens: Count
    width: Count
    step_seconds: Positive
    frames_per_step: Count
    action_size: Count | None = None
    history: Count = 1
    states: tuple[str, ...] = ()
    actions: ActionStats | None = Field(
        default=None, description="range, mean and deviation of raw actions; none: not known, -1..1 is assumed"
    )


class PreprocessingConfig(Config):
    """jepa_data.preprocessing.Preprocessing."""

    image_size: Count
    fps: Positive
    mean: tuple[float, float, float]
    std: tuple[Positive, Positive, Positive]
    fit: Literal["crop", "stretch"] = "crop"
    shortest_edge: Count | None = None
    clip_frames: Count | None = None


class ModelConfig(Config):
    """`model.json`: all that it takes to build a model again and to prepare video for it."""

    method: str = Field(description="what trained it: a kind of method, or where the weights were imported from")
    frames: Count = Field(description="length of the clips it was trained on")
    encoder: Encoder
    dynamics: Dynamics | None = None
    spec: SpecConfig
    preprocessing: PreprocessingConfig


class ProbeConfig(Config):
    """`jepa probe`: how much data and effort the probes get."""

    shards: str | None = Field(
        default=None, description="folder of shards to probe on; none: the run's. A model without a run needs it"
    )
    fps: Positive | None = Field(default=None, description="with `shards`: rate of the clips; none: the model's")
    train_episodes: Count | None = Field(default=None, description="fit on at most so many episodes; none: all")
    test_episodes: Count | None = None
    clip_frames: Count | None = Field(default=None, description="frames per clip; none: as in training")
    clips_per_video: Count = 2
    labels: tuple[str, ...] | None = Field(default=None, description="labels to classify; none: all of the data set")
    supervised: bool = Field(
        default=True, description="also train an encoder on the true states, with the budget of the run"
    )
    seed: int = Field(default=0, ge=0)
