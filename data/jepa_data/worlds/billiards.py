"""A top-down billiards table: a puck pushed by a force, free discs, walls, drag, and a band that hides discs.

Four levels:

    easy     0-2 discs that differ in color, dark table, no band
    medium   1-3 discs that differ in color, an opaque band over a quarter of the table
    hard     4-8 discs that differ in size only; colors, texture and light change by episode; a band
    flicker  as easy, but before a mosaic of colored cells that is another in every frame: only the discs persist

True states of every disc: position, velocity, visibility, contact. Two labels of an episode show only in motion:
`bouncy` (the free discs are of rubber, or of clay) and `heavy` (they push the puck aside, or are pushed). Units: table
widths and seconds; y points downwards. Each episode is drawn from (seed, episode), independent of other episodes.

Events: `gravity-left`, `-right`, `-up`, `-down` let all discs fall there until `gravity-off`; `gust` blows all discs to
the right, by a push; `kick-body` kicks the first free disc towards the puck.
"""

from dataclasses import dataclass
from functools import cached_property, partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from jepa_data.spatial.kinds import SpatialInfo
from jepa_data.worlds import render
from jepa_data.worlds.base import GoalBatch
from jepa_data.worlds.geometry import in_unit_disc, unit_vector
from jepa_data.worlds.physics import FRAME_SECONDS, PUCK_DRAG, Discs

TEXTURE_GRID = 9
FIELDS = ("x", "y", "vx", "vy", "visible", "contact")
BOUNCE = (0.35, 0.95)  # clay, rubber
MASS = (0.4, 2.5)  # the puck's is 1
PALETTE = ((0.95, 0.85, 0.25), (0.25, 0.65, 1.0), (0.95, 0.35, 0.35), (0.4, 0.9, 0.45))


@dataclass(frozen=True)
class Level:
    """Settings of a level. Ranges are inclusive."""

    bodies: tuple[int, int]
    body_radius: tuple[float, float]
    body_speed: tuple[float, float]
    band_width: float
    varied_look: bool
    flickers: bool = False

    @property
    def discs(self) -> int:
        return 1 + self.bodies[1]


LEVELS = {
    "easy": Level((0, 2), (0.07, 0.09), (0.5, 1.2), 0.0, False),
    "medium": Level((1, 3), (0.06, 0.08), (0.5, 1.2), 0.25, False),
    "hard": Level((4, 8), (0.04, 0.09), (0.4, 1.0), 0.25, True),
    "flicker": Level((0, 2), (0.07, 0.09), (0.5, 1.2), 0.0, False, flickers=True),
}
FLICKER_CELLS = 9  # of the mosaic, over the width of the image: about as large as the discs
FLICKER_BRIGHTNESS = 0.7  # of its brightest cells
PUCK_RADIUS = 0.075
GRAVITY = 2.0  # table widths / s²
TOWARDS = {"left": (-1.0, 0.0), "right": (1.0, 0.0), "up": (0.0, -1.0), "down": (0.0, 1.0), "off": (0.0, 0.0)}
GUST, KICK = 0.8, 1.5  # table widths a second
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


@dataclass
class Tables:
    """All of E episodes: discs, looks, and labels."""

    discs: Discs
    look: Look
    bodies: NDArray[np.int64]  # [E]
    bouncy: NDArray[np.int64]  # [E]
    heavy: NDArray[np.int64]  # [E]
    frame: NDArray[np.uint64]  # [E] steps taken
    mosaic: NDArray[np.uint64]  # [E] key of the mosaics of the level `flicker`
    gravity: NDArray[np.float64]  # [E, 2] table widths / s²


