"""Two rooms and a door: a dot walks, and a wall keeps it from going straight to where it wants to be.

    0     4                              60   64      unit: 1/64 of the picture's width; y points downwards
      ┌──────────────┬─────────────────┐      4       the wall is 2 thick, at x = 32, or at 20 to 44
      │   •          │                 │              the door is 8 high, at y = 32, or at 10 to 54
      │   agent      ·  door           │
      │              ·                 │              two-rooms               the same wall in all episodes
      │              │          goal   │              two-rooms-random-wall   another one in every episode
      └──────────────┴─────────────────┘      60

As in EB-JEPA and PLDM. An action [2] moves the dot by up to 1.8; a step that would end in a wall is not taken. Data and
evaluation share these dynamics. Each episode is drawn from (seed, episode) alone.
"""

from dataclasses import dataclass, fields

import numpy as np
from numpy.typing import NDArray

FPS = 10.0
VERSION = 1
LOW, HIGH = 4.0, 60.0  # border walls
MARGIN = 1.0  # that free positions keep from them
THICK, DOOR = 1.0, 4.0  # half of the wall's thickness and of the door's height
LONGEST_STEP = 1.8
WALL_X, DOOR_Y = (20.0, 44.0), (10.0, 54.0)
DOT, DOT_REACH = 1.3, 5  # standard deviation, and how far it is painted
TURN, STEP = 5.0, (1.0, 0.4, 0.2)  # the walk: kappa of its turns; mean, spread and least length of its steps
THROUGH = 0.35  # share of walks that go through the door
LONGEST_ERRAND = 160  # steps after which a mixed gives up a way
HOLD, HELD = 5, 0.5  # share of walks that do each action so many times: planners do, and get stuck at other places


@dataclass
class Rooms:
    """Episodes side by side."""

    position: NDArray[np.float64]  # [E, 2]
    wall: NDArray[np.float64]  # [E] x of its middle
    door: NDArray[np.float64]  # [E] y of its middle


