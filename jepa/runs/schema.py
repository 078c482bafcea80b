"""The typed description of a run. Light: reading a config does not import torch.

Every component is chosen by its `kind:` from a closed list; `jepa/runs/build.py` makes the objects.
"""

from typing import Annotated, Any, Literal, Self

from pydantic import Discriminator, Field, Tag, model_validator

from jepa.config import Config
from jepa.encoders.sizes import SIZES
from jepa_data.config import StreamConfig

Share = Annotated[float, Field(ge=0, le=1)]
Positive = Annotated[float, Field(gt=0)]
Count = Annotated[int, Field(gt=0)]


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


Encoder = Annotated[ConvConfig | VideoViTConfig | FrameConfig | StillsConfig, Field(discriminator="kind")]


class MarkovConfig(Config):
    """jepa/predictors/markov.py: action-conditioned residual MLP."""

    kind: Literal["markov"] = "markov"
    hidden: Count = 384


class GRUConfig(Config):
    """jepa/predictors/gru.py: the latent is the hidden state."""

    kind: Literal["gru"] = "gru"


class CausalPredictorConfig(Config):
    """jepa/predictors/causal.py: V-JEPA 2-AC's transformer over frames, actions and states."""

    kind: Literal["causal"] = "causal"
    state_size: int = Field(default=0, ge=0, description="width of what the body knows of itself; 0: nothing")
    hidden: Count = 1024
    depth: Count = 24
    heads: Count = 16
    mlp_ratio: Positive = 4.0
    positions: Literal["rotary", "rotary_tiled"] = "rotary"
    camera_size: int = Field(default=0, ge=0)
    layer_norm_out: bool = False
    next_state: Literal["add_action", "move_gripper"] = "add_action"


Dynamics = Annotated[MarkovConfig | GRUConfig | CausalPredictorConfig, Field(discriminator="kind")]
VectorDynamics = Annotated[  # for latents of one token
    Annotated[MarkovConfig, Tag("markov")] | Annotated[GRUConfig, Tag("gru")], kind_or("markov")
]


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
    directions: Count = 256


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


Method = Annotated[LeWMConfig | VJEPAConfig | VPixelConfig | LeVJEPAConfig, Field(discriminator="kind")]


class OptimizerConfig(Config):
    """AdamW; biases and other 1-D parameters are not decayed."""

    lr: Positive = 1e-3
    weight_decay: float = Field(default=0.04, ge=0)
    final_weight_decay: float | None = Field(
        default=None, ge=0, description="reached at the last step, along a half cosine; none: weight_decay throughout"
    )
    betas: tuple[Share, Share] = (0.9, 0.999)


class CosineConfig(Config):
    """Linear warm-up from `start_lr`, then a half cosine down to `final_lr` at the last step."""

    kind: Literal["cosine"] = "cosine"
    warmup_steps: int = Field(default=0, ge=0)
    start_lr: float = Field(default=0.0, ge=0)
    final_lr: float = Field(default=0.0, ge=0)


class FlatConfig(Config):
    """Linear warm-up from `start_lr`, then constant."""

    kind: Literal["flat"] = "flat"
    warmup_steps: int = Field(default=0, ge=0)
    start_lr: float = Field(default=0.0, ge=0)


class WSDConfig(Config):
    """Linear warm-up from `start_lr`, stable, then a straight line to `final_lr` over the last `decay_steps`."""

    kind: Literal["wsd"] = "wsd"
    warmup_steps: int = Field(default=0, ge=0)
    decay_steps: int = Field(default=0, ge=0)
    start_lr: float = Field(default=0.0, ge=0)
    final_lr: float = Field(default=0.0, ge=0)


class LinearConfig(Config):
    """A straight line from `optimizer.lr` to `final_lr` over the whole run: V-JEPA 2's cooldown."""

    kind: Literal["linear"] = "linear"
    final_lr: float = Field(default=0.0, ge=0)


Schedule = Annotated[CosineConfig | FlatConfig | WSDConfig | LinearConfig, Field(discriminator="kind")]


class TrainerConfig(Config):
    """How long, on what, and how often to log and save. `steps` counts optimiser steps."""

    steps: Count
    device: Literal["auto", "cpu", "cuda"] = "auto"
    devices: Count = Field(default=1, description="processes on this machine, each with a GPU of its own if there are")
    nodes: Count = Field(default=1, description="machines; start the command on each with torchrun or srun")
    precision: Literal["auto", "32", "bf16"] = Field(default="auto", description="auto: bf16 where the hardware has it")
    accumulate: Count = Field(default=1, description="batches whose gradients are averaged for one step")
    clip_norm: Positive | None = 1.0
    log_every: Count = 10
    gauge_every: Count = 25
    probe_every: int = Field(default=0, ge=0, description="steps from one online probe to the next; 0: none")
    probe: Literal["knn", "linear"] = Field(default="linear", description="what it is; linear also finds true states")
    checkpoint_every: Count = 500
    warn_rank_below: float = Field(default=3.0, ge=0, description="effective rank at which a collapse is reported")


