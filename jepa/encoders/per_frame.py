"""Each frame of a clip as a still picture: how V-JEPA 2-AC (arXiv 2506.09985) looks at a robot's camera.

    frame t  →  t t (doubled, to fill a tubelet)  →  video encoder  →  LayerNorm without affine  →  [N, D]

A latent step is one frame. Forward FLOPs for T frames: T times those of the encoder for a clip of one tubelet.
"""

import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from jepa.encoders.video_vit import VideoViT


class PerFrameEncoder(nn.Module):
    """A video encoder that is shown one frame at a time; tubelet 1, so that every frame is a latent step.

    Args:
        encoder: its weights are these ones' too, under "encoder.".
        layer_norm: tokens are LayerNormed, without affine, as V-JEPA 2's targets are.
    """

    tubelet = 1

    def __init__(self, encoder: VideoViT, *, layer_norm: bool = True) -> None:
        super().__init__()
        self.encoder, self.layer_norm = encoder, layer_norm
        self.width, self.tokens, self.image_size, self.frames = encoder.width, encoder.tokens, encoder.image_size, 1

    def forward(self, video: Float[Tensor, "B T C h w"]) -> Float[Tensor, "B T N D"]:
        """Normalized video to tokens. Raises ValueError if the patch does not divide the frames."""
        frames = video.flatten(0, 1)[:, None].expand(-1, self.encoder.tubelet, -1, -1, -1)
        z = self.encoder(frames).unflatten(0, video.shape[:2])[:, :, 0]
        return F.layer_norm(z, (self.width,)) if self.layer_norm else z
