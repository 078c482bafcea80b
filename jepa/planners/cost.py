"""What a plan costs. Planners see `cost(actions [B, K, H, A]) -> [B, K]`, lower is better, and nothing else.

    cost = LatentCost(dynamics, state, (
        Term(goal_reached(z_goal, running_cost_weight=1.0)),
        Term(effort(), 0.01),
        Term(inside(position, center, radius), 10.0),     # a forbidden region
        Term(lambda imagined: ...),                       # anything else: Imagined -> [B, K]
    ))

The episode is encoded once, before the cost is made; candidates share that state. Where their latents (a frame may be
hundreds of tokens) and what the dynamics remember of them would take too much memory, they are imagined in parts.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import torch
from jaxtyping import Float, UInt8
from torch import Tensor

from jepa.world_model import Dynamics, State, rollout
from jepa_data.actions import ActionStats

MAX_BYTES = 2**30  # of what is imagined at once
COPIES = 3  # of the latents, while their distances to a goal are taken
Cost = Callable[[Float[Tensor, "B K H A"]], Float[Tensor, "B K"]]
Decode = Callable[[Float[Tensor, "B K H N D"]], Float[Tensor, "B K H X"]]


@dataclass(frozen=True)
class Imagined:
    """What K plans do, and the latents after each of their steps."""

    latents: Float[Tensor, "B K H N D"]
    actions: Float[Tensor, "B K H A"]


@dataclass(frozen=True)
class Term:
    """A part of a cost and its weight. What a plan costs does not depend on the plans beside it."""

    cost: Callable[[Imagined], Float[Tensor, "B K"]]
    weight: float = 1.0


@dataclass(frozen=True)
class LatentCost:
    """The weighted sum of terms over what the dynamics imagine.

    Attributes:
        dynamics: imagines the plans.
        state: where the B episodes are now.
        terms: at least one.
        blocks: from what a planner chooses to what the dynamics take; None: the same.
        max_bytes: of what is imagined at once; where gradients are followed, all of it is kept anyhow.
    """

    dynamics: Dynamics
    state: State
    terms: tuple[Term, ...]
    blocks: Callable[[Float[Tensor, "B K Q A"]], Float[Tensor, "B K H E"]] | None = None
    max_bytes: int = MAX_BYTES
    _measured: list[int] = field(default_factory=list, init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        if not self.terms:
            raise ValueError("a cost has at least one term")

    def __call__(self, actions: Float[Tensor, "B K Q A"]) -> Float[Tensor, "B K"]:
        taken = self.taken(actions)
        parts = taken.split(self.plans_at_once(taken), 1)
        costs = [self.of(Imagined(rollout(self.dynamics, self.state, part), part)) for part in parts]
        return torch.cat(costs, 1)

    def plans_at_once(self, taken: Float[Tensor, "B K H E"]) -> int:
        """How many of the K plans of each episode are imagined together: what `max_bytes` hold, and one at least.

        What a plan takes is measured by one step from the present: its latents, and by how much the state grows.
        """
        plans, horizon = taken.shape[1:3]
        if plans < 2 or not horizon or (torch.is_grad_enabled() and taken.requires_grad):
            return max(1, plans)
        if not self._measured:
            with torch.no_grad():
                state, next_latent = self.dynamics.step(self.state, taken[:, 0, 0])
                latent = next_latent.mean().nbytes
            self._measured.append(COPIES * latent + max(0, state.nbytes() - self.state.nbytes()))
        return min(plans, max(1, self.max_bytes // (horizon * self._measured[0] + self.state.nbytes())))

    def taken(self, actions: Float[Tensor, "B K Q A"]) -> Float[Tensor, "B K H E"]:
        """What the dynamics take."""
        return actions if self.blocks is None else self.blocks(actions)

    def of(self, imagined: Imagined) -> Float[Tensor, "B K"]:
        """The cost of what was imagined already. Raises ValueError if a term is not one number a plan."""
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
    """The distance to a goal in latent space alone; see `goal_reached`."""
    return LatentCost(dynamics, state, (Term(goal_reached(goal, running_cost_weight=running_cost_weight)),))


def goal_reached(
    goal: Float[Tensor, "B N D"], *, running_cost_weight: float = 1.0
) -> Callable[[Imagined], Float[Tensor, "B K"]]:
    """Squared distance between imagined latents and the goal's, averaged over tokens and width.

    Args:
        goal: latents to reach, such as those of a goal image: one for each episode, or one for all.
        running_cost_weight: how much the steps before the last one count; 0 looks at the end of the plan only, 1 at
            every step alike (their mean), which makes the agent hurry.

    Raises:
        ValueError: the goal has other tokens or another width than what is imagined.
    """

    def cost(imagined: Imagined) -> Float[Tensor, "B K"]:
        if goal.shape[1:] != imagined.latents.shape[3:] or len(goal) not in (1, len(imagined.latents)):
            raise ValueError(
                "the goal is not of this model: expected latents [episodes, tokens, width] = "
                f"{[len(imagined.latents), *imagined.latents.shape[3:]]}, found {list(goal.shape)}"
            )
        distance = (imagined.latents - goal[:, None, None]).square().mean((-2, -1))
        return _over_path(distance, running_cost_weight)

    return cost


def image_reached(
    encode: Callable[[UInt8[Tensor, "B 3 h w"]], Float[Tensor, "B N D"]],
    image: UInt8[Tensor, "B 3 h w"],
    *,
    running_cost_weight: float = 1.0,
) -> Callable[[Imagined], Float[Tensor, "B K"]]:
    """The goal as an image of it, encoded now, and once for as many plans as are made; see `goal_reached`.

    Args:
        encode: images as goals, such as `LatentWorldModel.encode_image`.
        image: one for each episode, or one for all.
    """
    return goal_reached(encode(image), running_cost_weight=running_cost_weight)


def state_reached(
    decode: Decode, target: Float[Tensor, "B X"], *, running_cost_weight: float = 0.0
) -> Callable[[Imagined], Float[Tensor, "B K"]]:
    """Squared distance between decoded states (proprioception, positions) and a target, averaged over their width."""

    def cost(imagined: Imagined) -> Float[Tensor, "B K"]:
        return _over_path((decode(imagined.latents) - target[:, None, None]).square().mean(-1), running_cost_weight)

    return cost


def action_cost(actions: ActionStats | None = None) -> Callable[[Imagined], Float[Tensor, "B K"]]:
    """Mean square of the actions, each in half ranges of the data: 0 costs nothing, and 1 is as much in any unit.

    Args:
        actions: statistics of the data's actions; None: the actions as they are, which is the same for -1..1.
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
    """How deep the steps lie in a forbidden ball, as a share of its radius, on average over the plan; 0 outside.

    Args:
        center: of the one ball of all episodes; or of a ball for each episode, in whose order plans are costed.
    """

    def cost(imagined: Imagined) -> Float[Tensor, "B K"]:
        where = decode(imagined.latents)
        middle = torch.as_tensor(center).to(where)
        if middle.ndim > 1:
            middle = middle[: len(where), None, None]
        distance = (where - middle).norm(dim=-1)
        return (1 - distance / radius).clamp_min(0).mean(-1)

    return cost


def _over_path(distance: Float[Tensor, "B K H"], running_cost_weight: float) -> Float[Tensor, "B K"]:
    weight = torch.full((distance.shape[-1],), running_cost_weight, device=distance.device)
    weight[-1] = 1.0
    return (distance * weight).sum(-1) / weight.sum()
