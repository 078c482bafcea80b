"""Inverse dynamics loss: keeps what the agent controls in the latents (PLDM, EB-JEPA)."""

import torch
from jaxtyping import Float
from torch import Tensor, nn


class InverseDynamics(nn.Module):
    """Predicts the action block between consecutive vector latents with one hidden layer.

    Args:
        width: D of the latents [B, S, 1, D].
        action_size: A of the actions [B, S-1, A].
    """

    def __init__(self, width: int, action_size: int, *, hidden: int = 256) -> None:
        super().__init__()
        self.net = nn.Sequential(nn.Linear(2 * width, hidden), nn.SiLU(), nn.Linear(hidden, action_size))

    def forward(self, z: Float[Tensor, "B S 1 D"], actions: Float[Tensor, "B S-1 A"]) -> Float[Tensor, ""]:
        """Mean squared error of the predicted actions."""
        pairs = torch.cat([z[:, :-1, 0], z[:, 1:, 0]], -1)
        return nn.functional.mse_loss(self.net(pairs), actions)
