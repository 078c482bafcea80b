"""What a plan costs. Planners see `cost(actions [B, K, H, A]) -> [B, K]`, lower is better, and nothing else."""

from collections.abc import Callable

import torch
from jaxtyping import Float
from torch import Tensor

from jepa.world_model import Dynamics, State, rollout

Cost = Callable[[Float[Tensor, "B K H A"]], Float[Tensor, "B K"]]


def goal_distance(dynamics: Dynamics, state: State, goal: Float[Tensor, "B N D"], *, path_weight: float = 1.0) -> Cost:
    """Squared latent distance between imagined steps and the goal, averaged over tokens and width.

    Args:
        dynamics: imagines the plans.
        state: where the B episodes are now.
        goal: latents to reach.
        path_weight: how much the steps before the last one count; 0 looks at the end of the plan only, 1 at every step
            alike (their mean), which makes the agent hurry.
    """

    def cost(actions: Float[Tensor, "B K H A"]) -> Float[Tensor, "B K"]:
        imagined = rollout(dynamics, state, actions)
        distance = (imagined - goal[:, None, None]).square().mean((-2, -1))  # [B, K, H]
        weight = torch.full((distance.shape[-1],), path_weight, device=distance.device)
        weight[-1] = 1.0
        return (distance * weight).sum(-1) / weight.sum()

    return cost
