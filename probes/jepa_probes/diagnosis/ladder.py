"""The planning ladder: the same tasks, with one link of the agent replaced at a time.

    configured         what `jepa plan` plays
    replan             planning again after every latent step
    refine             what a sampling planner finds, and then 20 steps along the gradient
    search             many times as many plans imagined
    replan_search      many plans, after every latent step
    goal_now           all that the goal is not about, as it is now, in the goal image: free discs of a table
    readout            the latent distance to the goal replaced by that of states, read off the imagined latents
    state_dynamics     true states in place of latents, and dynamics learned on these, from the same recordings
    simulator          true states, and the true world in place of dynamics
    inverse_dynamics   what was done in the recordings, without planning
    random, expert     the floor, and the world's own script
    replay             the very actions by which the goals were reached, where they were recorded (goal_offset)

What a step of the ladder gains over `configured` is what its link costs; the tasks are the same, so gains are paired.
"""

import time
from collections.abc import Callable
from dataclasses import dataclass, field, replace

import numpy as np
import torch
from jaxtyping import Float
from numpy.typing import NDArray
from torch import Tensor

from jepa.agents.controller import Controller
from jepa.agents.observations import proprioception
from jepa.agents.policy import PlanSettings, Policy
from jepa.agents.proposals import RecordedSegments
from jepa.planners.cost import LatentCost, Term, goal_reached, state_reached
from jepa.predictors.base import LatentState
from jepa.predictors.mlp import MLPPredictor
from jepa.world_model import LatentWorldModel
from jepa_data.worlds.base import GoalBatch
from jepa_probes.diagnosis.networks import StateRead, StateSpace
from jepa_probes.diagnosis.result import Rung
from jepa_probes.planning.baselines import play_without_planning, simulator_ceiling
from jepa_probes.planning.paired_test import mcnemar
from jepa_probes.planning.recordings import TrueSegments
from jepa_probes.planning.result import Success
from jepa_probes.planning.tasks import Tasks, random_actions

FEW = 8  # tasks, played at random, which tell whether anything but the goal's own quantities changes
STOPS = 0.1  # weight of the speed at the end of a plan beside the way that is left, as of the true simulator


@dataclass
class Played:
    """What an agent did.

    Attributes:
        imagined: latents [B, H, N, D] that its plans led to, one item a plan.
    """

    solved: NDArray[np.bool_]
    plans: int = 0
    cpu_seconds: float = 0.0
    evaluations: int = 0
    imagined: list[Tensor] = field(default_factory=list)

    def rung(self, base: "Played") -> Rung:
        """Beside what the agent does as it is configured."""
        before = base.solved[: len(self.solved)]
        gained = int((self.solved & ~before).sum())
        lost = int((before & ~self.solved).sum())
        planned = self.plans * len(self.solved)
        return Rung(
            **dict(Success.of(self.solved)),
            cpu_seconds_per_plan=self.cpu_seconds / planned if planned else None,
            plans_imagined=round(self.evaluations / max(1, self.plans)) or None,
            gained=gained,
            lost=lost,
            p_value=mcnemar(gained, lost),
        )


@dataclass(frozen=True)
class GoalNumbers:
    """Where to get, in numbers of the code: which ones, and what they are at the goals.

    `stops`: the velocities of the body that has to get there; at the goal they are those of rest.
    """

    reach: list[int]
    stops: list[int]
    at_goal: Float[Tensor, "B C"]

    @property
    def numbers(self) -> set[int]:
        """All of them."""
        return {*self.reach, *self.stops}

    @classmethod
    def of(cls, space: StateSpace, tasks: Tasks) -> "GoalNumbers | None":
        """None where the goal's quantities are not recorded states."""
        names = tasks.start(1).goal_names
        code = space.code
        if not set(names) <= set(code.state_names):
            return None
        bodies = {name.rpartition(".")[0] for name in names}
        moving = {i for q in code.quantities if q.kind == "velocity" for i in q.numbers}
        own = [name for name in code.state_names if name.rpartition(".")[0] in bodies]
        at_goal = code.encode(torch.from_numpy(tasks.at_goal().states()).float())
        return cls(code.of_states(names), [i for i in code.of_states(own) if i in moving], at_goal)

    def terms(self, read: Callable[[Tensor], Tensor], running_cost_weight: float) -> tuple[Term, ...]:
        """The squared distance to the goals, and how fast it is at the end.

        Args:
            read: numbers [B, K, H, C] of what was imagined.
        """

        def distance(numbers: list[int], weight: float, running_cost_weight: float) -> Term:
            def chosen(latents: Tensor) -> Tensor:
                return read(latents)[..., numbers]

            cost = state_reached(chosen, self.at_goal[:, numbers], running_cost_weight=running_cost_weight)
            return Term(cost, weight)

        terms = [distance(self.reach, 1.0, running_cost_weight)]
        if self.stops:
            terms.append(distance(self.stops, STOPS, 0.0))
        return tuple(terms)