class TwoRoomsBatch:
    """Many episodes side by side, one per entry of `episodes`.

    Args:
        random_wall: another wall and door in every episode.
        episodes: episode numbers; with `seed` they fix the wall, the door and where the dot starts.
        image_size: pixels a side, 32..128.
    """

    action_size = 2
    fps = FPS
    version = VERSION
    label_names = ("room",)
    goal_names = ("agent.x", "agent.y")
    has_expert = copies = True
    radius, unit = 4.5 / 64, "widths of the picture"  # as in EB-JEPA and PLDM
    state_names = ("agent.x", "agent.y", "wall.x", "door.y")
    policies: tuple[str, ...] = ("random", "noisy-expert", "mixed")

    def __init__(
        self, random_wall: bool, episodes: NDArray[np.integer], *, image_size: int = 64, seed: int = 0
    ) -> None:
        if not 32 <= image_size <= 128:
            raise ValueError(f"image_size is {image_size}; two rooms are drawn at 32 to 128 pixels")
        self.name = "two-rooms-random-wall" if random_wall else "two-rooms"
        self.image_size = image_size
        generators = (np.random.Generator(np.random.Philox(key=[seed, int(e)])) for e in episodes)
        drawn = np.array([_draw(random_wall, rng) for rng in generators])
        self.rooms = Rooms(drawn[:, :2].copy(), drawn[:, 2].copy(), drawn[:, 3].copy())
        self.labels = {"room": (self.rooms.position[:, 0] > self.rooms.wall).astype(np.int64)}
        self._walls: NDArray[np.uint8] | None = None

    def __len__(self) -> int:
        return len(self.rooms.wall)

    def states(self) -> NDArray[np.float32]:
        """Ground truth [E, 4] as named by `state_names`, in widths of the picture."""
        r = self.rooms
        return (np.column_stack([r.position, r.wall, r.door]) / 64).astype(np.float32)

    def terminated(self) -> NDArray[np.bool_]:
        """No episode ends by itself."""
        return np.zeros(len(self), dtype=bool)

    def step(self, actions: NDArray[np.floating]) -> None:
        """Move every dot by LONGEST_STEP times its action [E, 2], cut to length 1."""
        self.rooms.position = self._moved(np.asarray(actions, dtype=np.float64))

    def goal_state(self) -> NDArray[np.float64]:
        """Where the dots are [E, 2], in widths of the picture."""
        return self.rooms.position / 64

    def distance(self, goal: NDArray[np.floating]) -> NDArray[np.float64]:
        """How far the dots are from `goal` [E, 2] as the crow flies."""
        return np.linalg.norm(self.goal_state() - goal, axis=-1)

    def distance_to_goal(self, goal: NDArray[np.floating]) -> NDArray[np.float64]:
        """How far it is to walk to `goal` [E, 2], through the door if it is in the other room; both in widths."""
        r, goal = self.rooms, np.asarray(goal, dtype=np.float64) * 64
        door = np.column_stack([r.wall, r.door])
        across = (r.position[:, 0] > r.wall) != (goal[:, 0] > r.wall)
        straight = np.linalg.norm(goal - r.position, axis=-1)
        through = np.linalg.norm(door - r.position, axis=-1) + np.linalg.norm(goal - door, axis=-1)
        return np.where(across, through, straight) / 64

    def speed(self) -> NDArray[np.float64]:
        """Nothing moves by itself here."""
        return np.zeros(len(self))

    def set_goal_state(self, goal: NDArray[np.floating]) -> None:
        """Put the dots at `goal` [E, 2], in widths of the picture."""
        self.rooms.position = np.asarray(goal, dtype=np.float64) * 64

    def draw_goals(self, rng: np.random.Generator) -> NDArray[np.float64]:
        """Free positions [E, 2] in the other room than the dot's, in widths of the picture."""
        return self.goal_across(rng.uniform(size=(len(self), 2)))

    def expert(self, goal: NDArray[np.floating]) -> NDArray[np.float64]:
        """The scripted way to `goal` [E, 2], in widths of the picture: to the door, through it, and there."""
        r, goal = self.rooms, np.asarray(goal, dtype=np.float64) * 64
        here, side = r.position, np.sign(goal[:, 0] - r.wall)
        beside = np.sign(here[:, 0] - r.wall) != side  # in the other room, or in the doorway
        near = THICK + 2 * MARGIN
        in_line = np.abs(here[:, 1] - r.door) < DOOR - MARGIN
        before = np.column_stack([r.wall - side * near, r.door])
        behind = np.column_stack([r.wall + side * near, r.door])
        passing = np.abs(here[:, 0] - r.wall) <= near + MARGIN
        target = np.where(beside[:, None], np.where((in_line & passing)[:, None], behind, before), goal)
        # Past the middle of the wall, but still between the door's posts: go on straight.
        between = ~beside & (np.abs(here[:, 0] - r.wall) < THICK + MARGIN) & in_line
        target = np.where(between[:, None], behind, target)
        return (target - here) / LONGEST_STEP

    def act(self, policy: str, generators: list[np.random.Generator], frames: int) -> NDArray[np.float32]:
        """Actions [E, frames-1, 2] of a policy that records data, from a generator for each episode.

        random: a walk whose heading turns a little at every step; a third of them are led through the door. Half of
            all do each action five times.
        noisy-expert: to a goal in the other room and then to one in this, and so on, with noise.
        mixed: by turns a walk of one to four seconds and a way to a goal in the other room, at any speed.
        """
        if policy not in self.policies:
            raise ValueError(f"two rooms have the policies {', '.join(self.policies)}, found {policy!r}")
        world = self.take(np.arange(len(self)))
        if policy == "mixed":
            return world._wander([_Leg.draw(rng, frames) for rng in generators], frames)
        draws = [_Walk.draw(rng, frames) for rng in generators]
        turns, lengths = (np.stack([getattr(d, name) for d in draws]) for name in ("turns", "lengths"))
        heading = np.array([d.heading for d in draws])
        led = np.array([d.led for d in draws]) if policy == "random" else np.ones(len(self), dtype=bool)
        held = np.array([d.held for d in draws]) if policy == "random" else np.zeros(len(self), dtype=bool)
        goals = np.stack([d.goals for d in draws])  # [E, G, 2] in the unit square
        number = np.zeros(len(self), dtype=np.intp)
        goal = world.goal_across(goals[:, 0])
        actions = np.zeros((len(self), frames - 1, 2), np.float32)
        for t in range(frames - 1):
            heading = heading + turns[:, t]
            walk = lengths[:, t, None] * np.stack([np.cos(heading), np.sin(heading)], -1) / LONGEST_STEP
            there = world.distance(goal) < 2 / 64
            number[there] = np.minimum(number[there] + 1, goals.shape[1] - 1)
            goal[there] = world.goal_across(goals[np.arange(len(self)), number])[there]
            wanted = _cut(world.expert(goal)) * (lengths[:, t, None] / LONGEST_STEP)
            led_step = _cut(wanted + 0.35 * walk)
            actions[:, t] = np.where(led[:, None], led_step, _cut(walk))
            if t % HOLD:
                actions[held, t] = actions[held, t - 1]
            if policy == "random":  # once through, a led walk goes on by itself
                led &= ~there
            world.step(actions[:, t])
        return actions

    def _wander(self, legs: list["_Leg"], frames: int) -> NDArray[np.float32]:
        length, errand, held, speed, goals, heading, noise = (
            np.stack([getattr(leg, f.name) for leg in legs]) for f in fields(_Leg)
        )
        rows, leg, since = np.arange(len(self)), np.zeros(len(self), np.intp), np.zeros(len(self), np.intp)
        goal = self.goal_across(goals[:, 0])
        actions = np.zeros((len(self), frames - 1, 2), np.float32)
        for t in range(frames - 1):
            on, fast = errand[rows, leg], speed[rows, leg, None]
            walk = np.stack([np.cos(heading[:, t]), np.sin(heading[:, t])], -1)
            led = _cut(_cut(self.expert(goal)) * fast + noise[:, t])
            actions[:, t] = np.where(on[:, None], led, fast * walk)
            if t % HOLD:
                again = held[rows, leg]
                actions[again, t] = actions[again, t - 1]
            self.step(actions[:, t])
            since += 1
            over = np.where(on, (self.distance(goal) < 2.5 / 64) | (since > LONGEST_ERRAND), since >= length[rows, leg])
            leg, since = np.minimum(leg + over, goals.shape[1] - 1), np.where(over, 0, since)
            goal[over] = self.goal_across(goals[rows, leg])[over]
        return actions

    def goal_across(self, unit: NDArray[np.floating]) -> NDArray[np.float64]:
        """Points of the unit square [E, 2] as free positions in the other room, in widths of the picture."""
        r = self.rooms
        is_left = r.position[:, 0] < r.wall
        low = np.where(is_left, r.wall + THICK + MARGIN, LOW + MARGIN)
        high = np.where(is_left, HIGH - MARGIN, r.wall - THICK - MARGIN)
        y = LOW + MARGIN + unit[:, 1] * (HIGH - LOW - 2 * MARGIN)
        return np.column_stack([low + unit[:, 0] * (high - low), y]) / 64

    def render(self) -> NDArray[np.uint8]:
        """RGB pictures [E, size, size, 3]: the dot is red, walls are green."""
        if self._walls is None:
            self._walls = self._paint_walls()
        picture = self._walls.copy()
        picture[..., 0] = self._paint_dots()
        return picture

    def take(self, index: NDArray[np.intp]) -> "TwoRoomsBatch":
        """An independent copy of the chosen episodes in their present state, repeats allowed."""
        other = object.__new__(TwoRoomsBatch)
        other.name, other.image_size = self.name, self.image_size
        other.rooms = Rooms(**{f.name: getattr(self.rooms, f.name)[index] for f in fields(Rooms)})
        other.labels = {name: x[index] for name, x in self.labels.items()}
        other._walls = None
        return other

    def _moved(self, actions: NDArray[np.float64]) -> NDArray[np.float64]:
        r = self.rooms
        there = r.position + LONGEST_STEP * _cut(actions)
        outside = ((there < LOW) | (there > HIGH)).any(-1)
        in_wall = (np.abs(there[:, 0] - r.wall) <= THICK) & (np.abs(there[:, 1] - r.door) > DOOR)
        return np.where((outside | in_wall)[:, None], r.position, there)

    def _paint_walls(self) -> NDArray[np.uint8]:
        size, r = self.image_size, self.rooms
        at = (np.arange(size) + 0.5) * 64 / size
        x, y = at[None, None, :], at[None, :, None]
        wall, door = r.wall[:, None, None], r.door[:, None, None]
        border = np.minimum(np.minimum(x, 64 - x), np.minimum(y, 64 - y)) <= LOW  # the same in all episodes
        inner = (np.abs(x - wall) <= THICK) & (np.abs(y - door) > DOOR)
        picture = np.zeros((len(self), size, size, 3), np.uint8)
        picture[..., 1] = np.where(border | inner, 180, 0)
        return picture

    def _paint_dots(self) -> NDArray[np.uint8]:
        size = self.image_size
        at = (np.arange(size, dtype=np.float32) + 0.5) * 64 / size
        here = self.rooms.position.astype(np.float32)
        x, y = (np.exp(-((at - here[:, i, None]) ** 2) / (2 * DOT**2)) for i in (0, 1))
        return (255 * y[:, :, None] * x[:, None, :] + 0.5).astype(np.uint8)