class BilliardsBatch(GoalBatch):
    """Many tables side by side, of one of the LEVELS."""

    action_size = 2
    action_names = ("right", "down")
    fps = 1.0 / FRAME_SECONDS
    image_sizes = (32, 128)
    longest_repeat = 7
    label_names = ("bodies", "bouncy", "heavy")
    goal_names = ("puck.x", "puck.y")
    radius = 0.08  # about the radius of the puck
    unit = "widths of the image"
    events = (*(f"gravity-{name}" for name in TOWARDS), "gust", "kick-body")
    state: Tables

    def __init__(self, level: str, episodes: NDArray[np.integer], *, image_size: int = 64, seed: int = 0) -> None:
        if level not in LEVELS:
            raise ValueError(f"no billiards level {level!r}; there are {', '.join(LEVELS)}")
        self.name = f"billiards-{level}"
        self.level = LEVELS[level]
        names = ["puck"] + [f"body{i}" for i in range(self.level.bodies[1])]
        self.state_names = [f"{name}.{field}" for name in names for field in FIELDS]
        band = ("band",) if self.level.band_width else ()
        self._bodies = tuple(names)
        self._regions = ("table", *names, *band)
        super().__init__(episodes, image_size=image_size, seed=seed)

    @property
    def spatial_infos(self) -> tuple[SpatialInfo, ...]:
        """Regions of the image (the band hides discs), and the middle of each disc."""
        side = self.image_size
        mask = SpatialInfo(kind="mask", shape=(side, side), dtype="uint8", names=self._regions)
        points = SpatialInfo(kind="keypoints", shape=(self.level.discs, 3), dtype="float32", names=self._bodies)
        return mask, points

    def draw(self, rng: np.random.Generator) -> Tables:
        return _draw_episode(self.level, rng)

    def states(self) -> NDArray[np.float32]:
        """True states [E, X] with the columns `state_names`; NaN for absent discs."""
        d = self.state.discs
        columns = [d.position, d.velocity, self.visible()[..., None], d.contact[..., None]]
        table = np.concatenate(columns, -1).astype(np.float32)
        table[~d.present] = np.nan
        return table.reshape(len(self), -1)

    def visible(self) -> NDArray[np.bool_]:
        """[E, M]: False if a disc is completely under the band."""
        d = self.state.discs
        left, right = self.state.look.band.T[..., None]
        return ~((d.position[..., 0] - d.radius >= left) & (d.position[..., 0] + d.radius <= right))

    def step(self, actions: NDArray[np.floating]) -> None:
        """Advance every table one frame (0.1 s) under a force [E, 2] in -1..1 on the puck."""
        gravity = self.state.gravity if self.state.gravity.any() else None
        self.state.discs.step(np.asarray(actions, dtype=np.float64), gravity)
        self.state.frame += np.uint64(1)

    def happen(self, event: str, episodes: NDArray[np.intp]) -> None:
        """Turn gravity, or change the velocities of present discs."""
        d = self.state.discs
        kind, _, towards = event.partition("-")
        if kind == "gravity":
            self.state.gravity[episodes] = GRAVITY * np.array(TOWARDS[towards])
        elif event == "gust":
            d.velocity[episodes, :, 0] += GUST * d.present[episodes]
        else:
            rows = episodes[d.present[episodes, 1]]
            way = d.position[rows, 0] - d.position[rows, 1]
            d.velocity[rows, 1] = KICK * way / np.maximum(np.linalg.norm(way, axis=-1, keepdims=True), 1e-9)

    def render(self) -> NDArray[np.uint8]:
        look = self.state.look
        d = self.state.discs
        image = self._mosaics() if self.level.flickers else self._empty_tables.copy()
        position = d.position.astype(np.float32)
        radius = d.radius.astype(np.float32)
        for m in reversed(range(self.level.discs)):  # the puck is painted last, over the others
            render.paint_discs(image, position[:, m], radius[:, m], look.color[:, m], d.present[:, m])
        if self.level.band_width:
            render.paint_band(image, look.band[:, 0], look.band[:, 1], look.band_color)
        image *= 255.0
        image += 0.5
        return image.astype(np.uint8)

    def spatial(self, kind: str) -> NDArray[Any]:
        """Mask [E, size, size] of `_regions`, or keypoints [E, M, 3]: NaN if absent, visible if not under the band."""
        d = self.state.discs
        band = self.state.look.band.T[..., None]
        if kind == "keypoints":
            x = d.position[..., 0]
            seen = d.present & ~((x >= band[0]) & (x < band[1]))
            points = np.concatenate([d.position * self.image_size, seen[..., None]], -1).astype(np.float32)
            points[..., :2][~d.present] = np.nan
            return points
        mask = np.zeros((len(self), self.image_size, self.image_size), np.uint8)
        position, radius = d.position.astype(np.float32), d.radius.astype(np.float32)
        for m in reversed(range(self.level.discs)):
            render.mask_discs(mask, position[:, m], radius[:, m], m + 1, d.present[:, m])
        x = (np.arange(self.image_size) + 0.5) / self.image_size
        hidden = (x >= band[0]) & (x < band[1])
        return np.where(hidden[:, None, :], np.uint8(self.level.discs + 1), mask)

    @cached_property
    def _empty_tables(self) -> NDArray[np.float32]:
        look = self.state.look
        return render.background(look.texture, look.light, look.table, self.image_size)

    def _mosaics(self) -> NDArray[np.float32]:
        """What lies behind the discs in this frame of the level `flicker`."""
        at = (np.arange(self.image_size, dtype=np.float32) + 0.5) * (FLICKER_CELLS / self.image_size)
        x, y = (np.broadcast_to(part, (len(self), *part.shape)) for part in np.meshgrid(at, at))
        cells = render.make_mosaic(self.state.mosaic + self.state.frame, FLICKER_CELLS + 2)
        return FLICKER_BRIGHTNESS * render.paint_mosaic(cells, x, y)

    def goal_state(self) -> NDArray[np.float64]:
        """Positions of the pucks [E, 2]."""
        return self.state.discs.position[:, 0]

    def goal_at(self, point: NDArray[np.floating]) -> NDArray[np.float64]:
        """The nearest places [E, 2] to `point` at which the puck is on the table."""
        return np.asarray(point, dtype=np.float64).clip(PUCK_RADIUS, 1 - PUCK_RADIUS)

    def image_point(self, goal: NDArray[np.floating]) -> NDArray[np.float64]:
        return np.asarray(goal, dtype=np.float64)

    def expert(self, goal: NDArray[np.floating]) -> NDArray[np.float64]:
        """A damped spring to `goal` [E, 2]; ignores the other discs."""
        force = SPRING * (goal - self.goal_state()) - DAMPING * self.state.discs.velocity[:, 0]
        return force.clip(-1, 1)

    def speed(self) -> NDArray[np.float64]:
        """Speeds of the pucks [E]."""
        return np.linalg.norm(self.state.discs.velocity[:, 0], axis=-1)

    def draw_goals(self, rng: np.random.Generator) -> NDArray[np.float64]:
        """Valid positions [E, 2] of the puck."""
        return rng.uniform(PUCK_RADIUS, 1 - PUCK_RADIUS, (len(self), 2))

    def random_action(self, rng: np.random.Generator) -> NDArray[np.float64]:
        """A force [2], uniform in the unit disc."""
        return in_unit_disc(rng)

    def set_goal_state(self, goal: NDArray[np.floating]) -> None:
        """Put the puck of each table at `goal` [E, 2], at rest."""
        self.state.discs.position[:, 0] = goal
        self.state.discs.velocity[:, 0] = 0.0


