"""Is the latent cost a good stand-in for the true one? Random plans from held-out starts are costed by both.

    held-out episode   ──warm-up──> start ──recorded actions, H steps──> goal
    random plans                    start ──?──> latent cost: imagined;  true cost: in copies of the world
    what was done                   start ──────> latent cost; it reaches the goal, so few plans should be cheaper

Both costs count the distance to the goal at every latent step, with the planner's `running_cost_weight`.
"""

from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float
from numpy.typing import NDArray
from torch import Tensor

from jepa.agents.observations import proprioception
from jepa.agents.policy import PlanSettings, Policy
from jepa.planners.cost import goal_distance
from jepa.world_model import LatentWorldModel
from jepa_data.worlds import make_goal_batch
from jepa_data.worlds.base import GoalBatch
from jepa_probes.diagnosis.result import CostQuality
from jepa_probes.planning.tasks import FIRST_EPISODE, Protocol

WARM_UP = 2  # latent steps before anything is seen, so that things move


@dataclass(frozen=True)
class Recorded:
    """Held-out episodes, played by a policy of the world.

    Attributes:
        images: what the model sees before the start, at the world's rate.
        states: proprioception at these images, for models that need it.
        before: actions between the images; `after`: those that lead to the goal.
        start: the world as it is then. `goal`: what is reached; `goal_image`: the same at rest.
    """

    images: NDArray[np.uint8]  # [B, L, h, w, 3]
    states: Float[Tensor, "B L X"] | None
    before: Float[Tensor, "B _ A"]
    after: Float[Tensor, "B P A"]
    start: GoalBatch
    goal: Float[np.ndarray, "B G"]
    goal_image: NDArray[np.uint8]


def record(
    model: LatentWorldModel, protocol: Protocol, policy: str, starts: int, seen: int, warm_up: int, ahead: int
) -> Recorded:
    """Episodes after those of the tasks: `warm_up` frames, `seen` images, and `ahead` frames to the goal."""
    numbers = FIRST_EPISODE + protocol.tasks + np.arange(starts)
    world = make_goal_batch(protocol.world, numbers, image_size=protocol.image_size, seed=protocol.seed)
    generators = [np.random.Generator(np.random.Philox(key=[protocol.seed, int(number)])) for number in numbers]
    actions = world.act(policy, generators, warm_up + seen + ahead)  # [B, warm_up + seen - 1 + ahead, A]
    for t in range(warm_up):
        world.step(actions[:, t])
    images = [world.render()]
    body = [proprioception(model, world)]
    for t in range(warm_up, warm_up + seen - 1):
        world.step(actions[:, t])
        images.append(world.render())
        body.append(proprioception(model, world))
    start = world.take(np.arange(starts))
    for t in range(warm_up + seen - 1, actions.shape[1]):
        world.step(actions[:, t])
    goal = world.goal_state()
    world.set_goal_state(goal)
    known = [torch.from_numpy(x).float() for x in body if x is not None]
    done = torch.from_numpy(actions).float()
    return Recorded(
        np.stack(images, 1),
        torch.stack(known, 1) if known else None,
        done[:, warm_up : warm_up + seen - 1],
        done[:, warm_up + seen - 1 :],
        start,
        goal,
        world.render(),
    )


@torch.no_grad()
def share_below(costs: Float[Tensor, "E K"], cost: Float[Tensor, "E 1"]) -> Float[Tensor, " E"]:
    """The share of the costs below another; those that are as high, but for rounding, count half."""
    alike = torch.isclose(costs, cost.expand_as(costs), rtol=1e-5, atol=0)
    return (((costs < cost) & ~alike).float() + 0.5 * alike).mean(1)


