"""Can the model act? Held-out tasks in a simulated world: bring the puck or the dot to where a goal picture shows it.

Success is judged at the end of the budget, so passing over the goal does not count. Every result carries its protocol,
a 95 % Wilson interval, a floor (random actions) and a ceiling (the same planner, told the truth: it plans on a copy of
the simulator with the true distance as its cost).
"""

import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, UInt8
from numpy.typing import NDArray
from torch import Tensor

from jepa.agents.policy import PlanSettings, Policy
from jepa.config import UserError
from jepa.planners.mpc import ModelPredictiveControl
from jepa.world_model import LatentWorldModel
from jepa_data.worlds import make_batch
from jepa_data.worlds.env import WorldBatch

# Episodes of tasks: far above those of any recording, so that no task was seen in training.
FIRST_EPISODE = 1_000_000

Act = Callable[[UInt8[np.ndarray, "B h w 3"], WorldBatch], NDArray[np.floating]]


@dataclass(frozen=True)
class Protocol:
    """What a task is. Saved with every result.

    Attributes:
        world: name of the world; `world_version` must be equal for results to be compared.
        tasks: number of (start, goal) pairs; task i is episode 1,000,000 + i of `seed`.
        steps: budget of world steps.
        radius: success if it ends this close to the goal, in widths of the picture.
        least_distance: goals nearer to the start are drawn again, so that no task begins solved.
    """

    world: str
    world_version: int
    image_size: int
    tasks: int
    steps: int
    radius: float
    least_distance: float
    seed: int


@dataclass(frozen=True)
class Episodes:
    """What happened: pictures of every step and the final distance of each task."""

    pictures: UInt8[np.ndarray, "T B h w 3"]
    distance: Float[np.ndarray, " B"]


class Tasks:
    """Held-out starts and goals of a protocol."""

    def __init__(self, protocol: Protocol) -> None:
        if protocol.least_distance < protocol.radius:
            raise UserError(
                f"least_distance ({protocol.least_distance:g}) is below the radius of success ({protocol.radius:g}): "
                "some tasks would begin solved"
            )
        self.protocol = protocol
        self._start = make_batch(
            protocol.world,
            FIRST_EPISODE + np.arange(protocol.tasks),
            image_size=protocol.image_size,
            seed=protocol.seed,
        )
        self.goal = self._draw_goals()
        at_goal = self.start()
        at_goal.place(self.goal)
        self.goal_pictures = at_goal.render()

    def start(self) -> WorldBatch:
        """All tasks at their beginning, a fresh copy."""
        return self._start.take(np.arange(len(self._start)))

    def run(self, act: Act) -> Episodes:
        """Let `act` play every task to the end of the budget."""
        world = self.start()
        pictures = [world.render()]
        for _ in range(self.protocol.steps):
            world.step(act(pictures[-1], world))
            pictures.append(world.render())
        return Episodes(np.stack(pictures), self.distance(world))

    def distance(self, world: WorldBatch) -> Float[np.ndarray, " B"]:
        return world.distance(self.goal)

    def _draw_goals(self) -> Float[np.ndarray, "B G"]:
        rng = np.random.Generator(np.random.Philox(key=[self.protocol.seed, FIRST_EPISODE]))
        goal = np.empty((len(self._start), len(self._start.goal_names)))
        again = np.arange(len(goal))
        while again.size:
            goal[again] = self._start.take(again).draw_goals(rng)
            again = np.flatnonzero(self._start.distance(goal) < self.protocol.least_distance)
        return goal


