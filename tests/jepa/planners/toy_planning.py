"""Planners and a toy world for them: exact dynamics in which an action is added to the latent."""

import torch
from torch import Tensor

from jepa.planners.base import Planner
from jepa.planners.cem import CEM
from jepa.planners.cost import LatentCost, Term
from jepa.planners.gradient import Gradient
from jepa.planners.grasp import GRASP
from jepa.planners.hybrid import Hybrid
from jepa.planners.icem import ICEM
from jepa.planners.mixture import Mixture
from jepa.planners.mppi import MPPI
from jepa.predictors.base import LatentState
from jepa.world_model import Deterministic

PLANNERS: dict[str, Planner] = {
    "cem": CEM(CEM.Config(samples=200, elites=20, iterations=12, min_std=1e-3)),
    "icem": ICEM(ICEM.Config(samples=300, elites=20, iterations=12, min_std=1e-3, beta=0.5)),
    "mppi": MPPI(MPPI.Config(samples=240, elites=30, iterations=16, min_std=1e-3, temperature=1.0)),
    "mixture": Mixture(Mixture.Config(samples=240, elites=4, iterations=16, std=0.7, min_std=1e-3, beta=0)),
    "gradient": Gradient(Gradient.Config(steps=100, lr=0.05, starts=4)),
    "hybrid": Hybrid(
        Hybrid.Config(sampler=CEM.Config(iterations=4), refine=Gradient.Config(steps=60, lr=0.02, starts=1))
    ),
    "grasp": GRASP(GRASP.Config(steps=120, lr=0.05, starts=4)),
}
BUDGET = 4000  # candidates for each episode, about


class Add:
    """Exact dynamics of a toy world: the action is added to the latent."""

    context = 1
    state_size = 0

    def initial_state(self, z: Tensor, actions: Tensor, states: Tensor | None = None) -> LatentState:
        return LatentState(z[:, -1])

    def step(
        self, state: LatentState, action: Tensor, noise: Tensor | None = None, temperature: float = 1.0
    ) -> tuple[LatentState, Deterministic]:
        z = state.z + action[:, None]
        return LatentState(z), Deterministic(z)


def generator() -> torch.Generator:
    return torch.Generator().manual_seed(0)


def quadratic(best: Tensor) -> LatentCost:
    """A `LatentCost`, so that GRASP can have it: the actions themselves shall be `best`."""
    state = LatentState(torch.zeros(len(best), 1, best.shape[-1]))
    apart = Term(lambda imagined: (imagined.actions - best[:, None]).square().sum((-2, -1)))
    return LatentCost(Add(), state, (apart,))
