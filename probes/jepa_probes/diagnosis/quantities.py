"""The states of a world as numbers that a network can read: positions, velocities, and angles as sine and cosine.

    states [..., X]    puck.x puck.y puck.vx puck.vy puck.visible …      block.angle
    numbers [..., C]   puck.x puck.y puck.vx puck.vy                     sin(block.angle) cos(block.angle)
                       standardized; NaN where a body does not exist
    quantities         puck.position puck.velocity                       block.angle

Several bodies of a kind (body0, body1, …) are one quantity, `bodies.position`. Flags (visible, contact) are left out.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor

from jepa.r2 import r2_score
from jepa_probes.probing.features import Features
from jepa_probes.probing.state import KINDS, fit_state

Kind = Literal["position", "velocity", "angle", "other"]
MOVING: dict[str, Kind] = {"position": "position", "velocity": "velocity"}
ANGLES = ("angle", "theta", "yaw", "heading", "orientation")
FLAGS = ("visible", "contact", "reward", "terminated")
SPEEDS = ("speed", "omega")


@dataclass(frozen=True)
class Number:
    """One number of the code: a state, or its sine or cosine."""

    name: str
    column: int
    turn: Literal["", "sin", "cos"] = ""


@dataclass(frozen=True)
class Quantity:
    """What is reported together: `bodies` holds the numbers of each body of this kind."""

    name: str
    kind: Kind
    bodies: tuple[tuple[int, ...], ...]

    @property
    def numbers(self) -> tuple[int, ...]:
        """Of all bodies."""
        return sum(self.bodies, ())

    @property
    def unit(self) -> str:
        """Angles are reported in degrees, all else in the unit of the states."""
        return "°" if self.kind == "angle" else ""


def kind_of(name: str) -> Kind | None:
    """What a state is, by the end of its name; None of a flag."""
    what = name.rpartition(".")[2]
    if what in FLAGS:
        return None
    if what in KINDS:
        return MOVING[KINDS[what]]
    if what.endswith(ANGLES):
        return "angle"
    if what.endswith(SPEEDS):
        return "velocity"
    return "other"


@dataclass(frozen=True)
class StateCode:
    """From states to standardized numbers, and what was wrong with those that were predicted.

    Attributes:
        mean, std: of the numbers in the recordings.
    """

    numbers: tuple[Number, ...]
    state_names: tuple[str, ...]
    mean: Float[Tensor, " C"]
    std: Float[Tensor, " C"]

    @classmethod
    def fit(cls, state_names: Sequence[str], states: Float[Tensor, "*batch X"]) -> "StateCode":
        """Of the recorded states."""
        numbers: list[Number] = []
        for column, name in enumerate(state_names):
            match kind_of(name):
                case None:
                    continue
                case "angle":
                    numbers += [Number(f"{name}.sin", column, "sin"), Number(f"{name}.cos", column, "cos")]
                case _:
                    numbers.append(Number(name, column))
        raw = cls(tuple(numbers), tuple(state_names), torch.zeros(len(numbers)), torch.ones(len(numbers)))
        rows = raw.encode(states).flatten(0, -2)
        rows = torch.where(rows.isfinite(), rows, torch.nan)
        mean = rows.nanmean(0).nan_to_num()
        std = (rows - mean).square().nanmean(0).sqrt().nan_to_num()
        return cls(raw.numbers, raw.state_names, mean, torch.where(std > 1e-6, std, 1.0))

    def encode(self, states: Float[Tensor, "*batch X"]) -> Float[Tensor, "*batch C"]:
        """Standardized numbers; NaN where there are none."""
        chosen = states[..., [number.column for number in self.numbers]]
        turned = {"": lambda x: x, "sin": torch.sin, "cos": torch.cos}
        parts = [turned[n.turn](x) for n, x in zip(self.numbers, chosen.unbind(-1), strict=True)]
        numbers = torch.stack(parts, -1)
        return (numbers - self.mean) / self.std

    @cached_property
    def quantities(self) -> tuple[Quantity, ...]:
        """In the order of the states."""
        quantities: dict[tuple[str, Kind], dict[str, list[int]]] = {}
        for index, number in enumerate(self.numbers):
            name = self.state_names[number.column]
            kind = kind_of(name) or "other"
            body = name.rpartition(".")[0]
            merged = (re.sub(r"\d+$", "", body) or body).replace("body", "bodies")
            moving = body and name.rpartition(".")[2] in KINDS
            label = f"{merged}.{kind}" if moving else name
            quantities.setdefault((label, kind), {}).setdefault(body, []).append(index)
        return tuple(Quantity(name, kind, tuple(map(tuple, by.values()))) for (name, kind), by in quantities.items())

    def of_states(self, names: Sequence[str]) -> list[int]:
        """The numbers of some states."""
        return [i for i, number in enumerate(self.numbers) if self.state_names[number.column] in names]

    def error(
        self, quantity: Quantity, predicted: Float[Tensor, "*batch C"], truth: Float[Tensor, "*batch C"]
    ) -> float:
        """Root mean square over the bodies and rows that exist: of distances, of degrees; NaN if there are none."""
        squares = []
        for body in quantity.bodies:
            index = list(body)
            there = truth[..., index].isfinite().all(-1)
            pair = [x[..., index][there] * self.std[index] + self.mean[index] for x in (predicted, truth)]
            missed = _degrees(*pair) if quantity.kind == "angle" else (pair[0] - pair[1]).norm(dim=-1)
            squares.append(missed.square())
        return torch.cat(squares).mean().sqrt().item()

    def r2(self, quantity: Quantity, predicted: Float[Tensor, "*batch C"], truth: Float[Tensor, "*batch C"]) -> float:
        """The mean of its numbers' R², of those that vary; NaN if none does."""
        scores = []
        for index in quantity.numbers:
            there = truth[..., index].isfinite()
            scores.append(r2_score(predicted[..., index][there][:, None], truth[..., index][there][:, None]))
        return torch.cat(scores).nanmean().item()


