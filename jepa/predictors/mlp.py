"""Action-conditioned prediction from the present latent alone: a residual MLP for vector latents.

A tubelet of two or more frames holds positions and velocities, so the latent is (nearly) a Markov state and needs no
history. The cheapest dynamics there is: about 0.4 MFLOP a step, which is what makes planning on a CPU quick.
"""

from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.nn import functional as F

from jepa.normalize import standardize
from jepa.world_model import Deterministic, State


@dataclass(frozen=True)
class LatentState:
    """The state of a Markov model: the latent itself, [B, N, D]."""

    z: Float[Tensor, "B N D"]

    def repeat(self, k: int) -> "LatentState":
        return LatentState(self.z.repeat_interleave(k, 0))

    def gather(self, index: Int[Tensor, " M"]) -> "LatentState":
        return LatentState(self.z[index])

    def detach(self) -> "LatentState":
        return LatentState(self.z.detach())

    def nbytes(self) -> int:
        return self.z.nbytes


class MLPPredictor(nn.Module):
    """z' = z + f(z, a), f a residual MLP; the Dynamics of `jepa.world_model`.

    Args:
        width: D; latents are [B, 1, D].
        action_size: width of the action of one latent step (tubelet x raw action).
        hidden: units of the MLP.
        depth: its residual blocks.
        static: the last so many of the D numbers stay as they are: what a scene is, beside what moves in it.
        normalize_actions: they come raw, and are standardized before anything reads them; see jepa/normalize.py.
    """

    def __init__(
        self,
        width: int,
        action_size: int,
        *,
        hidden: int = 384,
        depth: int = 1,
        static: int = 0,
        normalize_actions: bool = False,
    ) -> None:
        super().__init__()
        if not 0 <= static < width:
            raise ValueError(f"static: expected at least 0 and fewer than the {width} of a latent, found {static}")
        self.width, self.action_size, self.static = width, action_size, static
        self.scale_actions = standardize(action_size, normalize_actions)
        self.enter = nn.Sequential(nn.Linear(width + action_size, hidden), nn.SiLU())
        self.blocks = nn.ModuleList(
            nn.Sequential(nn.LayerNorm(hidden), nn.Linear(hidden, hidden), nn.SiLU()) for _ in range(depth)
        )
        self.leave = nn.Linear(hidden, width - static)

    def forward(self, z: Float[Tensor, "B 1 D"], action: Float[Tensor, "B A"]) -> Float[Tensor, "B 1 D"]:
        """Raises ValueError if the action has another width than in training."""
        if action.shape[-1] != self.action_size:
            raise ValueError(
                f"the dynamics take actions {self.action_size} wide (all raw actions of one latent step side by side), "
                f"found {action.shape[-1]}"
            )
        hidden = self.enter(torch.cat([z[:, 0], self.scale_actions(action)], -1))
        for block in self.blocks:
            hidden = hidden + block(hidden)
        return z + F.pad(self.leave(hidden), (0, self.static))[:, None]

    def parallel(self, z: Float[Tensor, "B S 1 D"], actions: Float[Tensor, "B S A"]) -> Float[Tensor, "B S 1 D"]:
        """Teacher-forced: row s is the prediction of latent s+1 from latent s."""
        return self(z.flatten(0, 1), actions.flatten(0, 1)).unflatten(0, z.shape[:2])

    def initial_state(self, z: Float[Tensor, "B S 1 D"], actions: Float[Tensor, "B S-1 A"]) -> LatentState:
        """The last latent; a Markov model forgets what came before."""
        return LatentState(z[:, -1])

    def step(
        self, state: State, action: Float[Tensor, "B A"], noise: Tensor | None = None
    ) -> tuple[LatentState, Deterministic]:
        assert isinstance(state, LatentState)
        next_latent = self(state.z, action)
        return LatentState(next_latent), Deterministic(next_latent)
