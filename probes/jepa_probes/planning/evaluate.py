"""Can the model act? Its agent plays the tasks of a protocol, and so do others, beside which its score is read.

    random             actions drawn evenly, each held for a latent step: the floor
    inverse_dynamics   what the action to the goal was in the recordings, without planning
    replay             the very actions by which the goal was reached when it was recorded, without looking, then none;
                       only of goals with a `goal_offset`. What it misses is what glides on, and what chance there is
    expert             the world's script, told the true state
    simulator          the same planner told the truth: it plans on copies of the simulator, with the true distance as
                       its cost; of a hybrid the sampler alone, as a simulator has no gradient. Where plans start from
                       a guide, so do these

Every score has its 95 % Wilson interval and its number of tasks; an agent that a world does not allow is left out.
"""

import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from functools import partial

import numpy as np
import torch
from jaxtyping import Float, UInt8
from numpy.typing import NDArray
from torch import Tensor

from jepa.agents.controller import Controller
from jepa.agents.imagination.policy import ImaginationPolicy
from jepa.agents.policy import PlanSettings, Policy
from jepa.config import UserError
from jepa.planners.mpc import ModelPredictiveControl
from jepa.world_model import LatentWorldModel
from jepa_data.actions import ActionStats
from jepa_data.worlds.base import GoalBatch
from jepa_probes.planning.costs.base import Costs, Region
from jepa_probes.planning.result import Entered, PlanResult, Success
from jepa_probes.planning.tasks import Pictures, Protocol, Tasks, check_actions, random_actions, wilson

Fit = Callable[[], Controller]


@dataclass(frozen=True)
class Evaluation:
    """A result, and of the first tasks what was seen and imagined.

    `pictures` of all frames of the kept tasks; `imagined`: the latents that their first plans lead to.
    """

    result: PlanResult
    tasks: Tasks
    solved: NDArray[np.bool_]
    pictures: UInt8[np.ndarray, "T E h w 3"]
    imagined: Float[Tensor, "E H N D"]
    frames_per_step: int


def evaluate(
    model: LatentWorldModel,
    protocol: Protocol,
    settings: PlanSettings,
    *,
    inverse: Fit | None = None,
    guide: Fit | None = None,
    costs: Callable[[], Costs] | None = None,
    simulator_tasks: int | None = None,
    keep: int = 24,
) -> Evaluation:
    """Plan every task with the model, and let the others play the same tasks.

    Args:
        inverse: makes the agent `inverse_dynamics`; None leaves it out.
        guide: makes what plans start from, see `Policy`.
        costs: makes the other terms of the cost. None of these is asked before the tasks are known to be sound.
        simulator_tasks: how many of the tasks the planner on the true simulator is given, the dear part; 0 leaves it
            out, None: all.
        keep: tasks of which pictures are kept.
    """
    tasks = Tasks(protocol)
    world = tasks.start(1)
    check_actions(model, world)
    more = Costs() if costs is None else costs()
    settings, leads = replace(settings, terms=more.terms), guide and guide()
    policy = Policy(model, tasks.goal_pictures, settings, seed=protocol.seed, fps=world.fps, guide=leads)
    playing = _Playing(policy, more.regions, protocol.tasks)
    began = time.perf_counter()
    episodes = tasks.run(playing, look=True, keep=keep)
    seconds = time.perf_counter() - began
    solved = tasks.solved(episodes.distance)
    assert episodes.pictures is not None
    frames = model.spec.frames_per_step * policy.stride
    steps = settings.horizon / policy.plans
    alone = Policy(model, tasks.goal_pictures[:1], settings, seed=protocol.seed, fps=world.fps, guide=leads)
    result = PlanResult(
        **dict(score(solved)),
        baselines=_baselines(model, tasks, frames, settings, inverse, simulator_tasks, leads),
        ever_reached=float(tasks.solved(episodes.nearest).mean()),
        median_distance=float(np.median(episodes.distance)),
        unit=world.unit,
        plans_per_task=policy.plans,
        seconds_per_plan=playing.seconds / (policy.plans * protocol.tasks),
        seconds_per_plan_alone=_time_of_one(alone, world),
        model_calls_per_plan=round(policy.evaluations * steps),
        differentiated_calls_per_plan=round(policy.differentiated * steps),
        protocol=protocol,
        settings=asdict(replace(settings, terms=())) | {"planner": repr(settings.planner), "terms": more.described},
        seconds=seconds,
        distances=episodes.distance.tolist(),
        entered=_entered(playing.entered, tasks, more.regions) if more.regions else None,
    )
    assert playing.imagined is not None
    return Evaluation(result, tasks, solved, episodes.pictures, playing.imagined[:keep], frames)


