"""Who records Push-T: a script that pushes fast through the T, and one that pushes as people do when they demonstrate.

    pusher           walks around the T, and then through it, towards a point drawn for every push, with noise
    demonstrations   moves the T slowly to one pose after another: it walks to the edge whose push mends most of what is
                     left, pushes there for a while, and looks again, with noise. Three episodes in ten play such an
                     episode once more, with noise and without looking, so that pushes miss, slip and fail

An action has a standard deviation of 0.45 and of 0.20; in DINO-WM's demonstrations by people, it is 0.20.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from jepa_data.worlds.geometry import angle_of, clip_to_unit, rotated, unit_vector, wrapped
from jepa_data.worlds.pusher import BAR, CENTER_OF_MASS, STEM, UNIT, Table

REACH = 100.0  # px for an action of 1
PUSHER_RANGE = (20.0, 492.0)  # the pusher is drawn to nowhere beyond
AROUND = 105.0  # px from the T's center of mass at which a script walks around it: the T reaches to 77
PUSHES = 40  # more than fit into any episode
POSES = 16  # that a demonstration moves the T to; afterwards the first comes again
NOISES = (0.0, 0.04, 0.08, 0.12)  # standard deviation of what is added to a demonstration: one for each episode
BLIND = 0.3  # share of the episodes that are noisy replays
GYRATION = 45.0  # px from the center of mass at which a push turns the T as much as it moves it
NEAR, ALIGNED = 10.0, 0.2  # px and radians at which a demonstration takes the next pose
FAR = 1.0 / 250.0  # of a contact: what a px of the walk to it counts, beside how directly its push mends the pose
CLOSE, THERE = 26.0, 10.0  # px from the edge, where a push begins, and from there when it does
USELESS = 0.2  # a push ends when it mends so little of the pose
OUTSIDE = 10.0  # of a contact that the pusher cannot get to


@dataclass
class Script:
    """P pushes one after another; all random numbers are drawn before the first."""

    aims: NDArray[np.float64]  # [E, P, 2] px: where each push would bring the T
    offsets: NDArray[np.float64]  # [E, P] px by which it misses the center of mass, so that the T turns
    lengths: NDArray[np.int64]  # [E, P] frames of each push
    strength: NDArray[np.float64]  # [E, P] length of its actions
    noise: NDArray[np.float64]  # [E, T-1, 2] on what it does
    number: NDArray[np.int64]  # [E] of the present push
    pushed: NDArray[np.int64]  # [E] frames of it that are done; 0: still walking to where it begins

    @classmethod
    def draw(cls, rng: np.random.Generator, frames: int) -> "Script":
        """Of one episode."""
        return cls(
            rng.uniform(110, 402, (PUSHES, 2)),
            rng.normal(0, 30, PUSHES).clip(-55, 55),
            rng.integers(6, 17, PUSHES),
            rng.uniform(0.3, 0.8, PUSHES),
            rng.normal(0, 0.12, (frames - 1, 2)),
            np.array(0),
            np.array(0),
        )

    def act(self, table: Table, t: int) -> NDArray[np.float64]:
        """The actions [E, 2] of frame t."""
        episodes = np.arange(len(self.number))
        over = self.pushed >= self.lengths[episodes, self.number]
        self.number[over] = (self.number[over] + 1) % PUSHES
        self.pushed[over] = 0
        center = _center(table)
        aim = self.aims[episodes, self.number] - center
        ahead = aim / np.maximum(np.linalg.norm(aim, axis=-1, keepdims=True), 1e-9)
        side = np.column_stack([-ahead[:, 1], ahead[:, 0]]) * self.offsets[episodes, self.number, None]
        behind = (center - AROUND * ahead + side).clip(*PUSHER_RANGE)
        there = np.linalg.norm(behind - table.agent, axis=-1) < 25
        self.pushed += there | (self.pushed > 0)
        walk = (_around(table.agent, center, behind) - table.agent) / REACH
        action = np.where(self.pushed[:, None] > 0, self.strength[episodes, self.number, None] * ahead, walk)
        return (clip_to_unit(action) + self.noise[:, t]).clip(-1, 1)

    def replayed(self, actions: NDArray[np.float32]) -> NDArray[np.float32]:
        """What is recorded of its actions [E, T-1, 2]: all of it."""
        return actions


@dataclass
class Demonstration:
    """Moves the T to one pose after another; all random numbers are drawn before the first."""

    poses: NDArray[np.float64]  # [E, P, 3] px of the center of mass, and angle
    lengths: NDArray[np.int64]  # [E, Q] frames of each push
    strength: NDArray[np.float64]  # [E, Q] length of its actions
    taste: NDArray[np.float64]  # [E, Q, C] what speaks for each contact beside its use
    walk: NDArray[np.float64]  # [E] length of the actions between pushes
    noise: NDArray[np.float64]  # [E, T-1, 2] on what it does, and sees
    replay_noise: NDArray[np.float64]  # [E, T-1, 2] on what it does once more, without looking
    pose: NDArray[np.int64]  # [E] number of the present pose
    push: NDArray[np.int64]  # [E] number of the present push
    contact: NDArray[np.int64]  # [E] where it is; -1: not chosen yet
    pushed: NDArray[np.int64]  # [E] frames of it that are done; 0: still walking there

    @classmethod
    def draw(cls, rng: np.random.Generator, frames: int) -> "Demonstration":
        """Of one episode."""
        pushes = (PUSHES,)
        blind = rng.random() < BLIND
        noise = NOISES[rng.integers(len(NOISES))] * rng.normal(0, 1, (frames - 1, 2))
        return cls(
            np.column_stack([rng.uniform(140, 372, (POSES, 2)), rng.uniform(0, 2 * np.pi, POSES)]),
            rng.integers(5, 16, pushes),
            rng.uniform(0.13, 0.27, pushes),
            rng.gumbel(0, 0.12, (*pushes, len(CONTACTS))),
            np.array(rng.uniform(0.24, 0.36)),
            noise * (not blind),
            noise * blind,
            np.array(0),
            np.array(0),
            np.array(-1),
            np.array(0),
        )

    def act(self, table: Table, t: int) -> NDArray[np.float64]:
        """The actions [E, 2] of frame t."""
        episodes = np.arange(len(self.pose))
        arrived = self._arrived(table)
        self.pose = np.where(arrived, (self.pose + 1) % POSES, self.pose)
        use, value = self._contacts(table)
        spent = (self.pushed > 0) & (use[episodes, self.contact] < USELESS)
        over = arrived | spent | (self.pushed >= self.lengths[episodes, self.push]) | (self.contact < 0)
        self.push = np.where(over, (self.push + 1) % self.lengths.shape[1], self.push)
        value += self.taste[episodes, self.push]
        self.contact = np.where(over, value.argmax(-1), self.contact)
        self.pushed = np.where(over, 0, self.pushed)
        inward = rotated(NORMALS[self.contact], table.block[:, 2])
        edge = table.block[:, :2] + rotated(CONTACTS[self.contact], table.block[:, 2])
        spot = (edge - CLOSE * inward).clip(*PUSHER_RANGE)
        self.pushed = self.pushed + ((np.linalg.norm(spot - table.agent, axis=-1) < THERE) | (self.pushed > 0))
        way = (_around(table.agent, _center(table), spot) - table.agent) / REACH
        way = self.walk[:, None] * way / np.maximum(self.walk, np.linalg.norm(way, axis=-1))[:, None]
        action = np.where(self.pushed[:, None] > 0, self.strength[episodes, self.push, None] * inward, way)
        return (action + self.noise[:, t]).clip(-1, 1)

    def replayed(self, actions: NDArray[np.float32]) -> NDArray[np.float32]:
        """Its actions [E, T-1, 2] once more, with noise and without looking."""
        return (actions + self.replay_noise).clip(-1, 1).astype(np.float32)

    def _left(self, table: Table) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """From the T to its pose: px [E, 2] and radians [E]."""
        goal = self.poses[np.arange(len(self.pose)), self.pose]
        return goal[:, :2] - _center(table), wrapped(goal[:, 2] - table.block[:, 2])

    def _arrived(self, table: Table) -> NDArray[np.bool_]:
        way, turn = self._left(table)
        return (np.linalg.norm(way, axis=-1) < NEAR) & (np.abs(turn) < ALIGNED)

    def _contacts(self, table: Table) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """How directly a push at each contact mends the pose [E, C], from -1 to 1, and that less the walk there."""
        way, turn = self._left(table)
        turn = turn * GYRATION
        inward = rotated(NORMALS, table.block[:, 2, None])  # [E, C, 2]
        edge = table.block[:, None, :2] + rotated(CONTACTS, table.block[:, 2, None])
        arm = edge - _center(table)[:, None]
        torque = (arm[..., 0] * inward[..., 1] - arm[..., 1] * inward[..., 0]) / GYRATION
        length = np.maximum(np.hypot(np.linalg.norm(way, axis=-1), turn), 1e-9)[:, None]
        use = ((inward * way[:, None]).sum(-1) + torque * turn[:, None]) / (length * np.hypot(1, torque))
        spot = edge - CLOSE * inward
        blocked = ((spot < PUSHER_RANGE[0]) | (spot > PUSHER_RANGE[1])).any(-1)
        walk = np.linalg.norm(spot - table.agent[:, None], axis=-1)
        return use, use - FAR * walk - OUTSIDE * blocked


def _center(table: Table) -> NDArray[np.float64]:
    """Centers of mass of the Ts [E, 2]."""
    return table.block[:, :2] + rotated(np.array(CENTER_OF_MASS), table.block[:, 2])


def _around(here: NDArray[np.float64], center: NDArray[np.float64], there: NDArray[np.float64]) -> NDArray[np.float64]:
    """Where to go next [E, 2] on the way `there` that does not touch what lies at `center`."""
    angle = angle_of(here - center)
    turn = wrapped(angle_of(there - center) - angle)
    on_circle = center + AROUND * unit_vector(angle + np.clip(turn, -0.6, 0.6))
    return np.where((np.abs(turn) < 0.4)[:, None], there, on_circle)


def _edges() -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Points around the T's outline and the directions [C, 2] that point from there into it."""
    (left, top), (right, under) = BAR
    (inner, _), (outer, bottom) = STEM
    heights = (60.0, 85.0, 110.0)
    down, up, rightwards, leftwards = ((0.0, 1.0), (0.0, -1.0), (1.0, 0.0), (-1.0, 0.0))
    contacts = [
        *(((x, top), down) for x in (-45.0, -15.0, 15.0, 45.0)),
        ((left, UNIT / 2), rightwards),
        ((right, UNIT / 2), leftwards),
        *(((x, under), up) for x in (-40.0, 40.0)),
        *(((inner, y), rightwards) for y in heights),
        *(((outer, y), leftwards) for y in heights),
        ((0.0, bottom), up),
    ]
    return np.array([point for point, _ in contacts]), np.array([inward for _, inward in contacts])


CONTACTS, NORMALS = _edges()
