"""Costs of plans. A planner sees only `cost(actions [B, K, H, A]) -> [B, K]`; lower is better.

    cost = LatentCost(dynamics, state, (
        Term(goal_reached(z_goal, running_cost_weight=1.0)),
        Term(action_cost(), 0.01),
        Term(keep_out(position, center, radius), 10.0),   # a region to avoid
        Term(lambda imagined: ...),                       # anything else: Imagined -> [B, K]
    ))

The episode is encoded once, before the cost is built; all candidates share that state. If their latents (a frame may
have hundreds of tokens) and the states of the dynamics exceed `max_bytes`, candidates are imagined in chunks.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import cached_property

import torch
from jaxtyping import Float
from torch import Tensor

from jepa.planners.futures import Futures
from jepa.world_model import Dynamics, State, rollout
from jepa_data.actions import ActionStats

MAX_BYTES = 2**30  # of what is imagined at once
COPIES = 3  # of the latents, while their distances to a goal are taken
Cost = Callable[[Float[Tensor, "B K H A"]], Float[Tensor, "B K"]]
Decode = Callable[[Float[Tensor, "B K H N D"]], Float[Tensor, "B K H X"]]


class Imagined:
    """The actions of K plans, and the latents after each step.

    Attributes:
        actions: [B, K, H, A].
        latents: [B, K, H, N, D].
        last: those of the last step alone, [B, K, 1, N, D]; some dynamics imagine them sooner than all.
    """

    def __init__(self, latents: Float[Tensor, "B K H N D"], actions: Float[Tensor, "B K H A"]) -> None:
        self.latents = latents
        self.actions = actions

    @property
    def last(self) -> Float[Tensor, "B K 1 N D"]:
        return self.latents[:, :, -1:]


class Rollout(Imagined):
    """Plans that are imagined when a cost first reads their latents: all of them, or the last alone."""

    def __init__(
        self, dynamics: Dynamics, state: State, actions: Float[Tensor, "B K H A"], noise: Tensor | None = None
    ) -> None:
        self.actions = actions
        self._plans = (dynamics, state, actions, noise)

    @cached_property
    def latents(self) -> Float[Tensor, "B K H N D"]:  # pyright: ignore[reportIncompatibleVariableOverride]
        return rollout(*self._plans)

    @cached_property
    def last(self) -> Float[Tensor, "B K 1 N D"]:  # pyright: ignore[reportIncompatibleVariableOverride]
        dynamics, state, actions, noise = self._plans
        imagine_end = getattr(dynamics, "imagine_end", None)  # a quicker way, which some dynamics know, to the same
        if imagine_end is None or noise is not None or torch.is_grad_enabled() or "latents" in vars(self):
            return self.latents[:, :, -1:]
        return imagine_end(state, actions)[:, :, None]


@dataclass(frozen=True)
class Term:
    """A cost and its weight. The cost of a plan must not depend on the other plans."""

    cost: Callable[[Imagined], Float[Tensor, "B K"]]
    weight: float = 1.0


@dataclass(frozen=True)
class LatentCost:
    """The weighted sum of terms over imagined rollouts.

    Attributes:
        dynamics: imagines the plans.
        state: of the dynamics, for the B episodes.
        terms: at least one.
        blocks: maps the actions of the planner to those of the dynamics; None: the identity.
        max_bytes: memory for plans imagined at once; no effect with gradients, which keep all of them.
        futures: sampled futures of each plan; None: one, without noise.
    """

    dynamics: Dynamics
    state: State
    terms: tuple[Term, ...]
    blocks: Callable[[Float[Tensor, "B K Q A"]], Float[Tensor, "B K H E"]] | None = None
    max_bytes: int = MAX_BYTES
    futures: Futures | None = None
    _measured: list[int] = field(default_factory=list, init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        if not self.terms:
            raise ValueError("a cost has at least one term")

    def __call__(self, actions: Float[Tensor, "B K Q A"]) -> Float[Tensor, "B K"]:
        taken = self.taken(actions)
        parts = taken.split(self.plans_at_once(taken), 1)
        costs = [self._imagined(part) for part in parts]
        return costs[0] if len(costs) == 1 else torch.cat(costs, 1)

    def _imagined(self, taken: Float[Tensor, "B K H E"]) -> Float[Tensor, "B K"]:
        """Imagine plans, and return their costs."""
        if self.futures is None:
            return self.of(Rollout(self.dynamics, self.state, taken))
        actions, noise = self.futures.of(taken)
        return self.futures.counted(self.of(Rollout(self.dynamics, self.state, actions, noise)))

    def plans_at_once(self, taken: Float[Tensor, "B K H E"]) -> int:
        """How many of the K plans of each episode are imagined at once: as many as fit into `max_bytes`, at least one.

        One step from the current state measures the memory of a plan: its latents, and the growth of the state.
        """
        plans, horizon = taken.shape[1:3]
        if plans < 2 or not horizon or (torch.is_grad_enabled() and taken.requires_grad):
            return max(1, plans)
        if not self._measured:
            with torch.no_grad():
                state, next_latent = self.dynamics.step(self.state, taken[:, 0, 0])
                latent = next_latent.mean().nbytes
            self._measured.append(COPIES * latent + max(0, state.nbytes() - self.state.nbytes()))
        one = horizon * self._measured[0] + self.state.nbytes()
        return min(plans, max(1, self.max_bytes // (one * (1 if self.futures is None else len(self.futures)))))

    def taken(self, actions: Float[Tensor, "B K Q A"]) -> Float[Tensor, "B K H E"]:
        """The actions of the dynamics."""
        return actions if self.blocks is None else self.blocks(actions)

    def of(self, imagined: Imagined) -> Float[Tensor, "B K"]:
        """The cost of an imagined rollout. Raises ValueError if a term is not one number per plan."""
        total = torch.zeros(imagined.actions.shape[:2], device=imagined.actions.device)
        for number, term in enumerate(self.terms):
            value = term.cost(imagined)
            if value.shape != total.shape:
                raise ValueError(
                    f"term {number} of the cost: expected [episodes, plans] = {list(total.shape)}, found "
                    f"{list(value.shape)}"
                )
            total = total + term.weight * value
        return total


def goal_distance(
    dynamics: Dynamics, state: State, goal: Float[Tensor, "B N D"], *, running_cost_weight: float = 1.0
) -> LatentCost:
    """A cost with one term, the distance to a goal in latent space; see `goal_reached`."""
    return LatentCost(dynamics, state, (Term(goal_reached(goal, running_cost_weight=running_cost_weight)),))


def goal_reached(
    goal: Float[Tensor, "B N D"], *, running_cost_weight: float = 1.0
) -> Callable[[Imagined], Float[Tensor, "B K"]]:
    """Squared distance between imagined latents and those of the goal, averaged over tokens and width.

    Args:
        goal: latents to reach, such as those of a goal image: one for each episode, or one for all.
        running_cost_weight: weight of the steps before the last one. 0: only the end of the plan counts; 1: the mean
            over all steps, which favors fast plans.

    Raises:
        ValueError: goal and imagined latents differ in tokens or width.
    """

    def cost(imagined: Imagined) -> Float[Tensor, "B K"]:
        latents = _steps_that_count(imagined, running_cost_weight)
        if goal.shape[1:] != latents.shape[3:] or len(goal) not in (1, len(latents)):
            raise ValueError(
                "the goal is not of this model: expected latents [episodes, tokens, width] = "
                f"{[len(latents), *latents.shape[3:]]}, found {list(goal.shape)}"
            )
        distance = (latents - goal[:, None, None]).square().mean((-2, -1))
        return _over_path(distance, running_cost_weight)

    return cost


def state_reached(
    decode: Decode, target: Float[Tensor, "B X"], *, running_cost_weight: float = 0.0
) -> Callable[[Imagined], Float[Tensor, "B K"]]:
    """Squared distance between decoded states (proprioception, positions) and a target, averaged over their width."""

    def cost(imagined: Imagined) -> Float[Tensor, "B K"]:
        latents = _steps_that_count(imagined, running_cost_weight)
        return _over_path((decode(latents) - target[:, None, None]).square().mean(-1), running_cost_weight)

    return cost


def action_cost(actions: ActionStats | None = None) -> Callable[[Imagined], Float[Tensor, "B K"]]:
    """Mean square of the actions, scaled from the range of the data to -1..1.

    Args:
        actions: action statistics of the data; None: no scaling.
    """
    if actions is None:
        return lambda imagined: imagined.actions.square().mean((-2, -1))
    half = (torch.tensor(actions.high, dtype=torch.float64) - torch.tensor(actions.low, dtype=torch.float64)) / 2
    half = torch.where(half > 0, half, 1.0)

    def cost(imagined: Imagined) -> Float[Tensor, "B K"]:
        scale = half.repeat(imagined.actions.shape[-1] // len(half)).to(imagined.actions)
        return (imagined.actions / scale).square().mean((-2, -1))

    return cost


def keep_out(
    decode: Decode, center: Sequence[float] | Float[Tensor, "B X"], radius: float
) -> Callable[[Imagined], Float[Tensor, "B K"]]:
    """Depth of the states in a ball to avoid, as a share of its radius, averaged over the plan; 0 outside.

    Args:
        center: of one ball for all episodes, or of one ball for each episode, in the order of the plans.
    """

    def cost(imagined: Imagined) -> Float[Tensor, "B K"]:
        where = decode(imagined.latents)
        middle = torch.as_tensor(center).to(where)
        if middle.ndim > 1:
            middle = middle[: len(where), None, None]
        distance = (where - middle).norm(dim=-1)
        return (1 - distance / radius).clamp_min(0).mean(-1)

    return cost


def _steps_that_count(imagined: Imagined, running_cost_weight: float) -> Float[Tensor, "B K H N D"]:
    """The latents of all steps, or of the last one alone if the others have no weight."""
    return imagined.latents if running_cost_weight else imagined.last


def _over_path(distance: Float[Tensor, "B K H"], running_cost_weight: float) -> Float[Tensor, "B K"]:
    if distance.shape[-1] == 1:
        return distance[..., 0]
    weight = torch.full((distance.shape[-1],), running_cost_weight, device=distance.device)
    weight[-1] = 1.0
    return (distance * weight).sum(-1) / weight.sum()
