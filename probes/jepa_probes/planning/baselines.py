"""Who else plays the tasks of `jepa plan`: the agents beside which the score of a planner is read.

    random             actions drawn evenly, each held for a latent step: the floor
    inverse_dynamics   what the action to the goal was in the recordings, without planning
    replay             the very actions by which the goal was reached when it was recorded, without looking, then none;
                       only of goals with a `goal_offset`. What it misses is what glides on, and what chance there is
    expert             the world's expert policy, which reads the true state
    simulator          the same planner with true dynamics: it plans on copies of the world, with the true distance as
                       its cost; of a hybrid the sampler alone, as a simulator has no gradient. Where plans start from
                       a guide, so do these. It alone of these knows the rules of the tasks

An agent that a world does not allow is left out.
"""

from collections.abc import Callable
from functools import partial

import numpy as np
import torch
from jaxtyping import Float
from numpy.typing import NDArray
from torch import Tensor

from jepa.agents.controller import Controller
from jepa.agents.imagination.policy import ImaginationPolicy
from jepa.agents.policy import PlanSettings
from jepa.planners.mpc import ModelPredictiveControl
from jepa.world_model import LatentWorldModel
from jepa_data.actions import ActionStats
from jepa_data.worlds.base import GoalBatch
from jepa_probes.planning.recordings import Segments, TrueSegments
from jepa_probes.planning.result import Success
from jepa_probes.planning.rules import action_cost_of
from jepa_probes.planning.tasks import Episodes, Tasks, random_actions

# Of rules in the true cost: a step that is deep in a region, and one at full force, beside a unit of distance.
DEPTH_WEIGHT, ACTION_COST_WEIGHT = 10.0, 0.3


def score_baselines(
    model: LatentWorldModel,
    tasks: Tasks,
    frames: int,
    settings: PlanSettings,
    inverse: Callable[[], Controller] | None = None,
    guide: Controller | None = None,
    simulator_tasks: int | None = None,
    segments: Segments | None = None,
) -> dict[str, Success]:
    """Scores of the other agents, by name; those that hold actions do so for `frames`, a latent step.

    Args: as `evaluate`.
    """
    solved = play_without_planning(model, tasks, frames, inverse and inverse())
    lead = None
    if guide is not None:
        lead = partial(_led, model, guide, tasks, settings.horizon * frames)
    ceiling = simulator_ceiling(
        tasks, frames, settings, simulator_tasks, lead, model.spec.actions, segments and segments.true
    )
    if ceiling is not None:
        solved["simulator"] = ceiling.solved
    return {agent: Success.of(which) for agent, which in solved.items()}


def play_without_planning(
    model: LatentWorldModel, tasks: Tasks, frames: int, inverse: Controller | None
) -> dict[str, NDArray[np.bool_]]:
    """Which tasks the agents that plan nothing solve, by name; without `inverse` its agent is left out."""
    world = tasks.start(1)
    solved = {"random": random_floor(tasks, frames)}
    if inverse is not None:
        policy = ImaginationPolicy(model, inverse, tasks.goal_images, world.fps)
        solved["inverse_dynamics"] = tasks.solved_by(lambda world: policy.act(world.render()))
    if tasks.recorded is not None:
        solved["replay"] = replay(tasks)
    if world.has_expert:
        solved["expert"] = expert(tasks)
    return solved


def random_floor(tasks: Tasks, frames: int) -> NDArray[np.bool_]:
    """Random actions, each held for a latent step of `frames`."""
    return tasks.solved_by(random_actions(tasks.protocol.seed, frames))


def expert(tasks: Tasks) -> NDArray[np.bool_]:
    """The world's expert policy, which reads the true state."""
    return tasks.solved_by(lambda world: world.expert(tasks.goal))


def replay(tasks: Tasks) -> NDArray[np.bool_]:
    """The actions that led to the goals once more, and none in the steps that are left."""
    assert tasks.recorded is not None
    queue = list(tasks.recorded.swapaxes(0, 1))
    queue += [np.zeros_like(queue[0])] * (tasks.protocol.steps - len(queue))
    return tasks.solved_by(lambda world: queue.pop(0))


