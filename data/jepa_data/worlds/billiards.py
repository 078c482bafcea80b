"""A top-down billiards table: one puck that is pushed by a force, free discs, walls, drag, and a band that hides.

The world is both the corpus and the place to act in. Three levels:

    easy     0-2 discs told apart by color, dark table, no band
    medium   1-3 discs told apart by color, an opaque band over a quarter of the table
    hard     4-8 discs told apart by size only; colors, texture and light change by episode; a band

Ground truth for every disc: position, velocity, visible or not, contact. Two labels of an episode show only in
motion: `bouncy` (the free discs are of rubber, or of clay) and `heavy` (they push the puck aside, or are pushed).
Units: table widths and seconds; y points downwards. Each episode is drawn from (seed, episode) alone, so its
pictures and its motion do not depend on which others run beside it.
"""

from dataclasses import dataclass, fields

import numpy as np
from numpy.typing import NDArray

from jepa_data.worlds import render
from jepa_data.worlds.action_repeat import held_in_disc
from jepa_data.worlds.physics import FRAME_SECONDS, PUCK_DRAG, Discs

ACTION_SIZE = 2
FPS = 1.0 / FRAME_SECONDS
VERSION = 1
TEXTURE_GRID = 9
LONGEST_HOLD = 7  # frames for which the recorded agent holds a force
FIELDS = ("x", "y", "vx", "vy", "visible", "contact")
LABELS = ("bodies", "bouncy", "heavy")
BOUNCE = (0.35, 0.95)  # clay, rubber
MASS = (0.4, 2.5)  # the puck's is 1
PALETTE = ((0.95, 0.85, 0.25), (0.25, 0.65, 1.0), (0.95, 0.35, 0.35), (0.4, 0.9, 0.45))


@dataclass(frozen=True)
class Level:
    """What differs between levels. Ranges are inclusive."""

    bodies: tuple[int, int]
    body_radius: tuple[float, float]
    body_speed: tuple[float, float]
    band_width: float
    varied_look: bool

    @property
    def discs(self) -> int:
        return 1 + self.bodies[1]


LEVELS = {
    "easy": Level((0, 2), (0.07, 0.09), (0.5, 1.2), 0.0, False),
    "medium": Level((1, 3), (0.06, 0.08), (0.5, 1.2), 0.25, False),
    "hard": Level((4, 8), (0.04, 0.09), (0.4, 1.0), 0.25, True),
}
PUCK_RADIUS = 0.075
SPRING, DAMPING = 5.0, 1.5  # of the scripted agent: force per table width, and per table width a second


@dataclass
class Look:
    """How each episode is painted."""

    color: NDArray[np.float32]  # [E, M, 3]
    table: NDArray[np.float32]  # [E, 3]
    texture: NDArray[np.float32]  # [E, g, g]
    light: NDArray[np.float32]  # [E, 2]
    band: NDArray[np.float32]  # [E, 2] left and right edge, equal = none
    band_color: NDArray[np.float32]  # [E, 3]

    def take(self, index: NDArray[np.intp]) -> "Look":
        return Look(**{f.name: getattr(self, f.name)[index] for f in fields(self)})