def _draw_episode(level: Level, rng: np.random.Generator) -> Tables:
    count = int(rng.integers(level.bodies[0], level.bodies[1] + 1))
    bouncy = int(rng.integers(2))
    heavy = int(rng.integers(2))
    discs = level.discs
    present = np.arange(discs) <= count
    # Sizes are spread evenly over the range: in `hard` they alone tell the discs apart.
    radius = np.r_[PUCK_RADIUS, np.linspace(level.body_radius[1], level.body_radius[0], discs - 1)]
    speed = rng.uniform(*level.body_speed, discs)
    angle = rng.uniform(0, 2 * np.pi, discs)
    speed[0] = 0.0
    physical = Discs(
        position=_random_positions(radius, present, rng),
        velocity=speed[:, None] * unit_vector(angle) * present[:, None],
        radius=radius,
        mass=np.r_[1.0, np.full(discs - 1, MASS[heavy])],
        bounce=np.r_[0.6, np.full(discs - 1, BOUNCE[bouncy])],
        drag=np.r_[PUCK_DRAG, np.full(discs - 1, 0.15)],
        present=present,
        contact=np.zeros(discs, dtype=bool),
    )
    labels = np.array([count, bouncy, heavy])
    if not count:
        labels[1:] = -1
    look = _draw_look(level, rng)
    mosaic = rng.integers(2**63, dtype=np.uint64)
    start = np.array(0, dtype=np.uint64)
    numbers = (np.array(label) for label in labels)
    return Tables(physical, look, *numbers, frame=start, mosaic=np.array(mosaic), gravity=np.zeros(2))


def _random_positions(
    radius: NDArray[np.float64], present: NDArray[np.bool_], rng: np.random.Generator
) -> NDArray[np.float64]:
    """Positions [M, 2] at which no two present discs overlap (absent ones lie in the middle)."""
    position = np.full((len(radius), 2), 0.5)
    for m in np.flatnonzero(present):
        for _ in range(1000):
            position[m] = rng.uniform(radius[m], 1 - radius[m], 2)
            others = np.flatnonzero(present[:m])
            if (np.linalg.norm(position[others] - position[m], axis=-1) > radius[others] + radius[m]).all():
                break
    return position


def _draw_look(level: Level, rng: np.random.Generator) -> Look:
    left = 0.0
    if level.band_width:
        left = rng.uniform(0.2, 0.8 - level.band_width)
    look = Look(
        color=np.array([PALETTE[m % len(PALETTE)] for m in range(level.discs)], dtype=np.float32),
        table=np.full(3, 0.08, dtype=np.float32),
        texture=np.zeros((TEXTURE_GRID, TEXTURE_GRID), dtype=np.float32),
        light=np.zeros(2, dtype=np.float32),
        band=np.array([left, left + level.band_width], dtype=np.float32),
        band_color=np.full(3, 0.45, dtype=np.float32),
    )
    if level.varied_look:
        table = rng.uniform(0.1, 0.5, 3)
        body = (table + rng.uniform(0.3, 0.5, 3)).clip(0, 1)
        colors = np.tile(body, (level.discs, 1))
        colors[0] = rng.uniform(0.6, 1.0, 3)
        look.color = colors.astype(np.float32)
        look.table = table.astype(np.float32)
        look.texture = rng.normal(0, 0.06, (TEXTURE_GRID, TEXTURE_GRID)).astype(np.float32)
        look.light = rng.uniform(-0.15, 0.15, 2).astype(np.float32)
        look.band_color = rng.uniform(0.1, 0.7, 3).astype(np.float32)
    return look


easy = partial(BilliardsBatch, "easy")
medium = partial(BilliardsBatch, "medium")
hard = partial(BilliardsBatch, "hard")
flicker = partial(BilliardsBatch, "flicker")