def _led(
    model: LatentWorldModel, guide: Controller, tasks: Tasks, steps: int, world: GoalBatch
) -> Float[Tensor, "B P A"]:
    """What a controller does in the next steps, in copies of the simulator."""
    policy = ImaginationPolicy(model, guide, tasks.goal_images[: len(world)], world.fps)
    imagined = world.take(np.arange(len(world)))
    done = []
    for _ in range(steps):
        done.append(policy.act(imagined.render()))
        imagined.step(done[-1])
    return torch.from_numpy(np.stack(done, 1)).float()


def simulator_ceiling(
    tasks: Tasks,
    frames: int,
    settings: PlanSettings,
    count: int | None,
    lead: Callable[[GoalBatch], Float[Tensor, "B P A"]] | None = None,
    actions: ActionStats | None = None,
    segments: TrueSegments | None = None,
) -> Episodes | None:
    """The same planner, or what of it needs no gradient, on the true simulator; a step is `frames` frames.

    `lead`: the actions that a plan starts from, where the planner's own plans start from a guide. `actions`: of the
    model's data, so that both search alike. `segments`: recordings from which plans also start. None if nothing of the
    planner works without a gradient, the world makes no copies, or `count` is 0.
    """
    world = tasks.start(1)
    planner = settings.planner.gradient_free()
    if planner is None or not world.copies or count == 0:
        return None
    width = world.action_size
    control = ModelPredictiveControl(
        planner,
        horizon=settings.horizon,
        replan_every=settings.replan_every,
        action_size=width,
        frames=frames,
        action_repeat=settings.action_repeat,
        bounds=settings.bounds,
        keep=settings.keep,
        seed=tasks.protocol.seed,
        actions=actions,
        budget=settings.budget,
    )
    queue: list[NDArray[np.float64]] = []

    def act(world: GoalBatch) -> NDArray[np.float64]:
        if not queue:
            goal = tasks.goal[: len(world)]
            horizon = control.next_horizon()
            start = lead and lead(world).unflatten(1, (-1, frames)).flatten(2)[:, :horizon]
            proposals = segments and segments.propose(world, goal, horizon, settings.proposals)
            cost = partial(_true_cost, tasks, world, goal, frames=frames, weight=settings.running_cost_weight)
            plan = control.plan(cost, len(world), start, proposals=proposals)
            steps = plan.actions[:, : settings.replan_every].unflatten(-1, (frames, width)).flatten(1, 2)
            queue.extend(steps.double().numpy().swapaxes(0, 1))
        return queue.pop(0)

    return tasks.run(act, count)


def _true_cost(
    tasks: Tasks,
    world: GoalBatch,
    goal: Float[np.ndarray, "B G"],
    actions: Float[Tensor, "B K H A"],
    *,
    frames: int,
    weight: float,
) -> Float[Tensor, "B K"]:
    """Mean distance to the goal over a plan, in which the last step has the weight 1 and the others have `weight`, plus
    the speed at its end (it should stop there), and what rules add."""
    batch, plans = actions.shape[:2]
    task = np.repeat(np.arange(batch), plans)
    imagined = world.take(task)
    target = np.repeat(goal, plans, axis=0)
    forces = actions.flatten(0, 1).unflatten(-1, (frames, -1)).flatten(1, 2).numpy()
    total, rules = np.zeros(len(imagined)), np.zeros(len(imagined))
    weights = np.full(forces.shape[1], weight)
    weights[-1] = 1.0
    for t in range(forces.shape[1]):
        imagined.step(forces[:, t])
        if weights[t]:
            total += weights[t] * imagined.distance_to_goal(target)
        if tasks.regions is not None:
            rules += DEPTH_WEIGHT * tasks.regions.depth(imagined.goal_state(), task)
        if tasks.protocol.max_action_cost is not None:
            rules += ACTION_COST_WEIGHT * action_cost_of(forces[:, t])
    total = total / weights.sum() + rules / len(weights) + 0.1 * imagined.speed()
    return torch.from_numpy(total).float().unflatten(0, (batch, plans))