class PretrainConfig(Config):
    """`jepa pretrain`: the data, the method and its parts, how it is optimised, and where the results go."""

    run: str = Field(description="folder for everything this run writes")
    seed: int = Field(default=0, ge=0)
    init_from: str | None = Field(
        default=None, description="run to start from: its weights and its optimiser; the schedule starts anew"
    )
    data: StreamConfig
    encoder: Encoder
    method: Method
    optimizer: OptimizerConfig = OptimizerConfig()
    schedule: Schedule = Field(default=CosineConfig(), discriminator="kind")
    trainer: TrainerConfig


class SpecConfig(Config):
    """jepa.world_model.LatentSpec."""

    tokens: Count
    width: Count
    step_seconds: Positive
    frames_per_step: Count
    action_size: Count | None = None


class PreprocessingConfig(Config):
    """jepa.world_model.Preprocessing."""

    image_size: Count
    fps: Positive
    mean: tuple[float, float, float]
    std: tuple[Positive, Positive, Positive]


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


class RandomShootingConfig(Config):
    """jepa/planners/random_shooting.py."""

    kind: Literal["random"] = "random"
    samples: Count = 1000


class CEMConfig(Config):
    """jepa/planners/cem.py."""

    kind: Literal["cem"] = "cem"
    samples: int = Field(default=100, gt=1)
    elites: int = Field(default=10, gt=1)
    iterations: Count = 4
    std: Positive = 0.7
    min_std: Positive = 0.05
    enough: float | None = None


class ICEMConfig(Config):
    """jepa/planners/icem.py."""

    kind: Literal["icem"] = "icem"
    samples: int = Field(default=100, gt=1)
    elites: int = Field(default=10, gt=1)
    iterations: Count = 4
    std: Positive = 0.7
    min_std: Positive = 0.05
    beta: float = Field(default=2.0, ge=0)
    keep: Share = 0.3
    decay: float = Field(default=1.25, ge=1)
    momentum: float = Field(default=0.1, ge=0, lt=1)
    enough: float | None = None


class MPPIConfig(Config):
    """jepa/planners/mppi.py."""

    kind: Literal["mppi"] = "mppi"
    samples: int = Field(default=100, gt=1)
    elites: int = Field(default=20, gt=1)
    iterations: Count = 6
    std: Positive = 0.7
    min_std: Positive = 0.05
    temperature: Positive = 0.5
    enough: float | None = None


class GradientConfig(Config):
    """jepa/planners/gradient.py."""

    kind: Literal["gradient"] = "gradient"
    steps: Count = 50
    lr: Positive = 0.05
    starts: Count = 8
    std: Positive = 0.7
    enough: float | None = None


class GRASPConfig(Config):
    """jepa/planners/grasp.py."""

    kind: Literal["grasp"] = "grasp"
    steps: Count = 60
    lr: Positive = 0.05
    latent_lr: Positive = 0.05
    consistency: float = Field(default=1.0, ge=0)
    starts: Count = 8
    std: Positive = 0.7
    noise: float = Field(default=0.05, ge=0)
    sync_every: Count = 10


Sampler = Annotated[RandomShootingConfig | CEMConfig | ICEMConfig | MPPIConfig, Field(discriminator="kind")]


class HybridConfig(Config):
    """jepa/planners/hybrid.py: sample, then refine by gradient."""

    kind: Literal["hybrid"] = "hybrid"
    sampler: Sampler = CEMConfig()
    refine: GradientConfig = GradientConfig(steps=20, lr=0.02, starts=1)


PlannerConfig = Annotated[
    Annotated[RandomShootingConfig, Tag("random")]
    | Annotated[CEMConfig, Tag("cem")]
    | Annotated[ICEMConfig, Tag("icem")]
    | Annotated[MPPIConfig, Tag("mppi")]
    | Annotated[GradientConfig, Tag("gradient")]
    | Annotated[GRASPConfig, Tag("grasp")]
    | Annotated[HybridConfig, Tag("hybrid")],
    kind_or("cem"),
]


