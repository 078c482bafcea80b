"""`jepa data worlds`: which simulated worlds there are, what can be done in them, and how fast they are here.

The sheet has a row for each world: frames of a recording, spread evenly, and the image of a goal.

┌──────┬──────┬──────┬──────┐ ┌──────┐
│ 0    │  …   │  …   │ last │ │ goal │  push-t
└──────┴──────┴──────┴──────┘ └──────┘
"""

from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import psutil
from jaxtyping import UInt8
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

from jepa_data.errors import DataError
from jepa_data.worlds import make_batch, world_names
from jepa_data.worlds.base import GoalBatch, WorldBatch
from jepa_data.worlds.gym import PREFIX
from jepa_data.writable import writing

EPISODES = 64  # side by side, for the measured speed
SECONDS = 2.0  # of CPU time, at least, for the same
FRAMES = 40  # of a recording
SHOWN = 6  # of them on the sheet
SIDE = 64  # pixels of an image
GAP = 4  # pixels between two
NAME = 172  # pixels for the name of a world
HEADER = ("world", "actions", "state", "a goal is reached below", "who records")


@dataclass(frozen=True)
class WorldSummary:
    """A world in the table. `missing` says why it is not installed; the rest is empty then.

    Attributes:
        row: as in HEADER.
        images: of an episode, and of a goal for it.
        speed: images per CPU second at 64 px, stepping included.
        events: names of those that can happen.
    """

    name: str
    missing: str | None = None
    row: tuple[str, ...] = ()
    images: UInt8[np.ndarray, "T 64 64 3"] | None = None
    speed: float | None = None
    events: tuple[str, ...] = ()


def summarize_worlds(*, look: bool = False, time_it: bool = False) -> Iterator[WorldSummary]:
    """All worlds, one after the other; with images, or speeds, where asked."""
    for name in world_names():
        if name.startswith(PREFIX):
            continue
        try:
            world = make_batch(name, np.arange(1))
            images = _images(name) if look else None
            speed = _speed(name) if time_it else None
            yield WorldSummary(name, None, _row(world), images, speed, tuple(world.events))
        except DataError as error:
            yield WorldSummary(name, missing=str(error))


def table(summaries: list[WorldSummary]) -> list[tuple[str, ...]]:
    """Rows for a table, the first as a heading."""
    rows: list[tuple[str, ...]] = [(*HEADER, "images per CPU second")]
    for world in summaries:
        row = world.row or ("not installed", "", "", "")
        rows.append((world.name, *row, "" if world.speed is None else f"{world.speed:,.0f}"))
    if all(world.speed is None for world in summaries):
        rows = [row[:-1] for row in rows]
    return rows


def sheet(summaries: list[WorldSummary], out: Path) -> int:
    """Write the images as a PNG, and give back of how many worlds. Raises DataError if it cannot be written."""
    shown = [(world.name, world.images) for world in summaries if world.images is not None]
    step = SIDE + GAP
    image = Image.new("RGB", ((SHOWN + 1) * step + 2 * GAP + NAME, len(shown) * step + GAP), "#ffffff")
    draw = ImageDraw.Draw(image)
    font = ImageFont.load_default(13)
    for row, (name, images) in enumerate(shown):
        for column, seen in enumerate(images):
            left = GAP + column * step + GAP * (column == SHOWN)
            image.paste(Image.fromarray(seen), (left, GAP + row * step))
        draw.text(((SHOWN + 1) * step + 4 * GAP, row * step + step // 2), name, fill="#30343b", font=font, anchor="lm")
    with writing(out):
        image.save(out, format="PNG", optimize=True)
    return len(shown)


def _row(world: WorldBatch) -> tuple[str, ...]:
    near = f"{world.radius:.3g} {world.unit}" if isinstance(world, GoalBatch) else "no goals"
    return str(world.action_size), f"{len(world.state_names)} numbers", near, ", ".join(world.policies)


def _images(name: str) -> UInt8[np.ndarray, "T 64 64 3"]:
    """Of episode 0, acted by the last of the policies, and of a goal where the world has goals."""
    world = make_batch(name, np.arange(1))
    actions = world.act(world.policies[-1], [np.random.default_rng(0)], FRAMES)
    goal_image: list[NDArray[np.uint8]] = []
    if isinstance(world, GoalBatch):
        at_goal = world.take(np.zeros(1, dtype=np.intp))
        at_goal.set_goal_state(world.draw_goals(np.random.default_rng(0)))
        goal_image.append(at_goal.render())
    wanted = set(np.linspace(0, FRAMES - 1, SHOWN).astype(int).tolist())
    seen = [world.render()]
    for t in range(FRAMES - 1):
        world.step(actions[:, t])
        if t + 1 in wanted:
            seen.append(world.render())
    return np.concatenate([*seen, *goal_image])


def _speed(name: str) -> float:
    """Images per CPU second, of this process and of those that it has started."""
    world = make_batch(name, np.arange(EPISODES))
    actions = world.act(world.policies[0], [np.random.default_rng(e) for e in range(EPISODES)], FRAMES)
    world.render()  # what is set up once does not count
    count = 0
    began = cpu_seconds()
    while (spent := cpu_seconds() - began) < SECONDS:
        world.step(actions[:, count % (FRAMES - 1)])
        world.render()
        count += 1
    return count * EPISODES / spent


def cpu_seconds() -> float:
    """CPU time of this process and of its running children: doom-rooms is drawn by one."""
    spent = 0.0
    for process in (psutil.Process(), *psutil.Process().children()):
        with suppress(psutil.Error):  # it has just ended
            times = process.cpu_times()
            spent += times.user + times.system
    return spent