class BilliardsBatch:
    """Many tables side by side, one per entry of `episodes`.

    Args:
        level: "easy", "medium" or "hard".
        episodes: episode numbers; with `seed` they fix everything about an episode but the actions.
        image_size: pixels a side, 32..128.
    """

    action_size = ACTION_SIZE
    fps = FPS
    version = VERSION
    label_names = LABELS
    goal_names = ("puck.x", "puck.y")
    has_expert = copies = True
    radius, unit = 0.08, "widths of the picture"  # about the radius of the puck
    policies: tuple[str, ...] = ("random",)

    def __init__(self, level: str, episodes: NDArray[np.integer], *, image_size: int = 64, seed: int = 0) -> None:
        if level not in LEVELS:
            raise ValueError(f"no billiards level {level!r}; there are {', '.join(LEVELS)}")
        if not 32 <= image_size <= 128:
            raise ValueError(f"image_size is {image_size}; billiards is drawn at 32 to 128 pixels")
        self.level, self.image_size = LEVELS[level], image_size
        self.name = f"billiards-{level}"
        drawn = [_draw_episode(self.level, np.random.Generator(np.random.Philox(key=[seed, int(e)]))) for e in episodes]
        self.discs = Discs(**{f.name: np.stack([d[0][f.name] for d in drawn]) for f in fields(Discs)})
        self.look = Look(**{f.name: np.stack([d[1][f.name] for d in drawn]) for f in fields(Look)})
        self.labels = {name: np.array([d[2][name] for d in drawn], dtype=np.int64) for name in LABELS}
        self._table: NDArray[np.float32] | None = None  # the empty tables, painted once

    def __len__(self) -> int:
        return len(self.discs.radius)

    @property
    def state_names(self) -> list[str]:
        """The columns of `states()`: `puck.x` … `body1.contact`."""
        names = ["puck"] + [f"body{i}" for i in range(self.level.bodies[1])]
        return [f"{name}.{what}" for name in names for what in FIELDS]

    def states(self) -> NDArray[np.float32]:
        """Ground truth [E, X] as named by `state_names`; NaN for a disc that the episode does not have."""
        d = self.discs
        columns = [d.position, d.velocity, self.visible()[..., None], d.contact[..., None]]
        table = np.concatenate(columns, -1).astype(np.float32)
        table[~d.present] = np.nan
        return table.reshape(len(self), -1)

    def visible(self) -> NDArray[np.bool_]:
        """[E, M]: False where a disc lies wholly under the band."""
        x, r, band = self.discs.position[..., 0], self.discs.radius, self.look.band[:, None]
        return ~((x - r >= band[..., 0]) & (x + r <= band[..., 1]))

    def terminated(self) -> NDArray[np.bool_]:
        """No episode ends by itself."""
        return np.zeros(len(self), dtype=bool)

    def step(self, actions: NDArray[np.floating]) -> None:
        """Advance every table one frame (0.1 s) under a force [E, 2] in -1..1 on the puck."""
        self.discs.step(np.asarray(actions, dtype=np.float64))

    def render(self) -> NDArray[np.uint8]:
        """RGB pictures [E, size, size, 3]."""
        look, d = self.look, self.discs
        if self._table is None:
            self._table = render.background(look.texture, look.light, look.table, self.image_size)
        picture = self._table.copy()
        position, radius = d.position.astype(np.float32), d.radius.astype(np.float32)
        for m in reversed(range(self.level.discs)):  # the puck is painted last, over the others
            render.paint_discs(picture, position[:, m], radius[:, m], look.color[:, m], d.present[:, m])
        if self.level.band_width:
            render.paint_band(picture, look.band[:, 0], look.band[:, 1], look.band_color)
        picture *= 255.0
        picture += 0.5
        return picture.astype(np.uint8)

    def take(self, index: NDArray[np.intp]) -> "BilliardsBatch":
        """An independent copy of the chosen tables in their present state, repeats allowed."""
        other = object.__new__(BilliardsBatch)
        other.level, other.image_size, other.name = self.level, self.image_size, self.name
        other.discs, other.look = self.discs.take(index), self.look.take(index)
        other.labels = {name: x[index] for name, x in self.labels.items()}
        other._table = None
        return other

    def goal_state(self) -> NDArray[np.float64]:
        """Where the pucks are [E, 2]."""
        return self.discs.position[:, 0]

    def distance(self, goal: NDArray[np.floating]) -> NDArray[np.float64]:
        """How far the pucks are from `goal` [E, 2]."""
        return np.linalg.norm(self.goal_state() - goal, axis=-1)

    def distance_to_goal(self, goal: NDArray[np.floating]) -> NDArray[np.float64]:
        """The distance: nothing lies in the way that could not be pushed aside."""
        return self.distance(goal)

    def expert(self, goal: NDArray[np.floating]) -> NDArray[np.float64]:
        """A spring to `goal` [E, 2] with damping; the other discs are not looked at."""
        away, velocity = goal - self.goal_state(), self.discs.velocity[:, 0]
        return (SPRING * away - DAMPING * velocity).clip(-1, 1)

    def speed(self) -> NDArray[np.float64]:
        """How fast the pucks are [E]."""
        return np.linalg.norm(self.discs.velocity[:, 0], axis=-1)

    def draw_goals(self, rng: np.random.Generator) -> NDArray[np.float64]:
        """Places [E, 2] where a puck may lie."""
        return rng.uniform(PUCK_RADIUS, 1 - PUCK_RADIUS, (len(self), 2))

    def act(self, policy: str, generators: list[np.random.Generator], frames: int) -> NDArray[np.float32]:
        """Actions [E, frames-1, 2] of a policy that records data, from a generator for each episode.

        random: forces drawn evenly from the unit disc, each held for 1 to 7 frames.
        """
        if policy not in self.policies:
            raise ValueError(f"billiards has the policies {', '.join(self.policies)}, found {policy!r}")
        return np.stack([held_in_disc(rng, frames, LONGEST_HOLD) for rng in generators])

    def set_goal_state(self, goal: NDArray[np.floating]) -> None:
        """Put the puck of each table at `goal` [E, 2], at rest."""
        self.discs.position[:, 0] = goal
        self.discs.velocity[:, 0] = 0.0


