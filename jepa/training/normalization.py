"""What a run's training data tell its model once and for all: mean and std of actions and states for the dynamics, and
what an encoder computes from images before it is trained."""

import numpy as np
import torch
from torch import nn

from jepa.config import UserError
from jepa.methods.base import Method
from jepa.normalize import NormalizationStats, Standardize
from jepa.predictors.base import Predictor
from jepa.training.clips import TrainingClips
from jepa_data.actions import ActionStats
from jepa_data.stream.action_stats import action_stats, spread

RAW_LIMIT = 10.0  # that raw actions may reach without being standardized


def fit_to_clips(method: Method, clips: TrainingClips) -> ActionStats | None:
    """Fit what the method's dynamics standardize to the clips, and its encoder, unless that comes from another run.

    Returns:
        The statistics of raw actions, where the method learns from any.

    Raises:
        UserError: a state that the method asks for is missing (NaN) in some of the data; raw actions are too large for
            dynamics that do not standardize them; or as `fit_normalization`.
    """
    encoder = method.evaluation_encoder()
    if encoder.clips_to_fit and method.config.encoder_source() is None:
        encoder.fit(clips.some(encoder.clips_to_fit))
    stats = action_stats(clips.loader) if clips.loader.action_size and method.needs_actions else None
    dynamics = method.dynamics
    if dynamics is not None:
        fit_normalization(dynamics, _actions(dynamics, stats), _states(dynamics, clips))
    return stats


def _actions(dynamics: Predictor, stats: ActionStats | None) -> NormalizationStats | None:
    if stats is None:
        return None
    if isinstance(dynamics.scale_actions, Standardize):
        return _to_stats(np.array(stats.mean), np.array(stats.std))
    largest = max(map(abs, (*stats.low, *stats.high)))
    if largest > RAW_LIMIT:
        raise UserError(
            f"method.predictor.normalize_actions is false, and the actions of the data reach {largest:g}: a predictor "
            "reads raw actions of about -1..1. Give method.predictor.normalize_actions=true"
        )
    return None


def _states(dynamics: Predictor, clips: TrainingClips) -> NormalizationStats | None:
    columns = list(clips.state_columns)
    if not columns:
        return None
    states = spread(clips.loader, "states")
    for name, missing in zip(clips.wanted, states.missing[columns], strict=True):
        if missing > 0:
            raise UserError(
                f"method.states: {name} is missing (NaN) in {missing:.1%} of the data; choose others, or drop those "
                "episodes"
            )
    if not isinstance(getattr(dynamics, "scale_states", None), Standardize):
        return None
    return _to_stats(states.mean[columns], states.std[columns])


def fit_normalization(
    dynamics: nn.Module, actions: NormalizationStats | None, states: NormalizationStats | None
) -> None:
    """Give the dynamics the mean and std of raw actions and of the states they read, where they standardize them.

    Raises:
        UserError: they are not finite.
    """
    for name, stats in (("scale_actions", actions), ("scale_states", states)):
        module = getattr(dynamics, name, None)
        if isinstance(module, Standardize) and stats is not None:
            try:
                module.fit(stats)
            except ValueError as error:
                raise UserError(f"method.predictor: {error}") from error


def _to_stats(mean: np.ndarray, std: np.ndarray) -> NormalizationStats:
    return NormalizationStats(torch.from_numpy(mean).float(), torch.from_numpy(std).float())
