"""What a run's training data tell its model once and for all: mean and std of actions and states, and which states."""

import difflib
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import nn

from jepa.config import UserError
from jepa.normalize import NormalizationStats, Standardize
from jepa.training.config import PretrainConfig
from jepa_data.actions import ActionStats
from jepa_data.stream.action_stats import spread
from jepa_data.stream.loader import ClipLoader

RAW_LIMIT = 10.0  # that raw actions may reach without being standardized


@dataclass(frozen=True)
class Normalization:
    """Mean and std of raw actions, and of the states that the predictor reads; None where they are not wanted."""

    actions: NormalizationStats | None = None
    states: NormalizationStats | None = None


def state_columns(config: PretrainConfig, loader: ClipLoader) -> tuple[int, ...]:
    """Where the states that the method asks for stand among the recorded ones.

    Raises:
        UserError: some were not recorded.
    """
    wanted = config.method.state_names()
    known = loader.shards.manifest.state_names if all(corpus.states for corpus in loader.corpora) else ()
    for name in wanted:
        if name not in known:
            near = difflib.get_close_matches(name, known, n=1)
            there = f"there are {', '.join(known)}" if known else "there are none (or sources with different ones)"
            hint = f"did you mean {near[0]!r}?" if near else there
            raise UserError(f"method.states: {loader.shards.url} has no state {name!r}; {hint}")
    return tuple(known.index(name) for name in wanted)


def training_normalization(config: PretrainConfig, loader: ClipLoader, stats: ActionStats | None) -> Normalization:
    """Read what the model standardizes; nothing where it standardizes nothing.

    Args:
        stats: of raw actions; None where there are none.

    Raises:
        UserError: a state that the method asks for is missing (NaN) in some of the data.
    """
    predictor: Any = getattr(config.method, "predictor", None)
    if not hasattr(predictor, "normalize_actions"):  # it takes no actions
        return Normalization()
    actions = states = None
    if stats is not None and not predictor.normalize_actions:
        _check_raw(stats)
    if predictor.normalize_actions and stats is not None:
        actions = _to_stats(np.array(stats.mean), np.array(stats.std))
    columns = list(state_columns(config, loader))
    if columns:
        state_stats = spread(loader, "states")
        for name, missing in zip(config.method.state_names(), state_stats.missing[columns], strict=True):
            if missing > 0:
                raise UserError(
                    f"method.states: {name} is missing (NaN) in {missing:.1%} of the data; choose others, or drop "
                    "those episodes"
                )
        if getattr(predictor, "normalize_states", False):
            states = _to_stats(state_stats.mean[columns], state_stats.std[columns])
    return Normalization(actions, states)


def _check_raw(stats: ActionStats) -> None:
    """Raises UserError where actions are far from the size that a predictor can read as they are."""
    largest = max(abs(value) for value in (*stats.low, *stats.high))
    if largest > RAW_LIMIT:
        raise UserError(
            f"method.predictor.normalize_actions is false, and the actions of the data reach {largest:g}: a predictor "
            "reads raw actions of about -1..1. Give method.predictor.normalize_actions=true"
        )


def fit_normalization(dynamics: nn.Module, scales: Normalization) -> None:
    """Give the dynamics the mean and std they standardize by. Raises UserError if they are not finite."""
    for name, stats in (("scale_actions", scales.actions), ("scale_states", scales.states)):
        module = getattr(dynamics, name, None)
        if isinstance(module, Standardize) and stats is not None:
            try:
                module.fit(stats)
            except ValueError as error:
                raise UserError(f"method.predictor: {error}") from error


def _to_stats(mean: np.ndarray, std: np.ndarray) -> NormalizationStats:
    return NormalizationStats(torch.from_numpy(mean).float(), torch.from_numpy(std).float())
