"""From a mask over the tokens of a clip to the indices that encoders and predictors take."""

from jaxtyping import Bool, Int
from torch import Tensor


def partition(target: Bool[Tensor, "B L"]) -> tuple[Int[Tensor, "B Mc"], Int[Tensor, "B Mt"]]:
    """Context and target token indices, ascending; every row holds the same count of targets."""
    return _where(~target), _where(target)


def _where(mask: Bool[Tensor, "B L"]) -> Int[Tensor, "B M"]:
    return mask.nonzero()[:, 1].view(len(mask), int(mask[0].sum()))
