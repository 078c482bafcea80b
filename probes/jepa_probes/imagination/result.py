"""RUN/dream.json: how a controller that learned in dreams did in the world."""

from collections.abc import Mapping
from typing import Any, ClassVar

from pydantic import AliasChoices, Field

from jepa.config.result import Number, Part, Result
from jepa_probes.planning.result import Success
from jepa_probes.planning.tasks import Play, Protocol


class Score(Part):
    """The share of tasks that was solved or, in a world without tasks, the mean return; with its 95 % interval.

    Attributes:
        success, tasks: None in a world without tasks.
        mean_return, episodes, length: None in a world with tasks; `length` is in steps of the world.
    """

    success: Number = None
    tasks: int | None = None
    mean_return: Number = Field(
        default=None, serialization_alias="return", validation_alias=AliasChoices("mean_return", "return")
    )
    low: Number
    high: Number
    episodes: int | None = None
    length: Number = None

    @property
    def value(self) -> float | None:
        """The headline."""
        return self.success if self.tasks is not None else self.mean_return

    @property
    def count(self) -> int | None:
        """Tasks or, in a world without tasks, episodes."""
        return self.tasks or self.episodes

    def as_success(self) -> Success:
        """The same, in a world with tasks."""
        return Success.model_validate(self.model_dump(include=set(Success.model_fields)))


class Returns(Part):
    """Rewards of `steps` latent steps added up, in the dream and in the world.

    Attributes:
        dream, world: means over tasks; `gap` is dream - world.
        apart: mean size of the difference of one task.
        correlation: Pearson's, over tasks; None where one of the two is the same in all.
    """

    steps: int
    dream: Number
    world: Number
    gap: Number
    apart: Number
    correlation: Number


class DreamScore(Score):
    """How a controller did; see `DreamResult`."""

    baselines: dict[str, Score]
    ever_reached: Number = None
    median_distance: Number = None
    unit: str | None = None
    protocol: Protocol | Play
    seconds: float
    distances: list[Number] | None = None
    collected_rewards: list[Number] | None = None
    returns: dict[str, Returns]


class DreamResult(Result, DreamScore):
    """A controller that learned in dreams, in the world and beside others.

    Attributes:
        planner: the score of `jepa plan` on the same tasks, if there is one.
        returns: `horizon` (as in training) and `task` (as long as the task).
        temperatures: the same at each temperature; empty where nothing is sampled.
        heads: how well rewards and ends of the world are known, where they are learned.
        history: (update, return in the dream).
        collected_rewards: of each episode, in a world without tasks.
    """

    FILE: ClassVar[str] = "dream.json"
    VERB: ClassVar[str] = "dream"
    history: list[tuple[int, Number]]
    training_seconds: float
    training_cpu_seconds: float
    planner: Success | None
    temperatures: dict[str, dict[str, Returns]]
    heads: Mapping[str, Number]
    settings: dict[str, Any]
