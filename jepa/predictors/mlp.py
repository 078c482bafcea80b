"""Action-conditioned residual MLP for vector latents, without memory.

A tubelet of two or more frames shows positions and velocities, so the latent is (nearly) a Markov state and needs no
history. A step costs about 0.4 MFLOP, which makes planning on a CPU fast.
"""

from typing import Literal

import torch
from jaxtyping import Float
from pydantic import Field
from torch import Tensor, nn
from torch.nn import functional as F

from jepa.config.fields import Count
from jepa.predictors.base import MemorylessPredictor, PredictorConfig


class MLPPredictor(MemorylessPredictor):
    """z' = z + f(z, a), f a residual MLP; a `Dynamics` of `jepa.world_model`."""

    class Config(PredictorConfig):
        """Action-conditioned residual MLP."""

        kind: Literal["mlp"] = "mlp"
        hidden: Count = 384
        depth: Count = Field(default=1, description="residual blocks")
        static: int = Field(
            default=0,
            ge=0,
            description="number of last dimensions of a latent that are constant, for what does not move in a scene",
        )

    def __init__(self, config: Config, width: int, action_size: int, grid: tuple[int, int] = (1, 1)) -> None:
        super().__init__(config, width, action_size)
        if not config.static < width:
            raise ValueError(f"static: expected fewer than the {width} numbers of a latent, found {config.static}")
        self.static = config.static
        self.enter = nn.Sequential(nn.Linear(width + action_size, config.hidden), nn.SiLU())
        self.blocks = nn.ModuleList(
            nn.Sequential(nn.LayerNorm(config.hidden), nn.Linear(config.hidden, config.hidden), nn.SiLU())
            for _ in range(config.depth)
        )
        self.leave = nn.Linear(config.hidden, width - config.static)

    def predict(self, z: Float[Tensor, "B 1 D"], action: Float[Tensor, "B A"]) -> Float[Tensor, "B 1 D"]:
        hidden = self.enter(torch.cat([z[:, 0], self.scale_actions(action)], -1))
        for block in self.blocks:
            hidden = hidden + block(hidden)
        return z + F.pad(self.leave(hidden), (0, self.static))[:, None]
