"""The config of `jepa dream`, and of the controller it leaves."""

from typing import Annotated, Literal, Self

from pydantic import Field, field_validator, model_validator

from jepa.agents.imagination import CONTROLLERS
from jepa.config import DEFAULT, Component, Config, part
from jepa.config.fields import Count, Positive
from jepa_data.actions import ActionStats
from jepa_probes.imagination.rewards import REWARDS
from jepa_probes.planning.config import TasksConfig


class DreamConfig(TasksConfig):
    """`jepa dream`: a controller that learns in the run's model, and held-out tasks in the run's world."""

    controller: Annotated[Component, part(CONTROLLERS, "actor_critic")] = DEFAULT
    reward: Annotated[Component, part(REWARDS, "distance")] = DEFAULT
    goals: Literal["episode", "any"] = Field(
        default="episode", description="of the start's own episode; or any, where the world looks the same in all"
    )
    bounds: Literal["box", "ball", "choice"] | None = Field(
        default=None,
        description="box: actions in the range of the data; ball: also 1 long at most; choice: one of several; "
        "none: a box, or a choice where the world's actions are discrete",
    )
    sampled: bool = Field(default=False, description="sample predicted latents; else use their mean")
    temperature: Positive = Field(default=1.0, description="of the samples; more makes dreams harder to exploit")
    temperatures: tuple[Positive, ...] = Field(
        default=(), description="a controller is also trained at each of these, for the table; it is not kept"
    )
    clips: Count | None = Field(
        default=None,
        description="dreams start from at most this many recorded clips (reward world: episodes); none: all",
    )
    clips_per_video: Count = 2

    @property
    def drawn_at(self) -> float | None:
        """The temperature of what is dreamt; None: nothing is drawn."""
        return self.temperature if self.sampled else None

    @model_validator(mode="after")
    def _temperature_of_samples(self) -> Self:
        if not self.sampled and (self.temperature != 1.0 or self.temperatures):
            raise ValueError("temperature and temperatures are those of sampled dreams; set sampled: true")
        return self


class ControllerConfig(Config):
    """`dream/model.json`: all that it takes to build a controller again."""

    kind: str = Field(description="of what trained it")
    tokens: Count
    width: Count
    action_size: Count = Field(description="width of one action of the world")
    frames: Count = Field(description="actions of one latent step")
    action_repeat: Count
    actions: ActionStats | None = Field(
        default=None, description="of the model's data, whose range the controller covers; none: -1..1"
    )
    bounds: Literal["box", "ball", "choice"]
    actor_inputs: Literal["goal", "latent", "memory"] = "goal"
    hidden: Count | None = None
    layers: int | None = None

    @field_validator("kind")
    @classmethod
    def _is_known(cls, kind: str) -> str:
        if kind not in CONTROLLERS:
            raise ValueError(f"expected one of {', '.join(CONTROLLERS)}, found {kind!r}")
        return kind