def _entered(entered: NDArray[np.bool_], tasks: Tasks, regions: Sequence[Region]) -> Entered:
    ends = np.logical_or.reduce([r.contains(at) for r in regions for at in (tasks.start(), tasks.at_goal())])
    free = entered[~ends]
    return Entered(share=float(free.mean()) if len(free) else None, tasks=len(free))


class _Playing:
    """The policy at play, and what is noted meanwhile.

    Attributes:
        seconds: that it took to encode and to plan.
        imagined: what its first plans lead to.
        entered: which tasks were in a forbidden region at some time.
    """

    def __init__(self, policy: Policy, regions: Sequence[Region], tasks: int) -> None:
        self.policy, self.regions = policy, regions
        self.seconds, self.entered = 0.0, np.zeros(tasks, dtype=bool)
        self.imagined: Float[Tensor, "B H N D"] | None = None

    def __call__(self, pictures: Pictures | None, world: GoalBatch) -> NDArray[np.floating]:
        for region in self.regions:
            self.entered |= region.contains(world)
        known, began = proprioception(self.policy.model, world), time.perf_counter()
        action = self.policy.act(_seen(pictures), known)
        self.seconds += time.perf_counter() - began
        if self.imagined is None:
            self.imagined = self.policy.imagine()
        return action


def proprioception(model: LatentWorldModel, world: GoalBatch) -> NDArray[np.float32] | None:
    """What the model has to be told of the body [B, X], of the world's true state; None if nothing.

    Raises:
        UserError: the world has no such state.
    """
    names = list(world.state_names)
    if missing := [name for name in model.spec.states if name not in names]:
        known = ", ".join(names) or "none"
        raise UserError(f"the model reads {missing[0]!r}, which is no state of {world.name}; there are: {known}")
    return world.states()[:, [names.index(name) for name in model.spec.states]] if model.spec.states else None


def _time_of_one(policy: Policy, world: GoalBatch) -> float:
    """Seconds for the plan of a single episode, encoding included: the second one, as the first warms up."""
    for _ in range(2):
        policy.reset()
        began = time.perf_counter()
        policy.act(world.render(), proprioception(policy.model, world))
    return time.perf_counter() - began


def _baselines(
    model: LatentWorldModel,
    tasks: Tasks,
    frames: int,
    settings: PlanSettings,
    inverse: Fit | None,
    simulator_tasks: int | None,
    guide: Controller | None,
) -> dict[str, Success]:
    """Scores of the other agents, by name, see above."""
    world = tasks.start(1)
    scores = {"random": score(random_floor(tasks, frames))}
    if inverse is not None:
        policy = ImaginationPolicy(model, inverse(), tasks.goal_pictures, world.fps)
        scores["inverse_dynamics"] = score(
            tasks.solved(tasks.run(lambda pictures, _: policy.act(_seen(pictures)), look=True).distance)
        )
    if tasks.recorded is not None:
        scores["replay"] = score(replay(tasks))
    if world.has_expert:
        scores["expert"] = score(tasks.solved(tasks.run(lambda _, world: world.expert(tasks.goal)).distance))
    planner = settings.planner.gradient_free()
    if world.copies and simulator_tasks != 0 and planner is not None:
        sampled = replace(settings, planner=planner)
        lead = None if guide is None else partial(_led, model, guide, tasks, settings.horizon * frames)
        ceiling = simulator_ceiling(tasks, frames, sampled, simulator_tasks, lead, model.spec.actions)
        scores["simulator"] = score(ceiling)
    return scores


