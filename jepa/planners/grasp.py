"""GRASP: actions and the latents between them are optimized together (arXiv 2602.00475).

    virtual latents  z1 … z(H-1)     each step is a separate problem:    next_t = f(stop-gradient(z_t), a_t)
    minimize over a and z:   terms(next, a) + weight * mean_t |next_t - z_{t+1}|²          all t in one parallel call
    every few steps:         a rollout of the actions replaces the virtual latents

Gradients pass through only one step of the model, so they neither vanish nor explode over long horizons. Noise on the
virtual latents helps to leave local minima. An action gets a gradient only from the cost of its own step, so every step
needs a cost: running_cost_weight above 0. Needs a `LatentCost`. A step sees only its virtual latent, so dynamics with
memory lose it here.
"""

from typing import Literal

import torch
from jaxtyping import Float
from pydantic import Field
from torch import Tensor

from jepa.config import Component
from jepa.config.fields import Count, NonNegative
from jepa.planners.base import Plan, Planner, Search, Width, draw
from jepa.planners.cost import Cost, Imagined, LatentCost
from jepa.world_model import rollout


class GRASP(Planner):
    """Joint optimization of K plans for each episode."""

    class Config(Component):
        """Adam steps on actions and virtual latents, and the weight of their consistency."""

        kind: Literal["grasp"] = "grasp"
        steps: Count = Field(default=60, description="Adam steps")
        lr: Width = Field(default=0.05, description="learning rate of the actions")
        latent_lr: Width = Field(default=0.05, description="learning rate of the virtual latents")
        consistency: NonNegative = Field(
            default=1.0,
            description="weight of the distance between what a step predicts and the virtual latent after it",
        )
        starts: Count = Field(default=8, description="plans optimized in parallel; the first is the start itself")
        std: Width = Field(default=0.7, description="standard deviation of the noise on the other starts")
        noise: NonNegative = Field(
            default=0.05,
            le=10,
            description="on the virtual latents after each step, in standard deviations of the latents; falls to 0",
        )
        sync_every: Count = Field(default=10, description="steps between rollouts")
        cost_tolerance: NonNegative | None = Field(
            default=None,
            description="stop early when, after a rollout, every best plan costs at most this; none: never",
        )

    follows_gradients = True

    def plan(self, cost: Cost, start: Float[Tensor, "B H A"], generator: torch.Generator) -> Plan:
        """See `Planner`. Also raises ValueError if the cost is no `LatentCost`, or has several futures."""
        if not isinstance(cost, LatentCost):
            raise ValueError("GRASP plans the latents too, so it needs a LatentCost, which tells it the dynamics")
        if cost.futures is not None:
            raise ValueError("GRASP plans one future; use another planner, or leave out `futures`")
        config = self.config
        search = Search(cost, start, self.low, self.high)
        shape = (len(start), config.starts, *start.shape[1:])
        noise = config.std * draw(shape, start, generator)
        noise[:, 0] = 0.0
        actions = search.bounded(search.start[:, None] + noise).requires_grad_()
        latents = self._synchronise(search, cost, actions)
        # Per episode: a plan must not depend on the other episodes of the batch.
        spread = latents.detach().flatten(1).std(1)[:, None, None, None, None] if latents.numel() else 0.0
        optimizer = torch.optim.Adam(
            [{"params": [actions], "lr": config.lr}, {"params": [latents], "lr": config.latent_lr}]
        )
        for number in range(config.steps):
            with torch.enable_grad():
                taken = cost.taken(actions)
                next_latent = self._steps(cost, latents, taken)
                apart = (next_latent[:, :, :-1] - latents).square().mean((-2, -1)).sum(-1)
                costs = cost.of(Imagined(next_latent, taken)) + config.consistency * apart
                loss = costs.sum()
            search.count(costs)
            optimizer.zero_grad()
            loss.backward(inputs=[actions, latents])
            optimizer.step()
            with torch.no_grad():
                actions.clamp_(self.low, self.high)
                left = 1 - (number + 1) / config.steps
                latents += left * config.noise * spread * draw(tuple(latents.shape), latents, generator)
            if (number + 1) % config.sync_every == 0 or number + 1 == config.steps:
                latents.data = self._synchronise(search, cost, actions).data
                if search.reached(config.cost_tolerance):
                    break
        return search.plan()

    @torch.no_grad()
    def _synchronise(self, search: Search, cost: LatentCost, actions: Tensor) -> Float[Tensor, "B K G N D"]:
        """Replace the virtual latents by a rollout, and report the costs of the plans to `search`."""
        actions = actions.detach()
        taken = cost.taken(actions)
        imagined = Imagined(rollout(cost.dynamics, cost.state, taken), taken)
        search.note(actions, cost.of(imagined))
        return imagined.latents[:, :, :-1].clone().requires_grad_()

    def _steps(
        self, cost: LatentCost, latents: Float[Tensor, "B K G N D"], actions: Float[Tensor, "B K H A"]
    ) -> Float[Tensor, "B K H N D"]:
        """One step from the current state and from each of the G = H-1 virtual latents, in parallel."""
        plans, horizon = actions.shape[1:3]
        _, first = cost.dynamics.step(cost.state.repeat(plans), actions[:, :, 0].flatten(0, 1))
        first = first.mean().unflatten(0, actions.shape[:2])[:, :, None]
        if horizon == 1:
            return first
        here = latents.detach().flatten(0, 2)
        state = cost.dynamics.initial_state(here[:, None], actions.new_zeros(len(here), 0, actions.shape[-1]))
        _, later = cost.dynamics.step(state, actions[:, :, 1:].flatten(0, 2))
        return torch.cat((first, later.mean().unflatten(0, latents.shape[:3])), 2)
