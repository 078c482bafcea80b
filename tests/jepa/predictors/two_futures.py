"""Toy worlds of latents, one whose future is one of two and one whose future is certain, and how well draws meet it."""

import torch
from torch import Tensor

from jepa.predictors.base import Predictor
from jepa.world_model import rollout

WIDTH, ACTION = 2, 1


def clips(count: int, steps: int, *, certain: bool, seed: int) -> tuple[Tensor, Tensor]:
    """Latents [count, steps, 1, 2] and actions. A step goes where the action points, and in the other world also left
    or right at even odds; both numbers of a latent tell it."""
    g = torch.Generator().manual_seed(seed)
    actions = torch.rand(count, steps - 1, ACTION, generator=g) * 2 - 1
    side = torch.randint(2, (count, steps), generator=g) * 2.0 - 1
    x = torch.zeros(count) if certain else side[:, 0]
    latents = [x]
    for t in range(steps - 1):
        x = 0.5 * actions[:, t, 0] + (0.5 * x if certain else side[:, t + 1])
        latents.append(x)
    z = torch.stack(latents, 1)
    return torch.stack((z, -z), -1)[:, :, None], actions


def train(predictor: Predictor, *, certain: bool, steps: int, lr: float = 3e-3) -> Predictor:
    g = torch.Generator().manual_seed(0)
    optimizer = torch.optim.Adam(predictor.parameters(), lr)
    for step in range(steps):
        z, actions = clips(64, 5, certain=certain, seed=step)
        optimizer.zero_grad()
        predictor.loss(z, actions, g).terms["prediction"].backward()
        torch.nn.utils.clip_grad_norm_(predictor.parameters(), 1.0)
        optimizer.step()
    return predictor.eval()


@torch.no_grad()
def best_of(predictor: Predictor, k: int, *, certain: bool) -> float:
    """Mean over clips of the smallest squared error among k draws of the next latent."""
    z, actions = clips(256, 4, certain=certain, seed=10_000)
    state = predictor.initial_state(z[:, :-1], actions[:, :-1])
    noise = torch.randn(len(z), k, 1, *z.shape[2:], generator=torch.Generator().manual_seed(1))
    drawn = rollout(predictor, state, actions[:, None, -1:].expand(-1, k, -1, -1), noise)[:, :, 0]
    return (drawn - z[:, None, -1]).square().mean((-1, -2)).amin(1).mean().item()
