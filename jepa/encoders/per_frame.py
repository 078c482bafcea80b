"""Encode each frame of a clip as an image, as in V-JEPA 2-AC (arXiv 2506.09985).

    frame t  →  t t (doubled, to fill a tubelet)  →  video encoder  →  LayerNorm without affine  →  [N, D]

A latent step is one frame. Forward FLOPs for T frames: T times those of the encoder for a clip of one tubelet.
"""

from typing import Any, Literal, Self

import torch.nn.functional as F
from jaxtyping import Float
from pydantic import Field
from torch import Tensor

from jepa.encoders.base import EncoderConfig
from jepa.encoders.module import Encoder
from jepa.encoders.video_vit import VideoViT


class PerFrameEncoder(Encoder):
    """A video encoder applied to single frames; tubelet 1, so that every frame is a latent step.

    Args:
        image_size, frames: of the clips for which the video encoder is built.
        encoder: a video encoder described by `config.of`; None: a new one. Its weights are stored under "encoder.".
    """

    tubelet = 1

    class Config(EncoderConfig):
        """A video encoder applied to single frames."""

        kind: Literal["per_frame"] = "per_frame"
        of: VideoViT.Config
        layer_norm: bool = Field(
            default=True, description="LayerNorm of the tokens, without affine, as in V-JEPA 2's targets"
        )
        tubelet: Literal[1] = 1

        @property
        def width(self) -> int:
            """D of the latents."""
            return self.of.width

        def weights_key(self) -> dict[str, Any]:
            """That of the video encoder, which has all weights."""
            return self.of.weights_key()

    def __init__(self, config: Config, image_size: int, frames: int, *, encoder: VideoViT | None = None) -> None:
        super().__init__()
        self.config = config
        self.encoder = encoder or VideoViT(config.of, image_size, frames)
        self.layer_norm = config.layer_norm
        self.image_size = self.encoder.image_size
        self.width = self.encoder.width
        self.tokens = self.encoder.tokens
        self.frames = 1

    @classmethod
    def around(cls, encoder: VideoViT) -> Self:
        """Wrap a video encoder."""
        return cls(cls.Config(of=encoder.config), encoder.image_size, encoder.frames, encoder=encoder)

    def forward(self, video: Float[Tensor, "B T C h w"]) -> Float[Tensor, "B T N D"]:
        """Normalized video to tokens. Raises ValueError if the patch does not divide the frames."""
        frames = video.flatten(0, 1)[:, None].expand(-1, self.encoder.tubelet, -1, -1, -1)
        z = self.encoder(frames).unflatten(0, video.shape[:2])[:, :, 0]
        return F.layer_norm(z, (self.width,)) if self.layer_norm else z
