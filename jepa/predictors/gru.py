"""A gated recurrent unit whose hidden state is the latent: EB-JEPA's dynamics for vector latents.

    z' = GRU(input a, hidden z)

The latent is all it remembers, so a latent has to tell where things move, not only where they are. Where the encoder
ends in a LayerNorm, EB-JEPA's GRU ends in the same one: `layer_norm_out`.
"""

from typing import Literal

from jaxtyping import Float
from pydantic import Field
from torch import Tensor, nn
from torch.nn import functional as F

from jepa.predictors.base import MemorylessPredictor, PredictorConfig


class GRUPredictor(MemorylessPredictor):
    """The Dynamics of `jepa.world_model` by one GRU cell."""

    class Config(PredictorConfig):
        """One GRU cell; the latent is its hidden state."""

        kind: Literal["gru"] = "gru"
        layer_norm_out: bool = Field(
            default=False, description="predictions are LayerNormed, without affine, as the latents are"
        )

    def __init__(self, config: Config, width: int, action_size: int, grid: tuple[int, int] = (1, 1)) -> None:
        super().__init__(config, width, action_size)
        self.layer_norm_out = config.layer_norm_out
        self.cell = nn.GRUCell(action_size, width)

    def predict(self, z: Float[Tensor, "B 1 D"], action: Float[Tensor, "B A"]) -> Float[Tensor, "B 1 D"]:
        next_latent = self.cell(self.scale_actions(action), z[:, 0])[:, None]
        return F.layer_norm(next_latent, (self.width,)) if self.layer_norm_out else next_latent