def evaluate(
    model: LatentWorldModel, protocol: Protocol, settings: PlanSettings
) -> tuple[dict[str, Any], Tasks, Episodes, Float[Tensor, "B H N D"]]:
    """Plan every task with the model; beside it the floor and the ceiling.

    Returns:
        The result (JSON-able), the tasks, what the model's agent did, and what it imagined at the first step: the
        latents of its first plan.
    """
    tasks = Tasks(protocol)
    policy = Policy(model, tasks.goal_pictures, settings, seed=protocol.seed, fps=tasks.start().fps)
    imagined: list[Tensor] = []

    def act(pictures: UInt8[np.ndarray, "B h w 3"], world: WorldBatch) -> NDArray[np.floating]:
        action = policy.act(pictures)
        if not imagined:
            imagined.append(policy.imagine())
        return action

    began = time.perf_counter()
    episodes = tasks.run(act)
    seconds = time.perf_counter() - began
    score = wilson(int((episodes.distance < protocol.radius).sum()), protocol.tasks)
    floor = wilson(_floor(tasks), protocol.tasks)
    ceiling = wilson(_ceiling(tasks, model.spec.frames_per_step * policy.stride, settings), protocol.tasks)
    result = {
        "success": score[0],
        "low": score[1],
        "high": score[2],
        "floor": floor[0],
        "floor_low": floor[1],
        "floor_high": floor[2],
        "ceiling": ceiling[0],
        "ceiling_low": ceiling[1],
        "ceiling_high": ceiling[2],
        "tasks": protocol.tasks,
        "median_distance": float(np.median(episodes.distance)),
        "plans_per_task": policy.plans,
        "seconds_per_plan": seconds / (policy.plans * protocol.tasks),
        "model_calls_per_plan": round(policy.evaluations / policy.plans) * settings.horizon,
        "protocol": asdict(protocol),
        "settings": asdict(settings) | {"planner": repr(settings.planner)},
        "seconds": seconds,
    }
    return result, tasks, episodes, imagined[0]


def wilson(successes: int, trials: int) -> tuple[float, float, float]:
    """Share of successes and its 95 % Wilson score interval."""
    z, share = 1.959964, successes / trials
    centre = (share + z * z / (2 * trials)) / (1 + z * z / trials)
    half = z / (1 + z * z / trials) * np.sqrt(share * (1 - share) / trials + z * z / (4 * trials**2))
    return share, max(0.0, float(centre - half)), min(1.0, float(centre + half))


def _floor(tasks: Tasks) -> int:
    """Successes of random actions, each held for two steps as the model's are."""
    rng = np.random.Generator(np.random.Philox(key=[tasks.protocol.seed, FIRST_EPISODE + 1]))
    held: list[NDArray[np.float64]] = []

    def act(pictures: UInt8[np.ndarray, "B h w 3"], world: WorldBatch) -> NDArray[np.float64]:
        if not held:
            held.extend([rng.uniform(-1, 1, (len(world), world.action_size))] * 2)
        return held.pop()

    return int((tasks.run(act).distance < tasks.protocol.radius).sum())


def _ceiling(tasks: Tasks, block: int, settings: PlanSettings) -> int:
    """Successes of the same planner on the true simulator with the true distance; a step is `block` frames."""
    width = tasks.start().action_size
    control = ModelPredictiveControl(
        settings.planner,
        horizon=settings.horizon,
        execute=settings.execute,
        action_size=width,
        frames=block,
        hold=settings.hold,
        seed=tasks.protocol.seed,
    )
    queue: list[NDArray[np.float64]] = []

    def act(pictures: UInt8[np.ndarray, "B h w 3"], world: WorldBatch) -> NDArray[np.float64]:
        if not queue:
            plan = control.plan(lambda actions: _true_cost(world, tasks.goal, actions, block), len(world))
            steps = plan.actions[:, : settings.execute].unflatten(-1, (block, width)).flatten(1, 2)
            queue.extend(steps.double().numpy().swapaxes(0, 1))
        return queue.pop(0)

    return int((tasks.run(act).distance < tasks.protocol.radius).sum())


def _true_cost(
    world: WorldBatch, goal: Float[np.ndarray, "B G"], actions: Float[Tensor, "B K H A"], block: int
) -> Float[Tensor, "B K"]:
    """Mean way left to the goal over a plan, and how fast the thing is at its end (it shall stop there)."""
    batch, plans = actions.shape[:2]
    imagined = world.take(np.repeat(np.arange(batch), plans))
    target = np.repeat(goal, plans, axis=0)
    forces = actions.flatten(0, 1).unflatten(-1, (block, -1)).flatten(1, 2).numpy()
    total = np.zeros(len(imagined))
    for t in range(forces.shape[1]):
        imagined.step(forces[:, t])
        total += imagined.way_left(target)
    total = total / forces.shape[1] + 0.1 * imagined.speed()
    return torch.from_numpy(total).float().unflatten(0, (batch, plans))
