"""Tasks in a simulated world: held-out starts, and goals given as images, all fixed by a protocol.

    episodes of a recording   0 … n                 seen in training, or kept for probes
    episodes of tasks         1,000,000 …           seen by nobody before

Success is judged at the end of the budget, so passing over the goal does not count, unless a protocol says otherwise.
Rules (rules.py) hold all the time.
"""

import zlib
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import numpy as np
from jaxtyping import Bool, Float
from numpy.typing import NDArray

from jepa.config import UserError
from jepa_data.worlds import make_batch, make_goal_batch, rows
from jepa_data.worlds.base import GoalBatch, WorldBatch
from jepa_probes.planning.rules import Watch, draw_regions

# Episodes of tasks: far above those of any recording, so that no task was seen in training.
FIRST_EPISODE = 1_000_000
GOAL_STREAM = zlib.crc32(b"goals")
REGION_STREAM = zlib.crc32(b"regions")
ATTEMPTS = 100  # to draw a goal that is far enough from the start
Z95 = 1.959964  # a normal variable lies so many standard deviations from its mean at most, 95 times of 100

Judge = Literal["end", "ever"]
Act = Callable[[GoalBatch], NDArray[np.floating]]


@dataclass(frozen=True)
class Protocol:
    """What a task is. Saved with every result.

    Attributes:
        world: name of the world; `world_version` must be equal for results to be compared.
        tasks: number of (start, goal) pairs; task i is episode 1,000,000 + i of `seed`.
        steps: budget of world steps.
        radius: success if it ends this close to the goal, in the world's unit.
        min_distance: goals nearer to the start are drawn again, so that no task begins solved.
        goal_offset: a goal is where `goal_policy` gets from the start within so many steps; None: any that the world
            draws.
        keep_out_radius: near the way of each task lies a ball of this radius, which must not be entered; None: none.
        max_action_cost: sum over the steps of the mean square of the actions, at most; None: any.
        start_offset: with `goal_offset`: a task starts where the same episode of `goal_policy` is after some steps, at
            most so many, at rest: in mid-push, as in tasks that are cut from recordings. None: where the world starts.
        judge: success is at the goal at the "end" of the budget, or "ever" until then.
    """

    world: str
    world_version: int
    image_size: int
    tasks: int
    steps: int
    radius: float
    min_distance: float
    seed: int
    goal_offset: int | None = None
    goal_policy: str | None = None
    keep_out_radius: float | None = None
    max_action_cost: float | None = None
    start_offset: int | None = None
    judge: Judge = "end"


@dataclass(frozen=True)
class Play:
    """What is played in a world that sets no goals. Saved with every result.

    Attributes:
        episodes: number i is episode 1,000,000 + i of `seed`, which is in no recording.
        steps: of the world, or fewer where it ends before.
    """

    world: str
    world_version: int
    image_size: int
    episodes: int
    steps: int
    seed: int

    def start(self) -> WorldBatch:
        """The episodes at their beginning."""
        numbers = FIRST_EPISODE + np.arange(self.episodes)
        return make_batch(self.world, numbers, image_size=self.image_size, seed=self.seed)


@dataclass(frozen=True)
class Episodes:
    """How tasks ended: the world as it was left, how far all ended from their goals, and the nearest that they came.

    `judged`: the distance by which the protocol judges. `solved`: who was at the goal then and broke no rule. `entered`
    and `action_cost`: see `Watch`.
    """

    world: GoalBatch
    distance: Float[np.ndarray, " B"]
    nearest: Float[np.ndarray, " B"]
    judged: Float[np.ndarray, " B"]
    solved: Bool[np.ndarray, " B"]
    entered: Bool[np.ndarray, " B"]
    action_cost: Float[np.ndarray, " B"]


