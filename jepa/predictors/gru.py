"""A gated recurrent unit whose hidden state is the latent: EB-JEPA's dynamics for vector latents.

    z' = GRU(input a, hidden z)

The latent is its only memory, so latents must encode velocities as well as positions. If the encoder ends in a
LayerNorm, EB-JEPA's GRU ends in the same one: `layer_norm_out`.
"""

from typing import Literal

from jaxtyping import Float
from pydantic import Field
from torch import Tensor, nn
from torch.nn import functional as F

from jepa.predictors.base import MemorylessPredictor, PredictorConfig


class GRUPredictor(MemorylessPredictor):
    """A `Dynamics` of `jepa.world_model`: one GRU cell."""

    class Config(PredictorConfig):
        """One GRU cell; the latent is its hidden state."""

        kind: Literal["gru"] = "gru"
        layer_norm_out: bool = Field(
            default=False, description="LayerNorm without affine on the predictions, as on the latents"
        )

    def __init__(self, config: Config, width: int, action_size: int, grid: tuple[int, int] = (1, 1)) -> None:
        super().__init__(config, width, action_size)
        self.layer_norm_out = config.layer_norm_out
        self.cell = nn.GRUCell(action_size, width)

    def predict(self, z: Float[Tensor, "B 1 D"], action: Float[Tensor, "B A"]) -> Float[Tensor, "B 1 D"]:
        next_latent = self.cell(self.scale_actions(action), z[:, 0])[:, None]
        return F.layer_norm(next_latent, (self.width,)) if self.layer_norm_out else next_latent
