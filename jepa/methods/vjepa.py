"""V-JEPA: predict the latents of hidden parts of a clip from its visible part (arXiv 2404.08471; 2: arXiv 2506.09985).

    video ──┬─ visible tokens ──→ context encoder ──→ predictor ──→ predicted hidden tokens ──┐
            │                           ┆ moving average                                      L1
            └─ all tokens ──────→ target encoder ──→ LayerNorm ──→ true hidden tokens ────────┘   (no gradient)

for each kind of mask (short-range and long-range blocks), averaged. Only visible tokens enter the context encoder.
"""

import copy
from collections.abc import Sequence
from typing import Literal, Protocol, runtime_checkable

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.optim.swa_utils import get_ema_multi_avg_fn

from jepa.encoders.video_vit import VideoViT
from jepa.masks.multiblock import LONG_RANGE, SHORT_RANGE
from jepa.methods.base import Batch
from jepa.objectives.latent_regression import latent_regression, normalised
from jepa.predictors.masked import MaskedPredictor
from jepa.transformer import Grid


@runtime_checkable
class Mask(Protocol):
    """Draws context and target token indices that partition the grid (jepa/masks)."""

    def __call__(
        self, grid: Grid, batch: int, generator: torch.Generator
    ) -> tuple[Int[Tensor, "B Mc"], Int[Tensor, "B Mt"]]: ...


class VJEPA(nn.Module):
    """V-JEPA 1 and 2 as a method.

    Args:
        ema: how much of the target encoder each step keeps, at the first and the last step (linear in between).
            V-JEPA 1: (0.998, 1.0); V-JEPA 2: 0.99925 throughout.
        masks: each is one pass of encoder and predictor, with a mask token of its own.
        teacher: "ema", or "none": the targets come from the context encoder itself (still without gradient). That
            collapses to constant latents; it is there to show what the moving average is for.
    """

    dynamics = None

    def __init__(
        self,
        encoder: VideoViT,
        predictor: MaskedPredictor,
        *,
        ema: tuple[float, float] = (0.99925, 0.99925),
        masks: Sequence[Mask] = (SHORT_RANGE, LONG_RANGE),
        teacher: Literal["ema", "none"] = "ema",
    ):
        super().__init__()
        if not all(0 <= decay <= 1 for decay in ema):
            raise ValueError(f"ema is (first, last), each from 0 to 1, found {ema}")
        if not 1 <= len(masks) <= len(predictor.mask_tokens):
            raise ValueError(
                f"{len(masks)} kinds of mask, but the predictor has {len(predictor.mask_tokens)} mask tokens"
            )
        self.encoder, self.predictor = encoder, predictor
        self.ema, self.masks = ema, tuple(masks)
        self.target_encoder = copy.deepcopy(encoder).requires_grad_(False) if teacher == "ema" else None

    def loss(self, batch: Batch, generator: torch.Generator) -> dict[str, Tensor]:
        video = batch.video
        grid = self.encoder.grid(video)
        truth = self._targets(video)
        losses = []
        for kind, mask in enumerate(self.masks):
            context_index, target_index = (x.to(video.device) for x in mask(grid, len(video), generator))
            context = self.encoder(video, context_index)
            prediction = self.predictor(context, context_index, target_index, grid, kind)
            losses.append(latent_regression(prediction, _take(truth, target_index)))
        return {"loss": torch.stack(losses).mean()}

    @torch.no_grad()
    def _targets(self, video: Float[Tensor, "B T C h w"]) -> Float[Tensor, "B L D"]:
        return normalised(self.evaluation_encoder()(video).flatten(1, 2))

    @torch.no_grad()
    def after_step(self, step: int, total_steps: int) -> None:
        """Move the target encoder towards the context encoder: θ' ← m θ' + (1 - m) θ."""
        if self.target_encoder is None:
            return
        first, last = self.ema
        momentum = first + (last - first) * min(step / max(total_steps, 1), 1.0)
        move = get_ema_multi_avg_fn(momentum)
        move(list(self.target_encoder.parameters()), list(self.encoder.parameters()), step)

    def evaluation_encoder(self) -> VideoViT:
        return self.encoder if self.target_encoder is None else self.target_encoder


def _take(tokens: Float[Tensor, "B L D"], index: Int[Tensor, "B M"]) -> Float[Tensor, "B M D"]:
    return tokens.take_along_dim(index[..., None], 1)