class Tasks:
    """Held-out starts and goals of a protocol.

    `recorded`: the actions [B, goal_offset, A] by which the goal policy got to the goals; None where the
    world drew them. `regions`: that must not be entered; None without such a rule.

    Raises:
        UserError: tasks would begin solved, the world has no such policy or no goals that are far enough, or regions
            do not fit the world.
    """

    def __init__(self, protocol: Protocol) -> None:
        if protocol.min_distance < protocol.radius:
            raise UserError(
                f"min_distance ({protocol.min_distance:g}) is below the radius of success ({protocol.radius:g}): "
                "some tasks would begin solved"
            )
        self.protocol = protocol
        self._start = make_goal_batch(
            protocol.world,
            FIRST_EPISODE + np.arange(protocol.tasks),
            image_size=protocol.image_size,
            seed=protocol.seed,
        )
        if protocol.goal_policy not in (None, *self._start.policies):
            raise UserError(
                f"goal_policy is {protocol.goal_policy!r}; {protocol.world} has {', '.join(self._start.policies)}"
            )
        self.goal, self.recorded = self._draw_goals()
        self.regions = None
        if protocol.keep_out_radius is not None:
            rng = np.random.Generator(np.random.Philox(key=[protocol.seed ^ REGION_STREAM, FIRST_EPISODE]))
            self.regions = draw_regions(self._start, self.goal, protocol.keep_out_radius, rng)
        self.goal_images = self.at_goal().render()

    def start(self, count: int | None = None) -> GoalBatch:
        """The tasks at their beginning, a fresh copy; the first `count`, or all."""
        return self._start.take(np.arange(len(self._start))[:count])

    def at_goal(self) -> GoalBatch:
        """All tasks at their goals, at rest."""
        world = self.start()
        world.set_goal_state(self.goal)
        return world

    def run(self, act: Act, count: int | None = None) -> Episodes:
        """Let `act` play the first `count` tasks, or all, to the end of the budget; it is given the world as it is."""
        world = self.start(count)
        goal = self.goal[: len(world)]
        nearest = world.distance(goal)
        watch = Watch(self.regions, self.protocol.max_action_cost, np.zeros(len(world), bool))
        for _ in range(self.protocol.steps):
            actions = act(world)
            world.step(actions)
            watch.step(actions, world)
            nearest = np.minimum(nearest, world.distance(goal))
        distance = world.distance(goal)
        judged = nearest if self.protocol.judge == "ever" else distance
        solved = self.reached(judged) & ~watch.broken()
        return Episodes(world, distance, nearest, judged, solved, watch.entered, watch.action_cost)

    def solved_by(self, act: Act, count: int | None = None) -> NDArray[np.bool_]:
        """Which of the first `count` tasks, or of all, `act` solves."""
        return self.run(act, count).solved

    def reached(self, distance: Float[np.ndarray, " B"]) -> NDArray[np.bool_]:
        """Which distances are those of a goal that is reached."""
        return distance < self.protocol.radius

    def _draw_goals(self) -> tuple[Float[np.ndarray, "B G"], Float[np.ndarray, "B O A"] | None]:
        """Goals, and the actions that reached them."""
        p = self.protocol
        rng = np.random.Generator(np.random.Philox(key=[p.seed, FIRST_EPISODE]))
        goal = np.empty((len(self._start), len(self._start.goal_names)))
        recorded = np.zeros((len(goal), p.goal_offset, self._start.action_size)) if p.goal_offset else None
        again = np.arange(len(goal))
        drawn = self._start.take(again)
        for attempt in range(ATTEMPTS):
            world = self._start.take(again)
            if recorded is None:
                goal[again] = world.draw_goals(rng)
            else:
                world, actions = self._under_way(drawn.take(again), again, attempt)
                rows.put(self._start.state, again, world.state)
                for t in range(actions.shape[1]):
                    world.step(actions[:, t])
                goal[again], recorded[again] = world.goal_state(), actions
            again = np.flatnonzero(self._start.distance(goal) < p.min_distance)
            if not again.size:
                return goal, recorded
        raise UserError(
            f"{again.size} of {len(goal)} tasks of {p.world} found no goal at least {p.min_distance:g} from their "
            f"start (min_distance), in {self._start.unit}, in {ATTEMPTS} attempts. Lower it"
            + ("." if p.goal_offset is None else f", or raise goal_offset ({p.goal_offset}).")
        )

    def _under_way(
        self, world: GoalBatch, tasks: NDArray[np.intp], attempt: int
    ) -> tuple[GoalBatch, Float[np.ndarray, "M O A"]]:
        """Where tasks start, and what the goal policy does from there; with `start_offset` it has been at work."""
        p = self.protocol
        assert p.goal_offset is not None
        stream = (p.seed ^ GOAL_STREAM) + (attempt << 40)
        generators = [np.random.Generator(np.random.Philox(key=[stream, FIRST_EPISODE + int(r)])) for r in tasks]
        before = p.start_offset or 0
        actions = world.act(p.goal_policy or world.policies[0], generators, before + p.goal_offset + 1)
        if not before:
            return world, actions
        start = np.array([rng.integers(before + 1) for rng in generators])
        started = world.take(np.arange(len(world)))
        for t in range(before):
            world.step(actions[:, t])
            now = np.flatnonzero(start == t + 1)
            rows.put(started.state, now, rows.take(world.state, now))
        started.set_goal_state(started.goal_state())
        return started, actions[np.arange(len(world))[:, None], start[:, None] + np.arange(p.goal_offset)]


def random_actions(seed: int, frames: int) -> Callable[[WorldBatch], NDArray[np.float64]]:
    """The floor: an agent whose actions are drawn evenly from -1..1, each held for `frames` steps of the world."""
    rng = np.random.Generator(np.random.Philox(key=[seed, FIRST_EPISODE + 1]))
    repeated: list[NDArray[np.float64]] = []

    def act(world: WorldBatch) -> NDArray[np.float64]:
        if not repeated:
            repeated.extend([rng.uniform(-1, 1, (len(world), world.action_size))] * frames)
        return repeated.pop()

    return act


def wilson(successes: int, trials: int) -> tuple[float, float, float]:
    """Share of successes and its 95 % Wilson score interval."""
    share = successes / trials
    shrunk = 1 + Z95 * Z95 / trials
    center = (share + Z95 * Z95 / (2 * trials)) / shrunk
    half = Z95 / shrunk * np.sqrt(share * (1 - share) / trials + Z95 * Z95 / (4 * trials**2))
    low = 0.0 if successes == 0 else float(center - half)  # exactly: rounding would leave a little
    high = 1.0 if successes == trials else float(center + half)
    return share, low, high
