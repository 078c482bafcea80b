"""The interface of planners.

A planner is built from its `Config` and has one method, `plan(cost, start, generator)`. Shapes: B episodes, planned in
parallel · K candidates · H horizon · A action width. Costs are `[B, K]`, lower is better.

Planners search normalized actions between `low` and `high`, and `std` is in the same units. ModelPredictiveControl
scales them to the units of the data.
"""

import copy
import math
from abc import ABC, abstractmethod
from dataclasses import dataclass, replace
from typing import Annotated, Any, ClassVar, Self

import torch
from jaxtyping import Float
from pydantic import Field, model_validator
from torch import Tensor

from jepa.config import Component
from jepa.config.fields import Count, NonNegative, Positive
from jepa.planners.cost import Cost


@dataclass(frozen=True)
class Plan:
    """The plan of each episode, and the number of evaluations.

    Attributes:
        cost: of the plans.
        evaluations: candidates imagined for each episode, each over the whole horizon.
        differentiated: how many of these also had a backward pass, which takes about twice as long as the forward pass.
    """

    actions: Float[Tensor, "B H A"]
    cost: Float[Tensor, " B"]
    evaluations: int
    differentiated: int = 0


class Planner(ABC):
    """Searches for a plan of low cost; the same generator gives the same plan.

    Attributes:
        low, high: bounds of every action dimension.
        several_starts: whether it searches around several starts; others take the cheapest.
    """

    low: float = -1.0
    high: float = 1.0
    several_starts: ClassVar[bool] = False
    follows_gradients: ClassVar[bool] = False

    def __init__(self, config: Component) -> None:
        self.config: Any = config  # of its own Config

    @abstractmethod
    def plan(self, cost: Cost, start: Float[Tensor, "B H A"], generator: torch.Generator) -> Plan:
        """Improve on `start` (zeros, the rest of the last plan, or another planner's), within the bounds.

        Raises:
            ValueError: the horizon is 0, or a cost is not finite.
        """

    def plan_from(self, cost: Cost, starts: Float[Tensor, "B P H A"], generator: torch.Generator) -> Plan:
        """Improve on several starts, such as what was done before in much the same place; raises as `plan`."""
        if starts.shape[1] == 1:
            return self.plan(cost, starts[:, 0], generator)
        with torch.no_grad():
            search = Search(cost, starts[:, 0], self.low, self.high)
            search(search.bounded(starts))
        plan = self.plan(cost, search.actions, generator)
        return replace(plan, evaluations=plan.evaluations + search.evaluations)

    def bounded(self, low: float, high: float) -> Self:
        """The same planner with other bounds, which may be infinite.

        Raises:
            ValueError: it cannot search without bounds.
        """
        other = copy.copy(self)
        other.low = low
        other.high = high
        return other

    def gradient_free(self) -> "Planner | None":
        """The part of this planner that needs no gradient of the cost; None: there is none."""
        return None if self.follows_gradients else self

    def __repr__(self) -> str:
        settings = ", ".join(f"{name}={value!r}" for name, value in vars(self).items())
        return f"{type(self).__name__}({settings})"


COST_TOLERANCE = Field(
    default=None, description="stop early when the best plan of every episode costs at most this; none: never"
)
# Steps and noise in units of the actions, which may be raw: newtons, degrees, encoder counts.
Width = Annotated[Positive, Field(le=1e4)]


class SamplingConfig(Component):
    """Number of samples, and fit of the Gaussian."""

    samples: int = Field(default=100, gt=1, description="candidates per iteration and episode")
    elites: int = Field(default=10, gt=1, description="number of best samples to which the next Gaussian is fitted")
    iterations: Count = Field(default=4, description="sampling iterations")
    std: Width = Field(default=0.7, description="standard deviation of the first Gaussian")
    min_std: Width = Field(default=0.05, description="minimum standard deviation; at most std")
    cost_tolerance: NonNegative | None = COST_TOLERANCE

    @model_validator(mode="after")
    def _fits(self) -> Self:
        if self.elites > self.samples:
            raise ValueError(f"elites must be samples ({self.samples}) at most, found {self.elites}")
        if self.min_std > self.std:
            raise ValueError(f"min_std must be std ({self.std:g}) at most, found {self.min_std:g}")
        return self


class Search:
    """Evaluates candidates and keeps the best of each episode. The result is never worse than the start."""

    def __init__(self, cost: Cost, start: Float[Tensor, "B H A"], low: float, high: float) -> None:
        if not start.shape[1]:
            raise ValueError("the planning horizon is 0; plan at least one step ahead")
        self.cost = cost
        self.low, self.high = low, high
        self.start = self.actions = start.clamp(low, high)
        self.best = torch.full((len(start),), torch.inf, device=start.device)
        self.evaluations = self.differentiated = 0

    def __call__(self, actions: Float[Tensor, "B K H A"]) -> Float[Tensor, "B K"]:
        """Evaluate candidates within the bounds, and return their costs. Raises ValueError if one is not finite."""
        return self.note(actions, self.cost(actions))

    def note(self, actions: Float[Tensor, "B K H A"], costs: Float[Tensor, "B K"]) -> Float[Tensor, "B K"]:
        """The same of candidates whose costs are known already."""
        if not math.isfinite(costs.detach().sum()):  # one number to look at; large finite costs may add up to infinity
            self._check_finite(costs)
        self.count(costs)
        value, index = costs.detach().min(1, keepdim=True)
        cheapest = choose(actions.detach(), index)[:, 0]
        better = value[:, 0] < self.best
        self.actions = torch.where(better[:, None, None], cheapest, self.actions)
        self.best = torch.where(better, value[:, 0], self.best)
        return costs

    def _check_finite(self, costs: Float[Tensor, "B K"]) -> None:
        wrong = ~torch.isfinite(costs)
        if wrong.any():
            raise ValueError(
                f"{int(wrong.sum())} of {costs.numel()} plans have a cost that is not finite, in episodes "
                f"{wrong.any(1).nonzero()[:5, 0].tolist()}; has the model diverged?"
            )

    def count(self, costs: Float[Tensor, "B K"]) -> None:
        """Count imagined candidates, and those with gradients."""
        self.evaluations += costs.shape[1]
        self.differentiated += costs.shape[1] * costs.requires_grad

    def reached(self, cost: float | None) -> bool:
        """Whether the best plan of every episode costs at most this; None: never."""
        return cost is not None and bool((self.best <= cost).all())

    def bounded(self, actions: Tensor) -> Tensor:
        return actions.clamp(self.low, self.high)

    def plan(self) -> Plan:
        return Plan(self.actions, self.best, self.evaluations, self.differentiated)


def within_ball(actions: Float[Tensor, "*batch A"]) -> Float[Tensor, "*batch A"]:
    """Scale actions longer than 1 to length 1, for worlds that do the same."""
    return actions / actions.norm(dim=-1, keepdim=True).clamp_min(1)


def draw(shape: tuple[int, ...], like: Tensor, generator: torch.Generator) -> Tensor:
    """Standard normal numbers, the same on every device."""
    return torch.randn(shape, generator=generator).to(like)


def choose(actions: Float[Tensor, "B K H A"], index: Tensor) -> Float[Tensor, "B E H A"]:
    """The candidates with these numbers [B, E]."""
    return actions.gather(1, index[..., None, None].expand(-1, -1, *actions.shape[2:]))