def _seen(pictures: Pictures | None) -> Pictures:
    assert pictures is not None
    return pictures


def score(solved: NDArray[np.bool_]) -> Success:
    """Share of tasks, its interval and their number."""
    share, low, high = wilson(int(solved.sum()), len(solved))
    return Success(success=share, low=low, high=high, tasks=len(solved))


def random_floor(tasks: Tasks, frames: int) -> NDArray[np.bool_]:
    """Random actions, each held for a latent step of `frames`."""
    return tasks.solved(tasks.run(random_actions(tasks.protocol.seed, frames)).distance)


def replay(tasks: Tasks) -> NDArray[np.bool_]:
    """The actions that led to the goals once more, and none in the steps that are left."""
    assert tasks.recorded is not None
    queue = list(tasks.recorded.swapaxes(0, 1))
    idle = np.zeros_like(queue[0])
    return tasks.solved(tasks.run(lambda pictures, world: queue.pop(0) if queue else idle).distance)


def _led(
    model: LatentWorldModel, guide: Controller, tasks: Tasks, steps: int, world: GoalBatch
) -> Float[Tensor, "B P A"]:
    """What a controller does in the next steps, in copies of the simulator."""
    policy = ImaginationPolicy(model, guide, tasks.goal_pictures[: len(world)], world.fps)
    imagined, done = world.take(np.arange(len(world))), []
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
) -> NDArray[np.bool_]:
    """The same planner, if it needs no gradient, on the true simulator; a step is `frames` frames.

    `lead`: the actions that a plan starts from, where the planner's own plans start from a guide. `actions`: of the
    model's data, so that both search alike.
    """
    width = tasks.start(1).action_size
    control = ModelPredictiveControl(
        settings.planner,
        horizon=settings.horizon,
        replan_every=settings.replan_every,
        action_size=width,
        frames=frames,
        action_repeat=settings.action_repeat,
        bounds=settings.bounds,
        keep=settings.keep,
        seed=tasks.protocol.seed,
        actions=actions,
    )
    queue: list[NDArray[np.float64]] = []

    def act(pictures: Pictures | None, world: GoalBatch) -> NDArray[np.float64]:
        if not queue:
            goal = tasks.goal[: len(world)]
            start = None if lead is None else lead(world).unflatten(1, (-1, frames)).flatten(2)
            plan = control.plan(lambda actions: _true_cost(world, goal, actions, frames), len(world), start)
            steps = plan.actions[:, : settings.replan_every].unflatten(-1, (frames, width)).flatten(1, 2)
            queue.extend(steps.double().numpy().swapaxes(0, 1))
        return queue.pop(0)

    return tasks.solved(tasks.run(act, count=count).distance)


def _true_cost(
    world: GoalBatch, goal: Float[np.ndarray, "B G"], actions: Float[Tensor, "B K H A"], frames: int
) -> Float[Tensor, "B K"]:
    """Mean way left to the goal over a plan, and how fast the thing is at its end (it shall stop there)."""
    batch, plans = actions.shape[:2]
    imagined = world.take(np.repeat(np.arange(batch), plans))
    target = np.repeat(goal, plans, axis=0)
    forces = actions.flatten(0, 1).unflatten(-1, (frames, -1)).flatten(1, 2).numpy()
    total = np.zeros(len(imagined))
    for t in range(forces.shape[1]):
        imagined.step(forces[:, t])
        total += imagined.distance_to_goal(target)
    total = total / forces.shape[1] + 0.1 * imagined.speed()
    return torch.from_numpy(total).float().unflatten(0, (batch, plans))
