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
        if config.hidden > 2 * width - config.static:  # it would take more products
            self.imagine_end = None  # pyright: ignore[reportAttributeAccessIssue]

    def predict(self, z: Float[Tensor, "B 1 D"], action: Float[Tensor, "B A"]) -> Float[Tensor, "B 1 D"]:
        hidden = self.enter(torch.cat([z[:, 0], self.scale_actions(action)], -1))
        for block in self.blocks:
            hidden = hidden + block(hidden)
        return z + self._change(hidden)[:, None]

    def __init_subclass__(cls) -> None:
        """A subclass that steps in its own way is rolled out by its steps."""
        super().__init_subclass__()
        if {"predict", "forward", "step"} & set(vars(cls)) and "imagine" not in vars(cls):
            cls.imagine = cls.imagine_end = None  # pyright: ignore[reportAttributeAccessIssue]

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

    def imagine_end(self, state: State, actions: Float[Tensor, "B K H A"]) -> Float[Tensor, "B K 1 D"]:
        """The last latent of `imagine` alone: the same numbers but for rounding, with fewer products.

        A latent leaves a step only to enter the next one, so one matrix can do both:

            z_h = z_0 + Σ (L x_k + l),  k < h
            E z_h + U a_h + e = (E z_0 + e) + U a_h + h E l + (E L) Σ x_k

        with E, U, e the layer that enters, L, l the one that leaves, and x_k the last hidden layer of step k.
        """
        assert isinstance(state, LatentState)
        self._check_actions(actions)
        episodes, plans, horizon = actions.shape[:3]
        enter = self.enter[0]
        assert isinstance(enter, nn.Linear)
        with torch.inference_mode():
            of_latent, of_action = enter.weight.split((self.width, self.action_size), 1)
            of_change = of_latent[:, : self.width - self.static]
            carried = (of_change @ self.leave.weight).T
            drift = torch.arange(horizon, device=actions.device)[:, None, None] * (of_change @ self.leave.bias)
            constant = F.linear(state.z[:, 0], of_latent, enter.bias) + drift  # [H, B, W]
            taken = self.scale_actions(actions).permute(2, 0, 1, 3)
            entered = torch.matmul(taken, of_action.T).add_(constant[:, :, None]).flatten(1, 2)  # [H, B*K, W]
            total = torch.cat([self._summed(part, carried) for part in entered.split(ROWS, 1)])
            change = F.linear(total, self.leave.weight).add_(self.leave.bias, alpha=horizon)
            change = F.pad(change, (0, self.static)) if self.static else change
        return state.z[:, None] + change.unflatten(0, (episodes, plans))[:, :, None]

    def _summed(self, entered: Float[Tensor, "H M W"], carried: Float[Tensor, "W W"]) -> Float[Tensor, "M W"]:
        """The sum of the last hidden layers of all steps; `entered` is overwritten."""
        total = None
        for hidden in entered:
            if total is not None:
                hidden.addmm_(total, carried)
            F.silu(hidden, inplace=True)
            for block in self.blocks:
                hidden.add_(block(hidden))
            total = hidden if total is None else total.add_(hidden)
        assert total is not None
        return total

    def _change(self, hidden: Float[Tensor, "B W"]) -> Float[Tensor, "B D"]:
        change = self.leave(hidden)
        return F.pad(change, (0, self.static)) if self.static else change
