"""The config of `jepa online`. Imports no torch."""

from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from jepa.agents.imagination import CONTROLLERS
from jepa.config import DEFAULT, Component, Config, part
from jepa.config.fields import Count, Positive
from jepa.encoders import ENCODERS
from jepa.encoders.base import EncoderConfig
from jepa.methods import METHODS
from jepa.methods.config import MethodConfig
from jepa.training.config import OptimizerConfig
from jepa.training.schedules import SCHEDULES


class EnvironmentConfig(Config):
    """Where episodes are collected, and played to evaluate."""

    world: str = Field(
        description="a world, such as gym:Pendulum-v1 (any Gymnasium environment that renders) or reacher"
    )
    image_size: Count = 64
    max_steps: Count = Field(default=1000, description="environment steps after which an episode is cut")
    action_repeat: Count = Field(default=1, description="environment steps for which a decision is repeated")
    goal: tuple[float, ...] | None = Field(
        default=None, description="of worlds that set tasks: the state to reach; the reward is minus the distance to it"
    )


class ReplayConfig(Config):
    """What the world model learns from: sequences, drawn evenly from the last episodes."""

    capacity: Count = Field(default=1_000_000, description="frames kept; the oldest episodes go")
    batch_size: Count = Field(default=16, description="sequences of a batch")
    sequence_frames: int = Field(default=64, ge=2, description="frames of a sequence, which may span episodes")


class OnlineConfig(Config):
    """`jepa online`: the environment, the world model, the controller, and how they learn."""

    run: str = Field(description="folder for everything this run writes")
    seed: int = Field(default=0, ge=0)
    environment: EnvironmentConfig
    encoder: Annotated[EncoderConfig, part(ENCODERS, "dreamer_conv")] = DEFAULT
    method: Annotated[MethodConfig, part(METHODS, "dreamer")] = DEFAULT
    controller: Annotated[Component, part(CONTROLLERS, "actor_critic")] = DEFAULT
    optimizer: OptimizerConfig = OptimizerConfig()
    schedule: Annotated[Component, part(SCHEDULES, "flat")] = DEFAULT
    replay: ReplayConfig = ReplayConfig()
    steps: Count = Field(description="environment steps in all")
    random_steps: Count = Field(default=1000, description="of them, at first, by random actions")
    train_ratio: Positive = Field(
        default=256, description="frames that the world model learns from for each decision of the controller"
    )
    clip_norm: Positive | None = None
    evaluate_every: Count = Field(default=10_000, description="environment steps")
    evaluation_episodes: int = Field(default=10, ge=2, description="the same ones each time, without exploration")
    checkpoint_every: Count = Field(default=10_000, description="environment steps, rounded up to whole episodes")
    device: Literal["auto", "cpu", "cuda"] = "auto"

    @model_validator(mode="after")
    def _learns_online(self) -> Self:
        if self.method.kind != "dreamer" or not self.method.target_names():
            raise ValueError("method: expected kind dreamer with predict: rewards; no other learns what actions earn")
        if self.controller.kind != "actor_critic":
            raise ValueError("controller: expected kind actor_critic; no other one learns along with its world model")
        if self.encoder.tubelet != 1:
            raise ValueError("encoder.tubelet: expected 1, a latent for every frame that is acted on")
        return self