def play(
    model: LatentWorldModel,
    tasks: Tasks,
    settings: PlanSettings,
    *,
    guide: Controller | None = None,
    count: int | None = None,
    segments: RecordedSegments | None = None,
    keep_imagined: bool = False,
    goal_images: Callable[[GoalBatch], NDArray[np.uint8]] | None = None,
) -> Played:
    """Plan the first `count` tasks in latents.

    Args:
        keep_imagined: keep what was imagined.
        goal_images: of the world as it is now, in place of those of the tasks.
        segments: recordings from which plans also start.
    """
    world = tasks.start(1)
    policy = Policy(model, tasks.goal_images[:count], settings, tasks.protocol.seed, world.fps, guide, segments)
    played = Played(np.zeros(0, bool))

    def act(world: GoalBatch) -> NDArray[np.floating]:
        images = world.render()
        known = proprioception(model, world)
        planned = policy.plans
        if goal_images is not None and policy.is_planning:
            policy.goal = model.encode_image(torch.from_numpy(goal_images(world)).movedim(-1, 1))
        began = time.process_time()
        action = policy.act(images, known)
        played.cpu_seconds += time.process_time() - began
        if keep_imagined and policy.plans > planned:
            played.imagined.append(policy.imagine())
        return action

    played.solved = tasks.solved_by(act, count)
    played.plans = policy.plans
    played.evaluations = policy.evaluations
    return played


def play_goal_now(
    model: LatentWorldModel,
    tasks: Tasks,
    settings: PlanSettings,
    guide: Controller | None = None,
    segments: RecordedSegments | None = None,
) -> Played | None:
    """Plan towards goal images of the present, in which only what the goal is about has changed.

    None where nothing else changes, or the world makes no copies.
    """

    def goal_images(world: GoalBatch) -> NDArray[np.uint8]:
        there = world.take(np.arange(len(world)))
        there.set_goal_state(tasks.goal[: len(world)])
        return there.render()

    if not tasks.start(1).copies:
        return None
    world = tasks.run(random_actions(tasks.protocol.seed, 1), FEW).world
    if (goal_images(world) == tasks.goal_images[: len(world)]).all():
        return None
    return play(model, tasks, settings, guide=guide, segments=segments, goal_images=goal_images)


def play_readout(
    model: LatentWorldModel,
    tasks: Tasks,
    settings: PlanSettings,
    read: StateRead,
    goal: GoalNumbers,
    guide: Controller | None = None,
    segments: RecordedSegments | None = None,
) -> Played:
    """Plan in latents by the distance of what is read off them: the latent distance, of weight 1, is taken out."""
    images = torch.from_numpy(tasks.goal_images).movedim(-1, 1)
    weight = settings.running_cost_weight
    latent = Term(goal_reached(model.encode_image(images), running_cost_weight=weight), -1.0)
    terms = (*settings.terms, latent, *goal.terms(read, weight))
    return play(model, tasks, replace(settings, terms=terms), guide=guide, segments=segments)


def play_states(
    model: LatentWorldModel,
    tasks: Tasks,
    settings: PlanSettings,
    space: StateSpace,
    dynamics: MLPPredictor,
    goal: GoalNumbers,
    segments: TrueSegments | None = None,
) -> Played:
    """Plan on true states, with dynamics that were learned on them; other costs and guides are left out."""
    policy = Policy(model, tasks.goal_images[:1], settings, tasks.protocol.seed, tasks.start(1).fps)
    control = policy.control
    queue: list[NDArray[np.floating]] = []
    frames = model.spec.frames_per_step * policy.stride
    terms = goal.terms(space.numbers, settings.running_cost_weight)
    played = Played(np.zeros(0, bool))

    def act(world: GoalBatch) -> NDArray[np.floating]:
        if not queue:
            began = time.process_time()
            states = space.code.encode(torch.from_numpy(world.states()).float())
            proposals = segments and segments.propose(world, tasks.goal, control.next_horizon(), settings.proposals)
            cost = LatentCost(dynamics, LatentState(space.latents(states)), terms)
            plan = control.plan(cost, len(world), proposals=proposals)
            steps = plan.actions[:, : settings.replan_every].unflatten(-1, (frames, -1)).flatten(1, 2)
            queue.extend(steps.numpy().swapaxes(0, 1))
            played.plans += 1
            played.evaluations += plan.evaluations
            played.cpu_seconds += time.process_time() - began
        return queue.pop(0)

    played.solved = tasks.solved_by(act)
    return played


def play_simulator(
    model: LatentWorldModel,
    tasks: Tasks,
    settings: PlanSettings,
    frames: int,
    count: int | None,
    segments: TrueSegments | None = None,
) -> Played | None:
    """See `simulator_ceiling`."""
    began = time.process_time()
    episodes = simulator_ceiling(tasks, frames, settings, count, actions=model.spec.actions, segments=segments)
    if episodes is None:
        return None
    plans = -(-tasks.protocol.steps // (frames * settings.replan_every))
    return Played(episodes.solved, plans, time.process_time() - began)


def play_others(model: LatentWorldModel, tasks: Tasks, frames: int, inverse: Controller | None) -> dict[str, Played]:
    """Agents that do not plan."""
    solved = play_without_planning(model, tasks, frames, inverse)
    return {name: Played(which) for name, which in solved.items()}
