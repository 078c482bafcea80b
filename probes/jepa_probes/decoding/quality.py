"""How close decoded frames are to the true ones."""

import math
import time

import torch
from jaxtyping import Float, UInt8
from torch import Tensor
from torchmetrics.functional.image import structural_similarity_index_measure

from jepa.decoders.base import Decoder

BEST = 60.0  # dB of frames that are equal but for rounding
TIMED = 64  # frames decoded at once, to time it
ROUNDS = 3


def psnr(decoded: UInt8[Tensor, "M 3 h w"], true: UInt8[Tensor, "M 3 h w"]) -> Float[Tensor, " M"]:
    """Of each frame, in dB, at most `BEST`."""
    error = ((decoded.float() - true.float()) / 255).square().mean((1, 2, 3))
    return (-10 * error.clamp_min(10 ** (-BEST / 10)).log10()).cpu()


def ssim(decoded: UInt8[Tensor, "M 3 h w"], true: UInt8[Tensor, "M 3 h w"]) -> float:
    """Structural similarity (Wang et al., 2004), mean over frames; 1: equal."""
    parts = []
    for a, b in zip(decoded.split(256), true.split(256), strict=True):
        score = structural_similarity_index_measure(
            a.double().cpu() / 255, b.double().cpu() / 255, data_range=1.0, reduction="none"
        )  # in double precision, equal frames score 1
        assert isinstance(score, Tensor)
        parts.append(score)
    return float(torch.cat(parts).mean())


@torch.no_grad()
def milliseconds(decoder: Decoder, latents: Float[Tensor, "M N D"]) -> float:
    """To decode a frame, in batches of `TIMED`: the best of some rounds."""
    batch = latents[:TIMED]
    best = math.inf
    for _ in range(ROUNDS + 1):  # the first one warms up
        began = time.perf_counter()
        decoder.images(batch).sum().item()
        best = min(best, time.perf_counter() - began)
    return 1000 * best / len(batch)
