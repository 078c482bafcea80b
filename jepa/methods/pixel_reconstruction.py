"""V-Pixel: reconstruct the hidden patches of a clip from the visible ones; the first stage of SALT (arXiv 2509.24317).

    video ── visible tokens → encoder → predictor ──→ hidden patches ──┐
      └───── hidden patches, each normalized by its mean and deviation ┴─ squared error

Its encoder, frozen, is the teacher of the second stage: `vjepa` with `teacher: frozen`. The masks are V-JEPA's, and
each is a pass of its own; normalized patches are those of VideoMAE (arXiv 2203.12602).

Forward FLOPs of a step on clips of L tokens, of which a mask shows M: for each mask encoder(M) + predictor(L tokens,
L - M hidden, with the pixels of a patch in place of D on the way out).
"""

from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor, nn

from jepa.encoders.patches import cut
from jepa.encoders.video_vit import VideoViT
from jepa.masks.base import Mask
from jepa.masks.multiblock import VJEPA_BLOCKS
from jepa.methods.base import Batch
from jepa.predictors.masked import MaskedPredictor

EPS = 1e-6  # of the variance of a patch, VideoMAE


class PixelReconstruction(nn.Module):
    """V-Pixel as a method.

    Args:
        predictor: its `target_width` is the number of pixels of a patch, see `patch_pixels`.
        masks: each is one pass of encoder and predictor, with a mask token of its own.
    """

    dynamics = None

    def __init__(self, encoder: VideoViT, predictor: MaskedPredictor, *, masks: Sequence[Mask] = VJEPA_BLOCKS):
        super().__init__()
        predictor.check_kinds(len(masks))
        if predictor.predictor_proj.out_features != patch_pixels(encoder):
            raise ValueError(
                f"the predictor gives {predictor.predictor_proj.out_features} numbers a token, a patch has "
                f"{patch_pixels(encoder)} pixels"
            )
        self.encoder, self.predictor, self.masks = encoder, predictor, tuple(masks)

    def loss(self, batch: Batch, generator: torch.Generator) -> dict[str, Tensor]:
        video, losses = batch.video, []
        grid = self.encoder.grid(video)
        truth = normalized_patches(cut(video, self.encoder.tubelet, self.encoder.patch))
        for kind, mask in enumerate(self.masks):
            seen, hidden = (x.to(video.device) for x in mask(grid, len(video), generator))
            prediction = self.predictor(self.encoder(video, seen), seen, hidden, grid, kind)
            losses.append(nn.functional.mse_loss(prediction.float(), truth.take_along_dim(hidden[..., None], 1)))
        return {"loss": torch.stack(losses).mean()}

    def after_step(self, step: int, total_steps: int) -> None:
        """Nothing follows the encoder."""

    def evaluation_encoder(self) -> VideoViT:
        return self.encoder


def patch_pixels(encoder: VideoViT) -> int:
    """Numbers in a tubelet of the encoder: channels * tubelet * patch²."""
    return encoder.patch_embed.proj.weight[0].numel()


def normalized_patches(patches: Float[Tensor, "B L P"]) -> Float[Tensor, "B L P"]:
    """Each patch at zero mean and unit variance over its pixels, in fp32."""
    patches = patches.float()
    variance, mean = torch.var_mean(patches, -1, keepdim=True)
    return (patches - mean) / (variance + EPS).sqrt()
