"""R², the coefficient of determination: the share of a quantity's variance that a prediction explains."""

import torch
from jaxtyping import Float
from torch import Tensor


def r2_score(predicted: Float[Tensor, "n C"], truth: Float[Tensor, "n C"]) -> Float[Tensor, " C"]:
    """1 - sum (truth - predicted)² / sum (truth - mean truth)² of each column, whatever its units and its offset.

    1 is perfect, 0 as good as the mean of `truth`. In float64 and about the mean: in float32, or from sums of squares,
    a quantity of 1,000 ± 0.1 would be lost in rounding.

    Returns:
        float64; NaN for a column of fewer than two rows, or in which nothing varies.
    """
    predicted, truth = predicted.double(), truth.double()
    if len(truth) < 2:
        return truth.new_full((truth.shape[1],), torch.nan)
    errors = (truth - predicted).square().sum(0)
    total = (truth - truth.mean(0)).square().sum(0)
    varies = truth.amin(0) < truth.amax(0)  # the mean of equal numbers is off by rounding, so their spread is not 0
    return torch.where(varies, 1 - errors / total, torch.nan)
