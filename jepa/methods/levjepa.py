"""LeVJEPA: views of one clip agree, and SIGReg keeps them from agreeing on nothing (arXiv 2608.27395).

    clip ──┬─ 1 global crop ──┐  drop 95 %                  CLS                   ┌─ squared distance of every view
           │                  ├─ of the tokens → encoder ─────→ projector → z_v ──┤  to the global one
           └─ 10 local crops ─┘                                                   └─ + 0.02 SIGReg(z)

One encoder: no teacher, no predictor, no stop-gradient. A crop is the same for all frames of its clip.

Forward FLOPs of a step on V views of E numbers: for each view encoder(its kept tokens), as in
jepa/encoders/video_vit.py, and the projector, 2*(D*P + P*E) at a width of P; SIGReg takes 2*V*E*directions a clip.
Cutting the crops comes on top.
"""

import copy

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F
from torch.optim.swa_utils import get_ema_multi_avg_fn

from jepa.encoders.video_vit import VideoViT
from jepa.masks.random_drop import RandomDrop
from jepa.methods.base import Batch
from jepa.objectives.sigreg import sigreg
from jepa_data.transforms import random_resized_crop

ASPECT = (3 / 4, 4 / 3)


class LeVJEPA(nn.Module):
    """LeVJEPA as a method; the defaults are the paper's unless said otherwise.

    Args:
        encoder: with a CLS token and block-causal attention in the paper; without CLS the kept tokens are averaged.
        global_size, local_size: side of the crops in pixels; None is the encoder's image_size, and 3/7 of it (224, 96)
            rounded to whole patches.
        global_scale, local_scale: area of the crops over that of the frame (DINO's ranges: we do not know the paper's).
        drop: share of patch tokens dropped from every view.
        sigreg_weight, directions, knots: see jepa/objectives/sigreg.py.
        evaluation_ema: what the evaluation encoder, a moving average, keeps each step; None evaluates the encoder
            itself (short runs: at 0.9999 the average needs some 10,000 steps to forget where it started).
    """

    dynamics = None

    def __init__(
        self,
        encoder: VideoViT,
        *,
        global_size: int | None = None,
        local_size: int | None = None,
        local_views: int = 10,
        global_scale: tuple[float, float] = (0.3, 1.0),
        local_scale: tuple[float, float] = (0.05, 0.3),
        drop: float = 0.95,
        projector_width: int = 2048,
        embedding_width: int = 256,
        sigreg_weight: float = 0.02,
        directions: int = 1024,
        knots: int = 17,
        evaluation_ema: float | None = 0.9999,
    ):
        super().__init__()
        if local_views < 1:
            raise ValueError(
                f"LeVJEPA compares local views with a global one: local_views is at least 1, found {local_views}"
            )
        self.encoder = encoder
        self.global_size = global_size or encoder.image_size
        self.local_size = local_size or max(1, round(encoder.image_size * 3 / 7 / encoder.patch)) * encoder.patch
        self.local_views, self.global_scale, self.local_scale = local_views, global_scale, local_scale
        self.drop = RandomDrop(RandomDrop.Config(ratio=drop))
        self.sigreg_weight, self.directions, self.knots = sigreg_weight, directions, knots
        self.projector = nn.Sequential(
            nn.Linear(encoder.width, projector_width),
            nn.BatchNorm1d(projector_width),
            nn.GELU(),
            nn.Linear(projector_width, embedding_width),
        )
        self.evaluation_ema = evaluation_ema
        self.averaged = None if evaluation_ema is None else copy.deepcopy(encoder).requires_grad_(False)

    def loss(self, batch: Batch, generator: torch.Generator) -> dict[str, Tensor]:
        """Scalars: loss, its terms, and the cosine of local and global views."""
        video = batch.video
        whole = random_resized_crop(video, self.global_size, self.global_scale, ASPECT, generator=generator)
        parts = [
            random_resized_crop(video, self.local_size, self.local_scale, ASPECT, generator=generator)
            for _ in range(self.local_views)
        ]
        summaries = torch.cat((self._summary(whole, generator), self._summary(torch.cat(parts), generator)))
        z = self.projector(summaries).float().unflatten(0, (1 + self.local_views, len(video)))  # [views, B, embedding]
        agreement = (z[1:] - z[0]).square().mean()
        gaussian = sigreg(z, generator, self.directions, self.knots)
        cosine = F.cosine_similarity(z[1:].detach(), z[0].detach(), dim=-1).mean()
        total = agreement + self.sigreg_weight * gaussian
        return {"loss": total, "agreement": agreement, "sigreg": gaussian, "cosine": cosine}

    def _summary(self, video: Float[Tensor, "B T C h w"], generator: torch.Generator) -> Float[Tensor, "B D"]:
        keep, _ = self.drop(self.encoder.grid(video), len(video), generator)
        features = self.encoder.forward_features(video, keep.to(video.device))
        return features.tokens.mean(1) if features.cls is None else features.cls

    @torch.no_grad()
    def after_step(self, step: int, total_steps: int) -> None:
        """Move the evaluation encoder towards the encoder."""
        if self.averaged is not None and self.evaluation_ema is not None:
            move = get_ema_multi_avg_fn(self.evaluation_ema)
            move(list(self.averaged.parameters()), list(self.encoder.parameters()), step)

    def evaluation_encoder(self) -> VideoViT:
        return self.encoder if self.averaged is None else self.averaged