def read_out(train: Features, test: Features, seed: int = 0) -> dict[str, float]:
    """`state_r2` as in `jepa probe`, and QUANTITY_r2 of each quantity; those that nothing varies in are left out.

    Cheap enough for the time of training: linear maps. One number hides what an encoder drops: positions may be read
    with an R² of 0.98 where nothing is known of an angle.
    """
    whole = fit_state(train, seed=seed).score(test)
    scores = {"state_r2": whole.state_r2}
    code = StateCode.fit(train.state_names, train.states)
    turns = {code.numbers[i].name: i for q in code.quantities if q.kind == "angle" for i in q.numbers}
    columns = dict(whole.columns)
    if turns:
        angles = [
            replace(part, states=code.encode(part.states)[..., list(turns.values())], state_names=tuple(turns))
            for part in (train, test)
        ]
        columns |= fit_state(angles[0], seed=seed).score(angles[1]).columns
    for quantity in code.quantities:
        known = [r2 for i in quantity.numbers if (r2 := columns[code.numbers[i].name]) is not None]
        scores[f"{quantity.name}_r2"] = sum(known) / len(known) if known else None
    return {name: r2 for name, r2 in scores.items() if r2 is not None}


def _degrees(predicted: Float[Tensor, "n 2"], truth: Float[Tensor, "n 2"]) -> Float[Tensor, " n"]:
    """Between angles that are given as sine and cosine."""
    turn = torch.atan2(predicted[:, 0], predicted[:, 1]) - torch.atan2(truth[:, 0], truth[:, 1])
    return torch.rad2deg(torch.atan2(turn.sin(), turn.cos()))


def with_unit(value: float | None, unit: str) -> str:
    """Three digits, or a dash."""
    return "–" if value is None else f"{value:.3g}{unit}"
