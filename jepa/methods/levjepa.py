"""LeVJEPA: views of a clip have the same embedding, and SIGReg prevents collapse (arXiv 2608.27395).

    clip ──┬─ 1 global crop ──┐  drop 95 %                  CLS                   ┌─ squared distance of every view
           │                  ├─ of the tokens → encoder ─────→ projector → z_v ──┤  to the global one
           └─ 10 local crops ─┘                                                   └─ + 0.02 SIGReg(z)

One encoder: no teacher, no predictor, no stop-gradient. A crop is the same for all frames of its clip.

Forward FLOPs of a step on V views of E numbers: for each view encoder(its kept tokens), as in
jepa/encoders/video_vit.py, and the projector, 2*(D*P + P*E) at a width of P; SIGReg takes 2*V*E*directions per clip.
Cropping is not included.
"""

import copy
from typing import Literal

import torch
from jaxtyping import Float
from pydantic import Field
from torch import Tensor, nn
from torch.nn import functional as F
from torch.optim.swa_utils import get_ema_multi_avg_fn

from jepa.config.fields import Count, Positive, Share
from jepa.encoders.video_vit import VideoViT
from jepa.masks.random_drop import RandomDrop
from jepa.methods.base import Batch, ClipShape, Method, MethodConfig, check_video_vit
from jepa.objectives.sigreg import sigreg
from jepa.ranks import batch_part
from jepa_data.config import CropConfig
from jepa_data.transforms import random_resized_crop

ASPECT = (3 / 4, 4 / 3)


class LeVJEPA(Method):
    """LeVJEPA. The paper's encoder has a CLS token and block-causal attention.

    Without a CLS token, the kept tokens are averaged. The defaults are the paper's unless noted.
    """

    class Config(MethodConfig):
        """Agreement of views, with SIGReg against collapse (LeVJEPA)."""

        kind: Literal["levjepa"] = "levjepa"
        local_views: Count = 10
        local_size: Count | None = Field(
            default=None, description="side of local crops in pixels; none: 3/7 of image_size, in whole patches"
        )
        global_scale: tuple[Share, Share] = Field(
            default=(0.3, 1.0),
            description="range of the area of global crops, relative to the frame (as in DINO; the paper gives none)",
        )
        local_scale: tuple[Share, Share] = Field(
            default=(0.05, 0.3), description="range of the area of local crops, relative to the frame"
        )
        aspect: tuple[Positive, Positive] = Field(
            default=ASPECT,
            description="range of the width of crops over their height; [1, 1] where views are to agree on positions",
        )
        drop: Share = Field(default=0.95, description="share of patch tokens dropped from every view")
        projector_width: Count = 2048
        embedding_width: Count = 256
        sigreg_weight: float = Field(default=0.02, ge=0)
        directions: Count = 1024
        evaluation_ema: Share | None = Field(
            default=0.9999,
            description="momentum of the evaluation encoder, a moving average; none evaluates the encoder "
            "itself (short runs: at 0.9999 the average needs some 10,000 steps to forget where it started)",
        )

        def view_crop(self) -> CropConfig:
            return CropConfig(scale=self.global_scale, ratio=self.aspect)

    encoder: VideoViT

    def __init__(self, config: Config, encoder: VideoViT, clips: ClipShape) -> None:
        super().__init__(config, encoder)
        check_video_vit(config.kind, encoder)
        patches = max(1, round(encoder.image_size * 3 / 7 / encoder.patch))
        self.local_size = config.local_size or patches * encoder.patch
        self.drop = RandomDrop(RandomDrop.Config(ratio=config.drop))
        self.projector = nn.Sequential(
            nn.Linear(encoder.width, config.projector_width),
            nn.BatchNorm1d(config.projector_width),
            nn.GELU(),
            nn.Linear(config.projector_width, config.embedding_width),
        )
        self.averaged = None if config.evaluation_ema is None else copy.deepcopy(encoder).requires_grad_(False)

    def loss(self, batch: Batch, generator: torch.Generator) -> dict[str, Tensor]:
        """Scalars: loss, its terms, and the cosine of local and global views."""
        c = self.config
        video = batch.video
        draws = batch_part(generator, len(video))
        whole = random_resized_crop(video, self.encoder.image_size, c.global_scale, c.aspect, generator=draws)
        parts = [
            random_resized_crop(video, self.local_size, c.local_scale, c.aspect, generator=draws)
            for _ in range(c.local_views)
        ]
        whole = self._summary(whole, generator)
        summaries = torch.cat((whole, self._summary(torch.cat(parts), generator, c.local_views)))
        z = self.projector(summaries).float().unflatten(0, (1 + c.local_views, len(video)))  # [views, B, embedding]
        agreement = (z[1:] - z[0]).square().mean()
        gaussian = sigreg(z, generator, c.directions)
        cosine = F.cosine_similarity(z[1:].detach(), z[0].detach(), dim=-1).mean()
        total = agreement + c.sigreg_weight * gaussian
        return {"loss": total, "agreement": agreement, "sigreg": gaussian, "cosine": cosine}

    def _summary(
        self, video: Float[Tensor, "B T C h w"], generator: torch.Generator, views: int = 1
    ) -> Float[Tensor, "B D"]:
        keep, _ = self.drop.of(video, self.encoder.grid(video), generator, views)
        features = self.encoder.forward_features(video, keep)
        return features.tokens.mean(1) if features.cls is None else features.cls

    @torch.no_grad()
    def after_step(self, step: int, total_steps: int) -> None:
        """Move the evaluation encoder towards the encoder."""
        if self.averaged is not None and self.config.evaluation_ema is not None:
            move = get_ema_multi_avg_fn(self.config.evaluation_ema)
            move(list(self.averaged.parameters()), list(self.encoder.parameters()), step)

    def evaluation_encoder(self) -> VideoViT:
        return self.averaged or self.encoder
