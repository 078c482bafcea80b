"""The config of `jepa dream`, and of the controller it leaves. Imports no torch."""

from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from jepa.config import Config
from jepa.config.fields import Count, Positive, Share
from jepa_data.actions import ActionStats
from jepa_probes.planning.config import TasksConfig


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
    mirrored: float = Field(
        default=0.0,
        ge=0,
        le=0.5,
        description="share of the candidates that mirror another one; a quarter at most is best",
    )


class DistanceConfig(Config):
    """Reward: minus the distance between the latent and the goal's, and a bonus for being there."""

    kind: Literal["distance"] = "distance"
    measure: Literal["squared", "root"] = "squared"
    bonus: float = Field(default=0.0, ge=0, description="for every step that ends near the goal")
    near: Positive | None = Field(
        default=None, description="with a bonus: at most so far; none: as far as recorded neighbors in time, at median"
    )


class StateConfig(Config):
    """Reward: minus the distance between what a head reads from both latents; it is fitted to recorded true states."""

    kind: Literal["state"] = "state"
    names: Annotated[tuple[str, ...], Field(min_length=1, description="states, such as agent.x")]
    measure: Literal["squared", "root"] = "squared"


class HeadsConfig(Config):
    """jepa/agents/imagination/heads.py: how the heads for rewards and ends are fitted."""

    updates: Count = 1000
    batch: Count = 256
    lr: Positive = 1e-3
    hidden: Count = 128
    layers: int = Field(default=2, ge=0)


class WorldRewardConfig(Config):
    """Reward: the world's own, by a head that is fitted to recorded rewards; and a head for ends, where there are any.

    For worlds that set no tasks (gym:ID): the controller sees no goal, and is scored by what it earns.
    """

    kind: Literal["world"] = "world"
    heads: HeadsConfig = HeadsConfig()


class DreamConfig(TasksConfig):
    """`jepa dream`: a controller that learns in the run's model, and held-out tasks in the run's world."""

    controller: Annotated[ActorCriticConfig | EvolutionConfig, Field(discriminator="kind")] = ActorCriticConfig()
    reward: Annotated[DistanceConfig | StateConfig | WorldRewardConfig, Field(discriminator="kind")] = DistanceConfig()
    goals: Literal["episode", "any"] = Field(
        default="episode", description="of the start's own episode; or any, where the world looks the same in all"
    )
    bounds: Literal["box", "ball", "choice"] | None = Field(
        default=None,
        description="box: actions in the range of the data; ball: also 1 long at most; choice: one of several; "
        "none: a box, or a choice where the world's actions are discrete",
    )
    sampled: bool = Field(default=False, description="draw what is dreamt; else its mean is taken")
    temperature: Positive = Field(default=1.0, description="of what is drawn; more makes dreams harder to exploit")
    temperatures: tuple[Positive, ...] = Field(
        default=(), description="a controller is also trained at each of these, for the table; it is not kept"
    )
    clips: Count | None = Field(
        default=None, description="dreams start in at most so many recorded clips (reward world: episodes); none: all"
    )
    clips_per_video: Count = 2

    @model_validator(mode="after")
    def _temperature_of_samples(self) -> Self:
        if not self.sampled and (self.temperature != 1.0 or self.temperatures):
            raise ValueError("temperature and temperatures are those of sampled dreams; set sampled: true")
        return self


class ControllerConfig(Config):
    """`dream/model.json`: all that it takes to build a controller again."""

    kind: Literal["actor_critic", "evolution"]
    tokens: Count
    width: Count
    action_size: Count = Field(description="width of one action of the world")
    frames: Count = Field(description="actions of one latent step")
    action_repeat: Count
    actions: ActionStats | None = Field(
        default=None, description="of the model's data, whose range the controller covers; none: -1..1"
    )
    bounds: Literal["box", "ball", "choice"]
    actor_inputs: Literal["goal", "latent"] = "goal"
    hidden: Count | None = None
    layers: int | None = None