def _draw_episode(level: Level, rng: np.random.Generator) -> tuple[dict, dict, dict]:
    """One episode: its discs, its look and its labels."""
    count, discs = int(rng.integers(level.bodies[0], level.bodies[1] + 1)), level.discs
    bouncy, heavy = int(rng.integers(2)), int(rng.integers(2))
    present = np.arange(discs) <= count
    # Sizes are spread evenly over the range: in `hard` they alone tell the discs apart.
    radius = np.r_[PUCK_RADIUS, np.linspace(level.body_radius[1], level.body_radius[0], discs - 1)]
    speed, angle = rng.uniform(*level.body_speed, discs), rng.uniform(0, 2 * np.pi, discs)
    speed[0] = 0.0
    physical = {
        "position": _place(radius, present, rng),
        "velocity": speed[:, None] * np.stack([np.cos(angle), np.sin(angle)], -1) * present[:, None],
        "radius": radius,
        "mass": np.r_[1.0, np.full(discs - 1, MASS[heavy])],
        "bounce": np.r_[0.6, np.full(discs - 1, BOUNCE[bouncy])],
        "drag": np.r_[PUCK_DRAG, np.full(discs - 1, 0.15)],
        "present": present,
        "contact": np.zeros(discs, dtype=bool),
    }
    labels = {"bodies": count, "bouncy": bouncy if count else -1, "heavy": heavy if count else -1}
    return physical, _draw_look(level, rng), labels


def _place(radius: NDArray[np.float64], present: NDArray[np.bool_], rng: np.random.Generator) -> NDArray[np.float64]:
    """Positions [M, 2] at which no two present discs overlap (absent ones lie in the middle)."""
    position = np.full((len(radius), 2), 0.5)
    for m in np.flatnonzero(present):
        for _ in range(1000):
            position[m] = rng.uniform(radius[m], 1 - radius[m], 2)
            others = np.flatnonzero(present[:m])
            if (np.linalg.norm(position[others] - position[m], axis=-1) > radius[others] + radius[m]).all():
                break
    return position


def _draw_look(level: Level, rng: np.random.Generator) -> dict:
    discs = level.discs
    left = rng.uniform(0.2, 0.8 - level.band_width) if level.band_width else 0.0
    look = {
        "color": np.array([PALETTE[m % len(PALETTE)] for m in range(discs)], dtype=np.float32),
        "table": np.full(3, 0.08, dtype=np.float32),
        "texture": np.zeros((TEXTURE_GRID, TEXTURE_GRID), dtype=np.float32),
        "light": np.zeros(2, dtype=np.float32),
        "band": np.array([left, left + level.band_width], dtype=np.float32),
        "band_color": np.full(3, 0.45, dtype=np.float32),
    }
    if level.varied_look:
        table = rng.uniform(0.1, 0.5, 3)
        body = (table + rng.uniform(0.3, 0.5, 3)).clip(0, 1)
        colors = np.tile(body, (discs, 1))
        colors[0] = rng.uniform(0.6, 1.0, 3)
        look |= {
            "color": colors.astype(np.float32),
            "table": table.astype(np.float32),
            "texture": rng.normal(0, 0.06, (TEXTURE_GRID, TEXTURE_GRID)).astype(np.float32),
            "light": rng.uniform(-0.15, 0.15, 2).astype(np.float32),
            "band_color": rng.uniform(0.1, 0.7, 3).astype(np.float32),
        }
    return look
