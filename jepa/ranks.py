"""Statistics of a batch that several processes share: those of all its clips, with the gradients of one process.

    rank 0   x ──mean──┐                       ┌── the same mean on every rank
    rank 1   x ──mean──┴── mean over ranks ────┘   backward: the mean of the ranks' gradients

DDP averages the gradients of the ranks. So that this is the gradient of the joint loss, what flows back into a shared
mean is averaged too. Every rank has as many clips, and calls these functions in the same order.

Random numbers are drawn for all clips on every rank, from generators that are alike, and each rank keeps those of its
own clips: the clips of rank r are the r-th part of the batch of one process, and get the numbers that they get there.
"""

from collections.abc import Callable

import torch
import torch.distributed as dist
from jaxtyping import Float
from torch import Tensor, nn

from jepa_data.devices import sent
from jepa_data.transforms import BatchPart


def rank_count() -> int:
    """Processes that share a batch; 1 without torch.distributed."""
    return dist.get_world_size() if dist.is_available() and dist.is_initialized() else 1


def mean_over_ranks(x: Tensor) -> Tensor:
    """The mean of what the ranks have, on all of them."""
    return _MeanOverRanks.apply(x) if rank_count() > 1 else x  # pyright: ignore[reportReturnType]


def rank_part(draw: Callable[[int], Tensor], rows: int, dim: int = 0, *, device: torch.device | None = None) -> Tensor:
    """The random numbers of this rank's clips.

    Args:
        draw: makes the numbers of so many rows.
        rows: of the clips here: their number or a multiple of it, clip by clip.
        dim: where the rows are in what is drawn.
        device: where they are sent; None leaves them where they are drawn.
    """
    ranks = rank_count()
    part = draw(rows) if ranks == 1 else draw(rows * ranks).narrow(dim, rows * dist.get_rank(), rows)
    return part if device is None else sent(part, device)


def batch_part(generator: torch.Generator, clips: int) -> torch.Generator | BatchPart:
    """The same for what `jepa_data.transforms` draws for so many clips of this rank."""
    ranks = rank_count()
    return generator if ranks == 1 else BatchPart(generator, clips * dist.get_rank(), clips * ranks)


def joint_variance(x: Tensor, dims: int | tuple[int, ...]) -> tuple[Tensor, Tensor]:
    """Variance (without correction) and mean over these dimensions, which stay with size 1, and over all ranks."""
    if rank_count() == 1:
        variance, mean = torch.var_mean(x, dims, correction=0, keepdim=True)
        return variance, mean
    mean = mean_over_ranks(x.mean(dims, keepdim=True))
    return mean_over_ranks((x - mean).square().mean(dims, keepdim=True)), mean


class _MeanOverRanks(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x: Tensor) -> Tensor:
        x = x.contiguous().clone()
        dist.all_reduce(x)
        return x / dist.get_world_size()

    @staticmethod
    def backward(ctx, *grads: Tensor) -> Tensor:
        return _MeanOverRanks.forward(ctx, grads[0])


class RankBatchNorm(nn.BatchNorm1d):
    """BatchNorm over the vectors of all ranks. torch's own needs GPUs."""

    def forward(self, x: Float[Tensor, "M D"]) -> Float[Tensor, "M D"]:
        if not self.training or rank_count() == 1:
            return super().forward(x)
        assert self.running_mean is not None and self.running_var is not None and self.momentum is not None
        with torch.autocast(x.device.type, enabled=False):
            full = x.float()
            variance, mean = joint_variance(full, 0)
            number = len(x) * rank_count()
            with torch.no_grad():
                self.running_mean.lerp_(mean[0], self.momentum)
                self.running_var.lerp_(variance[0] * (number / (number - 1)), self.momentum)
                if self.num_batches_tracked is not None:
                    self.num_batches_tracked += 1
            y = (full - mean) / (variance + self.eps).sqrt()
            if self.affine:
                y = y * self.weight + self.bias
        return y.to(x.dtype)
