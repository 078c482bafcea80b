"""How much of masks, depth and keypoints can be read off latents by ridge regression, as in state.py.

    keypoints   from all tokens of a step together
    mask, depth from the token in which the middle of a cell lies, with one map for all cells; from all tokens together
                where they are no grid of n x n (one token a step, pixels), with a map for each cell

rows    spatial.keypoints.r2         mean over coordinates, of points that are visible
        spatial.keypoints.pixels     mean distance to the true point
        spatial.mask.accuracy, .miou the class of most of a cell; IoU averaged over the classes that occur
        spatial.depth.r2, .error     mean absolute error in the unit of the shards
"""

import math
from collections.abc import Mapping
from dataclasses import replace

import torch
from jaxtyping import Float, Int
from torch import Tensor

from jepa_probes.probing.dense.targets import DenseTargets
from jepa_probes.probing.features import Features
from jepa_probes.probing.state import StateProbe, fit_state, mean_r2, mean_state

Rows = dict[str, float | None]


def dense_rows(
    features: Mapping[str, tuple[Features, Features]], targets: DenseTargets, floor: str, *, seed: int
) -> dict[str, Rows]:
    """Scores by column of the table: of each representation (training, test), and of the mean target as `floor`."""
    rows: dict[str, Rows] = {floor: {}}
    for column, (train, test) in features.items():
        rows[column] = {}
        for info in targets.infos:
            grid = 0 if info.kind == "keypoints" else targets.grid
            fit, held_out = (_rows_of(part, info.kind, grid) for part in (train, test))
            width = len(info.names) if info.kind == "mask" else 1
            rows[column] |= _scores(info.kind, fit_state(fit, seed=seed), held_out, width)
            if not rows[floor].keys() & _names(info.kind):
                rows[floor] |= _scores(info.kind, mean_state(fit), held_out, width)
    return rows


def _names(kind: str) -> set[str]:
    measures = {"keypoints": ("r2", "pixels"), "mask": ("accuracy", "miou"), "depth": ("r2", "error")}
    return {f"spatial.{kind}.{measure}" for measure in measures[kind]}


def token_of_cell(tokens: int, grid: int) -> Int[Tensor, " cells"] | None:
    """The token in which the middle of each cell lies; None if tokens are no grid of n x n, row by row."""
    side = math.isqrt(tokens)
    if side < 2 or side * side != tokens:
        return None
    at = ((torch.arange(grid) + 0.5) * side / grid).long()
    return (at[:, None] * side + at).flatten()


def _rows_of(part: Features, kind: str, grid: int) -> Features:
    """The features with this target in the place of states; each cell is a step of its own where tokens are a grid."""
    target = part.spatial[kind]
    latents = part.latents
    tokens = token_of_cell(latents.shape[2], grid) if grid else None
    if tokens is not None:
        latents = latents[:, :, tokens].flatten(1, 2)[:, :, None]
        target = target.unflatten(2, (grid * grid, -1)).flatten(1, 2)
    names = tuple(f"{kind}{i}" for i in range(target.shape[-1]))
    return replace(part, latents=latents, states=target, state_names=names, spatial={})


def _scores(kind: str, probe: StateProbe, test: Features, width: int) -> Rows:
    predicted = probe.predict(test.latents)
    truth = test.states.double()
    r2 = mean_r2(list(probe.score(test).columns.values()))
    if kind == "keypoints":
        error = (predicted - truth).unflatten(-1, (-1, 2)).norm(dim=-1)
        return {"spatial.keypoints.r2": r2, "spatial.keypoints.pixels": _mean(error)}
    if kind == "depth":
        return {"spatial.depth.r2": r2, "spatial.depth.error": _mean((predicted - truth).abs())}
    answer = predicted.unflatten(-1, (-1, width)).argmax(-1)
    accuracy, iou = agreement(answer, truth.unflatten(-1, (-1, width)).argmax(-1), width)
    return {"spatial.mask.accuracy": accuracy, "spatial.mask.miou": iou}


def agreement(answer: Int[Tensor, "*rows"], truth: Int[Tensor, "*rows"], classes: int) -> tuple[float, float]:
    """Share of cells that are right, and intersection over union averaged over the classes that occur in `truth`."""
    counts = torch.bincount((truth * classes + answer).flatten(), minlength=classes**2).view(classes, classes).double()
    both = counts.diagonal()
    there = counts.sum(1) > 0
    iou = both / (counts.sum(0) + counts.sum(1) - both)
    return float(both.sum() / counts.sum()), float(iou[there].mean())


def _mean(errors: Float[Tensor, "..."]) -> float | None:
    known = errors[errors.isfinite()]
    return float(known.mean()) if len(known) else None