def measure_cost(
    model: LatentWorldModel, protocol: Protocol, settings: PlanSettings, policy: str, starts: int, candidates: int
) -> CostQuality:
    """Latent and true cost of random plans, and of what was done. Starts that are at their goals do not count.

    Args:
        policy: of the world, that plays the episodes.
    """
    about = make_goal_batch(protocol.world, np.arange(1), image_size=protocol.image_size)
    planning = Policy(model, about.render(), settings, fps=about.fps)
    history = planning.history
    stride = planning.stride
    frames = model.spec.frames_per_step
    step = frames * stride
    seen = (history * frames - 1) * stride + 1
    episodes = record(model, protocol, policy, starts, seen, WARM_UP * step, settings.horizon * step)
    z = model.encode(episodes.images[:, ::stride])
    first = (frames - 1) * stride  # the frame of the first latent
    before = episodes.before[:, first:].reshape(len(z), history - 1, model.spec.block_size)
    states = None if episodes.states is None else episodes.states[:, first::step]
    dynamics = model.dynamics
    assert dynamics is not None
    goal = model.encode_image(torch.from_numpy(episodes.goal_image).movedim(-1, 1))
    weight = settings.running_cost_weight
    cost = goal_distance(dynamics, dynamics.initial_state(z, before, states), goal, running_cost_weight=weight)
    done = episodes.after.unflatten(1, (settings.horizon, step)).flatten(2)
    plans = _random_plans(planning, settings, len(z), candidates, protocol.seed)
    latent = cost(plans)
    rank = share_below(latent, cost(done[:, None]))
    away = torch.from_numpy(episodes.start.distance(episodes.goal) > protocol.radius)
    rows = away if away.any() else torch.ones_like(away)
    measured = CostQuality(
        starts=int(rows.sum()),
        candidates=candidates,
        spread=_spread(latent[rows]),
        recorded_rank=rank[rows].mean().item(),
    )
    if not episodes.start.copies:
        return measured
    true = _true_cost(episodes.start, episodes.goal, plans, step, weight)[rows]
    return measured.model_copy(update={"true_spread": _spread(true), "correlation": spearman(latent[rows], true)})


def spearman(a: Float[Tensor, "B K"], b: Float[Tensor, "B K"]) -> float:
    """Rank correlation of each row, averaged. Rows in which one of them is all equal count as 0."""
    ranks = [x.argsort(1).argsort(1).double() for x in (a, b)]
    ranks = [(r - r.mean(1, keepdim=True)) / r.std(1, correction=0, keepdim=True) for r in ranks]
    varies = (a.amax(1) > a.amin(1)) & (b.amax(1) > b.amin(1))
    return ((ranks[0] * ranks[1]).mean(1) * varies).mean().item()


def _random_plans(
    planning: Policy, settings: PlanSettings, batch: int, count: int, seed: int
) -> Float[Tensor, "B K H E"]:
    """Plans drawn evenly from the range of the data, or from a Gaussian where there are no bounds."""
    control = planning.control
    generator = torch.Generator().manual_seed(seed)
    shape = (batch, count, settings.horizon * control.frames // control.action_repeat, control.action_size)
    if settings.bounds == "none":
        return control.blocks(torch.randn(shape, generator=generator))
    return control.blocks(2 * torch.rand(shape, generator=generator) - 1)


def _true_cost(
    start: GoalBatch, goal: Float[np.ndarray, "B G"], plans: Float[Tensor, "B K H E"], step: int, weight: float
) -> Float[Tensor, "B K"]:
    """The way that is left at each latent step, weighted as the latent cost is."""
    (batch, count, horizon) = plans.shape[:3]
    world = start.take(np.repeat(np.arange(batch), count))
    target = np.repeat(goal, count, axis=0)
    actions = plans.flatten(0, 1).unflatten(-1, (step, -1)).flatten(1, 2).numpy()
    weights = np.r_[np.full(horizon - 1, weight), 1.0]
    left = np.zeros(len(world))
    for h in range(horizon):
        for t in range(step):
            world.step(actions[:, h * step + t])
        left += weights[h] * world.distance_to_goal(target)
    return torch.from_numpy(left / weights.sum()).unflatten(0, (batch, count))


def _spread(costs: Float[Tensor, "B K"]) -> float:
    """Standard deviation over mean of each row, averaged."""
    return (costs.std(1) / costs.mean(1).clamp_min(1e-12)).mean().item()