class TasksConfig(Config):
    """Held-out tasks in the run's own world: what a protocol says, as far as it is not left to the world."""

    run: str | None = Field(default=None, description="the run, where the command names this file in its place")
    world: str | None = Field(default=None, description="refuse a run that was recorded in another world")
    world_version: Count | None = Field(default=None, description="refuse another version of that world")
    tasks: int = Field(default=200, gt=1)
    steps: Count = Field(default=40, description="budget of world steps per task")
    radius: Positive | None = Field(
        default=None, description="success: it ends this close to the goal, in the world's unit; none: the world's own"
    )
    least_distance: Positive | None = Field(
        default=None, description="goals nearer to the start than this are drawn again; none: those within the radius"
    )
    goal_offset: Count | None = Field(
        default=None, description="a goal is where goal_policy gets within so many steps; none: drawn by the world"
    )
    goal_policy: str | None = Field(default=None, description="with goal_offset; none: the world's first policy")
    hold: Count = Field(default=1, description="steps of the world for which an action is held")
    seed: int = Field(default=0, ge=0)


class PlanConfig(TasksConfig):
    """`jepa plan`: held-out tasks in the run's own world, and how they are planned."""

    simulator_tasks: int | None = Field(
        default=None, ge=0, description="how many of the tasks are also planned on the true simulator; none: all"
    )
    gifs: int = Field(default=4, ge=0, le=24, description="how many tasks are drawn")
    horizon: Count = Field(default=6, description="latent steps looked ahead")
    execute: Count = Field(default=2, description="latent steps acted on before planning again")
    path_weight: Share = 1.0
    planner: PlannerConfig = CEMConfig()


class ActorCriticConfig(Config):
    """jepa/agents/imagination/actor_critic.py: policy and value, trained in dreams."""

    kind: Literal["actor_critic"] = "actor_critic"
    updates: Count = 2000
    batch: Count = 256
    horizon: Count = Field(default=15, description="latent steps of a dream")
    discount: float = Field(default=1 - 1 / 333, gt=0, lt=1)
    trace: Share = Field(default=0.95, description="lambda of the returns")
    gradient: Literal["reinforce", "dynamics"] = "reinforce"
    entropy: float = Field(default=3e-4, ge=0)
    return_rate: Share = 0.01
    critic_rate: Share = 0.02
    lr: Positive = 3e-4
    clip_norm: Positive = 1.0
    hidden: Count = 256
    layers: int = Field(default=2, ge=0)


class EvolutionConfig(Config):
    """jepa/agents/imagination/evolution.py: a linear controller, found by CMA-ES in dreams."""

    kind: Literal["evolution"] = "evolution"
    generations: Count = 300
    population: int = Field(default=64, ge=4)
    rollouts: Count = Field(default=16, description="dreams of each candidate, the same for all of a generation")
    horizon: Count = Field(default=15, description="latent steps of a dream")
    std: Positive = 0.1


class DistanceConfig(Config):
    """Reward: minus the distance between the latent and the goal's, and a bonus for being there."""

    kind: Literal["distance"] = "distance"
    measure: Literal["squared", "root"] = "squared"
    bonus: float = Field(default=0.0, ge=0, description="for every step that ends near the goal")
    near: Positive | None = Field(
        default=None, description="with a bonus: at most so far; none: as far as recorded neighbours in time, at median"
    )


class StateConfig(Config):
    """Reward: minus the distance between what a head reads from both latents; it is fitted to recorded true states."""

    kind: Literal["state"] = "state"
    names: Annotated[tuple[str, ...], Field(min_length=1, description="states, such as agent.x")]
    measure: Literal["squared", "root"] = "squared"


class DreamConfig(TasksConfig):
    """`jepa dream`: a controller that learns in the run's model, and held-out tasks in the run's world."""

    controller: Annotated[ActorCriticConfig | EvolutionConfig, Field(discriminator="kind")] = ActorCriticConfig()
    reward: Annotated[DistanceConfig | StateConfig, Field(discriminator="kind")] = DistanceConfig()
    goals: Literal["episode", "any"] = Field(
        default="episode", description="of the start's own episode; or any, where the world looks the same in all"
    )
    bounds: Literal["box", "ball"] = Field(default="box", description="ball: actions are 1 long at most")
    sampled: bool = Field(default=False, description="draw what is dreamt; else its mean is taken")
    clips: Count | None = Field(default=None, description="dreams start in at most so many recorded clips; none: all")
    clips_per_video: Count = 2


class ControllerConfig(Config):
    """`dream/model.json`: all that it takes to build a controller again."""

    kind: Literal["actor_critic", "evolution"]
    tokens: Count
    width: Count
    action_size: Count = Field(description="width of one action of the world")
    frames: Count = Field(description="actions of one latent step")
    hold: Count
    bounds: Literal["box", "ball"]
    hidden: Count | None = None
    layers: int | None = None
