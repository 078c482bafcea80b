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
from jepa.predictors.base import LatentState, MemorylessPredictor, PredictorConfig
from jepa.world_model import State

ROWS = 512  # plans whose hidden layer stays in a processor's cache


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
        return z + self._change(hidden)[:, None]

    def __init_subclass__(cls) -> None:
        """A subclass that steps in its own way is rolled out by its steps."""
        super().__init_subclass__()
        if {"predict", "forward", "step"} & set(vars(cls)) and "imagine" not in vars(cls):
            cls.imagine = None  # pyright: ignore[reportAttributeAccessIssue]

    def imagine(self, state: State, actions: Float[Tensor, "B K H A"]) -> Float[Tensor, "B K H 1 D"]:
        """`jepa.world_model.rollout` without gradients: the same numbers, written in place, `ROWS` plans at a time."""
        assert isinstance(state, LatentState)
        self._check_actions(actions)
        episodes, plans, horizon = actions.shape[:3]
        starts = state.z.expand(-1, plans, -1).flatten(0, 1)
        taken = self.scale_actions(actions).flatten(0, 1)
        latents = starts.new_empty(len(starts), horizon, self.width)
        for first in range(0, len(starts), ROWS):
            part = slice(first, first + ROWS)
            with torch.inference_mode():
                z = starts[part]
                for h in range(horizon):
                    hidden = self.enter(torch.cat((z, taken[part, h]), -1))
                    for block in self.blocks:
                        hidden.add_(block(hidden))
                    z = torch.add(z, self._change(hidden), out=latents[part, h])
        return latents.unflatten(0, (episodes, plans))[..., None, :]

    def _change(self, hidden: Float[Tensor, "B W"]) -> Float[Tensor, "B D"]:
        change = self.leave(hidden)
        return F.pad(change, (0, self.static)) if self.static else change