@dataclass(frozen=True)
class _Walk:
    """The random numbers of an episode's walk."""

    heading: float
    turns: NDArray[np.float64]
    lengths: NDArray[np.float64]
    led: bool
    goals: NDArray[np.float64]
    held: bool

    @classmethod
    def draw(cls, rng: np.random.Generator, frames: int) -> "_Walk":
        mean, spread, least = STEP
        lengths = rng.normal(mean, spread, (frames - 1, 8))
        fits = (lengths >= least) & (lengths <= LONGEST_STEP)
        first = fits.argmax(1)  # of eight draws the first within the limits, which truncates the normal
        lengths = lengths[np.arange(frames - 1), first].clip(least, LONGEST_STEP)
        return cls(
            rng.uniform(0, 2 * np.pi),
            rng.vonmises(0.0, TURN, frames - 1),
            lengths,
            bool(rng.uniform() < THROUGH),
            rng.uniform(size=(8, 2)),
            bool(rng.uniform() < HELD),
        )


@dataclass(frozen=True)
class _Leg:
    """The random numbers of a mixed's legs [L], and of its steps [frames]."""

    length: NDArray[np.intp]
    errand: NDArray[np.bool_]
    held: NDArray[np.bool_]
    speed: NDArray[np.float64]
    goals: NDArray[np.float64]
    heading: NDArray[np.float64]
    noise: NDArray[np.float64]

    @classmethod
    def draw(cls, rng: np.random.Generator, frames: int) -> "_Leg":
        legs = 1 + frames // 8
        return cls(
            rng.integers(10, 41, legs),
            rng.uniform(size=legs) < 0.5,
            rng.uniform(size=legs) < 0.6,
            np.where(rng.uniform(size=legs) < 0.5, 1.0, rng.uniform(0.3, 1.0, legs)),
            rng.uniform(size=(legs, 2)),
            rng.uniform(0, 2 * np.pi) + np.cumsum(rng.vonmises(0.0, 3.0, frames)),
            rng.normal(0, 0.25, (frames, 2)),
        )


def _cut(actions: NDArray[np.float64]) -> NDArray[np.float64]:
    """Actions of length 1 at most."""
    return actions / np.maximum(1.0, np.linalg.norm(actions, axis=-1, keepdims=True))


def _draw(random_wall: bool, rng: np.random.Generator) -> tuple[float, float, float, float]:
    """x and y of the dot, the wall and the door."""
    wall, door = (rng.uniform(*WALL_X), rng.uniform(*DOOR_Y)) if random_wall else (32.0, 32.0)
    while True:
        x, y = rng.uniform(LOW + MARGIN, HIGH - MARGIN, 2)
        if abs(x - wall) > THICK + MARGIN:
            return x, y, wall, door
