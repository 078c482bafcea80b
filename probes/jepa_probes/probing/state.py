"""How much of the world's state can be read off one latent step by a linear map: ridge regression, closed form.

    latents [E, S, N, D] -> rows [E*S, N*D] -> reduction -> w, one column per quantity of every disc -> R²

    fit 80 % | choose 20 %      of the TRAINING episodes: the penalty, one per group of columns
    fit 100 %                   with that penalty
    test episodes               R² (jepa/r2.py) per column; a group's score is the mean of its columns

Every state is a target. Names that end in .x .y .z .vx .vy .vz are positions and velocities: a group is a kind of body
(puck, bodies) and position or velocity, and one penalty is chosen for it. Any other state has a penalty of its own, and
is grouped by what stands before the last dot: joint.elbow in `joint`, observation.state.0 in `observation.state`.

With `.occluded`, only steps at which a disc is hidden: these lie close together, so a probe that has lost the disc
scores below 0 there. `DISC.visible`, which says so, is no target. Rows in which a quantity does not exist (NaN) or is
infinite are left out, column by column, and counted.

An angle is a number like any other. Where it jumps by a whole turn no linear map can follow, and its R² is lower than
what the latents know: record its sine and cosine to probe a direction.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from jepa.r2 import r2_score
from jepa_probes.probing.features import Features, split_episodes
from jepa_probes.probing.reduction import WIDEST, Reduction

PENALTIES = tuple(10.0**e for e in range(-6, 2))
ROWS_AT_ONCE = 16_384
MIN_OCCLUDED = 50  # samples; R² of fewer says little
KINDS = dict.fromkeys("xyz", "position") | {f"v{axis}": "velocity" for axis in "xyz"}


@dataclass(frozen=True)
class Target:
    """A column of the states that is regressed.

    Attributes:
        group: of the table.
        penalty: targets of one name here share a penalty.
        moving: a position or a velocity.
        visible: the column that says whether its disc is visible.
    """

    name: str
    column: int
    group: str
    penalty: str
    moving: bool
    visible: int | None


@dataclass(frozen=True)
class StateScores:
    """R² on held-out episodes.

    Attributes:
        columns, groups: R² by column and by group; None where there are too few samples, or nothing varies.
        state_r2: mean over positions and velocities of the puck; without one, of everything; without any, over all
            states.
        samples, dropped: rows scored, and rows left out as NaN or infinite, by column.
        infinite: of those left out, the infinite ones; columns without any are not here.
        occluded: hidden samples by group, scored or not.
    """

    columns: dict[str, float | None]
    groups: dict[str, float | None]
    state_r2: float | None
    samples: dict[str, int]
    dropped: dict[str, int]
    infinite: dict[str, int]
    occluded: dict[str, int]

    def mean_of(self, headline: Sequence[str] | None) -> float | None:
        """Mean R² of these groups; None: `state_r2`."""
        return self.state_r2 if headline is None else mean_r2([self.groups[group] for group in headline])


@dataclass(frozen=True)
class StateProbe:
    """A fitted linear map from a latent step to states. `penalties` are the chosen ones, by `Target.penalty`."""

    targets: tuple[Target, ...]
    reduction: Reduction
    weight: Float[Tensor, "Q C"]
    bias: Float[Tensor, " C"]
    penalties: dict[str, float]

    def predict(self, latents: Float[Tensor, "E S N D"]) -> Float[Tensor, "E S C"]:
        """Columns in the order of `targets`, in the units of the states; float64, as their offsets may be large."""
        return (self.reduction(latents.flatten(2)) @ self.weight).double() + self.bias

    def score(self, test: Features) -> StateScores:
        return score(self.targets, self.predict(test.latents), test.states)


def find_targets(state_names: Sequence[str]) -> tuple[Target, ...]:
    """All columns but those that say whether a disc is visible; () if there are none."""
    targets = []
    for column, name in enumerate(state_names):
        owner, _, what = name.rpartition(".")
        if what == "visible" and any(f"{owner}.{axis}" in state_names for axis in KINDS):
            continue
        kind = re.sub(r"\d+$", "", owner) or owner
        kind = "bodies" if kind == "body" else kind
        moving = bool(owner) and what in KINDS
        group = f"{kind}.{KINDS[what]}" if moving else kind or name
        if group != name and group in state_names:  # under that name stands the score of this other state
            group = f"{group}.*"
        shown = f"{owner}.visible"
        visible = state_names.index(shown) if moving and shown in state_names else None
        targets.append(Target(name, column, group, group if moving else name, moving, visible))
    return tuple(targets)


def headline(targets: Sequence[Target]) -> tuple[Target, ...]:
    """What `state_r2` is the mean of: the puck's positions and velocities; all of them; all states if there are none.

    A supervised encoder learns the same, but for the puck alone.
    """
    moving = moving_or_all(targets)
    return tuple(t for t in moving if t.name.startswith("puck.")) or moving


def moving_or_all(targets: Sequence[Target]) -> tuple[Target, ...]:
    """Positions and velocities; all targets where there are none."""
    return tuple(t for t in targets if t.moving) or tuple(targets)


def fit_state(train: Features, *, seed: int = 0) -> StateProbe:
    """Fit on training episodes; the penalties are chosen on a fifth of them that the candidates were not fitted on."""
    targets = find_targets(train.state_names)
    reduction = Reduction.fit(train.latents.flatten(0, 1).flatten(1), WIDEST)
    rows = reduction(train.latents.flatten(2))
    y = train.states[..., [t.column for t in targets]]
    fit, holdout = split_episodes(train.keys, seed=seed)
    weight = torch.zeros(rows.shape[-1], len(targets))
    bias = torch.zeros(len(targets), dtype=torch.float64)
    problems = [_Problem.of(rows, y, same, fit, holdout) for same in _same_rows(y)]
    trials = torch.full((len(PENALTIES), len(targets)), torch.nan, dtype=torch.float64)
    for problem in problems:
        trials[:, problem.columns] = problem.held_out_r2()
    penalties = _choose(trials, [t.penalty for t in targets])
    for problem in problems:
        weight[:, problem.columns], bias[problem.columns] = problem.solve(
            [penalties[targets[int(c)].penalty] for c in problem.columns]
        )
    return StateProbe(targets, reduction, weight, bias, penalties)


def mean_state(train: Features) -> StateProbe:
    """The probe that knows nothing: it answers with the mean of the training states."""
    targets = find_targets(train.state_names)
    states = train.states[..., [t.column for t in targets]].flatten(0, 1).double()
    mean = torch.where(states.isfinite(), states, torch.nan).nanmean(0).nan_to_num()
    width = train.latents.shape[2] * train.latents.shape[3]
    blind = Reduction(torch.zeros(width), torch.zeros(width, 1), torch.ones(1))
    return StateProbe(targets, blind, torch.zeros(1, len(targets)), mean, {})


def score(targets: Sequence[Target], predicted: Float[Tensor, "E S C"], states: Float[Tensor, "E S X"]) -> StateScores:
    """R² of predicted columns against the true ones."""
    columns: dict[str, float | None] = {}
    hidden: dict[str, float | None] = {}
    samples, dropped = dict[str, int](), dict[str, int]()
    infinite, occluded = dict[str, int](), dict[str, int]()
    for c, target in enumerate(targets):
        truth = states[..., target.column]
        there = truth.isfinite()
        samples[target.name], dropped[target.name] = int(there.sum()), int((~there).sum())
        if count := int(truth.isinf().sum()):
            infinite[target.name] = count
        columns[target.name] = _r2(predicted[..., c][there], truth[there])
        if target.visible is not None:
            unseen = there & (states[..., target.visible] == 0)
            occluded[target.group] = occluded.get(target.group, 0) + int(unseen.sum())
            if unseen.sum() >= MIN_OCCLUDED:
                hidden[target.name] = _r2(predicted[..., c][unseen], truth[unseen])
    groups: dict[str, float | None] = {}
    for group in dict.fromkeys(t.group for t in targets):
        members = [t.name for t in targets if t.group == group]
        groups[group] = mean_r2([columns[name] for name in members])
        if any(hidden.get(name) is not None for name in members):
            groups[f"{group}.occluded"] = mean_r2([hidden.get(name) for name in members])
    state_r2 = mean_r2([columns[target.name] for target in headline(targets)])
    return StateScores(columns, groups, state_r2, samples, dropped, infinite, occluded)


@dataclass(frozen=True)
class _Sums:
    """Sums over rows, in fp64: enough to solve ridge regression with any penalty, and additive over sets of rows."""

    n: int
    x: Float[Tensor, " Q"]
    y: Float[Tensor, " C"]
    xx: Float[Tensor, "Q Q"]
    xy: Float[Tensor, "Q C"]

    @classmethod
    def of(cls, x: Float[Tensor, "n Q"], y: Float[Tensor, "n C"]) -> "_Sums":
        """In parts: fp64 copies of all rows at once would take twice the memory of the features."""
        whole = cls._of_part(x[:0], y[:0])
        for rows, columns in zip(x.split(ROWS_AT_ONCE), y.split(ROWS_AT_ONCE), strict=True):
            whole = whole + cls._of_part(rows, columns)
        return whole

    @classmethod
    def _of_part(cls, x: Float[Tensor, "n Q"], y: Float[Tensor, "n C"]) -> "_Sums":
        x, y = x.double(), y.double()
        return cls(len(x), x.sum(0), y.sum(0), x.T @ x, x.T @ y)

    def __add__(self, other: "_Sums") -> "_Sums":
        return _Sums(self.n + other.n, self.x + other.x, self.y + other.y, self.xx + other.xx, self.xy + other.xy)

    def covariances(self) -> tuple[Float[Tensor, "Q Q"], Float[Tensor, "Q C"]]:
        mean = self.x / self.n
        return self.xx / self.n - mean[:, None] * mean, (self.xy - mean[:, None] * self.y) / self.n


@dataclass(frozen=True)
class _Problem:
    """The columns that exist in the same rows share their sums, and the decomposition of their covariance."""

    columns: Int[Tensor, " C"]
    fit: _Sums
    holdout: _Sums
    holdout_x: Float[Tensor, "n Q"]
    holdout_y: Float[Tensor, "n C"]

    @classmethod
    def of(
        cls,
        rows: Float[Tensor, "E S Q"],
        y: Float[Tensor, "E S X"],
        columns: Int[Tensor, " C"],
        fit: Int[Tensor, " F"],
        holdout: Int[Tensor, " H"],
    ) -> "_Problem":
        there = y[..., columns[0]].isfinite()
        parts = [(rows[i][there[i]], y[i][there[i]][:, columns]) for i in (fit, holdout)]
        return cls(columns, _Sums.of(*parts[0]), _Sums.of(*parts[1]), *parts[1])

    def held_out_r2(self) -> Float[Tensor, "P C"]:
        """For every penalty, fitted without the held-out rows. NaN where it is undefined."""
        r2 = torch.full((len(PENALTIES), len(self.columns)), torch.nan, dtype=torch.float64)
        if self.fit.n < 2 or self.holdout.n < 2:
            return r2
        covariance, cross = self.fit.covariances()
        values, vectors = torch.linalg.eigh(covariance)
        turned = (self.holdout_x - self.fit.x.float() / self.fit.n) @ vectors.float()
        cross = vectors.T @ cross
        for p, penalty in enumerate(PENALTIES):
            predicted = turned @ (cross / (values.clamp(min=0) + penalty)[:, None]).float()
            r2[p] = r2_score(predicted.double() + self.fit.y / self.fit.n, self.holdout_y)
        return r2

    def solve(self, penalties: Sequence[float]) -> tuple[Float[Tensor, "Q C"], Float[Tensor, " C"]]:
        """Weights and biases on all training rows: argmin mean (y - x w - b)² + penalty w², column by column."""
        sums = self.fit + self.holdout
        if sums.n == 0:
            weight = torch.zeros(len(sums.x), len(self.columns))
            return weight, torch.zeros(len(self.columns), dtype=torch.float64)
        covariance, cross = sums.covariances()
        weight = torch.empty_like(cross)
        for penalty in set(penalties):
            chosen = [c for c, p in enumerate(penalties) if p == penalty]
            factor = torch.linalg.cholesky(covariance + penalty * torch.eye(len(covariance), dtype=torch.float64))
            weight[:, chosen] = torch.cholesky_solve(cross[:, chosen], factor)
        return weight.float(), (sums.y - sums.x @ weight) / sums.n


def _same_rows(y: Float[Tensor, "E S C"]) -> list[Int[Tensor, " _"]]:
    """Columns grouped by the rows in which they exist."""
    patterns: dict[bytes, list[int]] = {}
    missing: Bool[Tensor, "E S C"] = ~y.isfinite()
    for c in range(y.shape[-1]):
        patterns.setdefault(missing[..., c].numpy().tobytes(), []).append(c)
    return [torch.tensor(columns) for columns in patterns.values()]


def _choose(trials: Float[Tensor, "P C"], groups: Sequence[str]) -> dict[str, float]:
    """The penalty of the best mean held-out R² by group; of equal ones the strongest."""
    chosen = {}
    for group in dict.fromkeys(groups):
        mean = trials[:, [c for c, g in enumerate(groups) if g == group]].nanmean(1).nan_to_num(-torch.inf)
        chosen[group] = PENALTIES[len(PENALTIES) - 1 - int(mean.flip(0).argmax())]
    return chosen


def _r2(predicted: Float[Tensor, " n"], truth: Float[Tensor, " n"]) -> float | None:
    r2 = r2_score(predicted[:, None], truth[:, None])
    return None if r2.isnan() else r2.item()


def mean_r2(values: Sequence[float | None]) -> float | None:
    """Of those that are known; None if none is."""
    known = [v for v in values if v is not None]
    return sum(known) / len(known) if known else None
