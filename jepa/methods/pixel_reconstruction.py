"""V-Pixel: reconstruct the hidden patches of a clip from the visible ones; the first stage of SALT (arXiv 2509.24317).

    video ── visible tokens → encoder → predictor ──→ hidden patches ──┐
      └───── hidden patches, each normalized by its mean and deviation ┴─ squared error

The frozen encoder is the teacher of the second stage: `vjepa` with `teacher: frozen`. Masks are as in V-JEPA, with one
pass for each; patches are normalized as in VideoMAE (arXiv 2203.12602).

Forward FLOPs of a step on clips of L tokens where a mask shows M: for each mask encoder(M) + predictor(L tokens,
L - M hidden, with the pixels of a patch in place of D on the way out).
"""

from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor, nn

from jepa.encoders.patches import patchify
from jepa.encoders.video_vit import VideoViT
from jepa.masks import MASKS, VJEPA_MASKS, Masks
from jepa.methods.base import Batch, ClipShape, Method, MethodConfig, check_video_vit
from jepa.predictors.masked import MaskedPredictor

EPS = 1e-6  # of the variance of a patch, VideoMAE


class PixelReconstruction(Method):
    """V-Pixel: one pass of encoder and predictor for each mask, with separate mask tokens."""

    class Config(MethodConfig):
        """Masked pixel reconstruction: trains the teacher of SALT."""

        kind: Literal["vpixel"] = "vpixel"
        predictor: MaskedPredictor.Config = MaskedPredictor.Config()
        masks: Masks = VJEPA_MASKS

    encoder: VideoViT

    def __init__(self, config: Config, encoder: VideoViT, clips: ClipShape) -> None:
        super().__init__(config, encoder)
        check_video_vit(config.kind, encoder)
        self.predictor = MaskedPredictor(
            config.predictor,
            encoder.width,
            mask_kinds=len(config.masks),
            target_width=patch_pixels(encoder),
            position_grid=encoder.position_grid,
        )
        self.masks = tuple(MASKS.make(mask) for mask in config.masks)

    def loss(self, batch: Batch, generator: torch.Generator) -> dict[str, Tensor]:
        video = batch.video
        grid = self.encoder.grid(video)
        truth = normalized_patches(patchify(video, self.encoder.tubelet, self.encoder.patch))
        losses = []
        for kind, mask in enumerate(self.masks):
            seen, hidden = mask.of(video, grid, generator)
            prediction = self.predictor(self.encoder(video, seen), seen, hidden, grid, kind)
            losses.append(nn.functional.mse_loss(prediction.float(), truth.take_along_dim(hidden[..., None], 1)))
        return {"loss": torch.stack(losses).mean()}


def patch_pixels(encoder: VideoViT) -> int:
    """Numbers in a tubelet of the encoder: channels * tubelet * patch²."""
    return encoder.patch_embed.proj.weight[0].numel()


def normalized_patches(patches: Float[Tensor, "B L P"]) -> Float[Tensor, "B L P"]:
    """Each patch at zero mean and unit variance over its pixels, in fp32."""
    patches = patches.float()
    variance, mean = torch.var_mean(patches, -1, keepdim=True)
    return (patches - mean) / (variance + EPS).sqrt()
