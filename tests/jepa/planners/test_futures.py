"""Plans under dynamics that predict a distribution: what the best, the worst and the mean choose."""

from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from jepa.agents.policy import PlanSettings, Policy
from jepa.config import UserError
from jepa.planners.cem import CEM
from jepa.planners.cost import LatentCost, Term, goal_reached
from jepa.planners.futures import Futures, Outlook, standard_normal
from jepa.planners.grasp import GRASP
from jepa.predictors.base import LatentState
from jepa.predictors.latent_variable import LatentVariablePredictor
from tests.jepa.agents.test_policy import model

pytestmark = pytest.mark.usefixtures("one_thread")


class Sampled:
    def __init__(self, z: Tensor, std: Tensor) -> None:
        self.z, self.std = z, std

    def mean(self) -> Tensor:
        return self.z

    def sample(self, noise: Tensor | None = None, temperature: float = 1.0) -> Tensor:
        return self.z if noise is None else self.z + temperature * self.std * noise

    def log_prob(self, z: Tensor) -> None:
        return None


class Risky:
    """The action is added to the latent, and with it noise as large as the action is positive."""

    context = 1
    state_size = 0

    def initial_state(self, z: Tensor, actions: Tensor, states: Tensor | None = None) -> LatentState:
        return LatentState(z[:, -1])

    def step(
        self, state: LatentState, action: Tensor, noise: Tensor | None = None, temperature: float = 1.0
    ) -> tuple[LatentState, Sampled]:
        after = Sampled(state.z + action[:, None], 2 * action[:, None].clamp_min(0))
        return LatentState(after.sample(noise, temperature)), after


def cost(outlook: Outlook | None, **settings: Any) -> LatentCost:
    """Goals at +1 and -1 alike: the way to +1 is uncertain, and that to -1 is not."""
    both = Term(lambda imagined: (imagined.latents[:, :, -1, 0, 0].abs() - 1).square())
    futures = None if outlook is None else Futures(standard_normal(16, 1, 1, 1, seed=0), outlook)
    return LatentCost(Risky(), LatentState(torch.zeros(1, 1, 1)), (both,), futures=futures, **settings)


def test_the_worst_future_avoids_risk_and_the_best_one_ignores_it() -> None:
    ways = torch.tensor([1.0, -1.0])[None, :, None, None]
    assert torch.allclose(cost(None)(ways), torch.zeros(1, 2))
    for outlook in ("mean", "worst"):
        risky, certain = cost(outlook)(ways)[0]
        assert risky > 0.5 and certain == pytest.approx(0, abs=1e-6)
    assert cost("best")(ways)[0, 0] < 0.1
    plan = CEM(CEM.Config(samples=64, elites=8, iterations=8)).plan(
        cost("worst"), torch.zeros(1, 1, 1), torch.Generator().manual_seed(0)
    )
    assert plan.actions.item() == pytest.approx(-1, abs=0.05)


def test_the_cost_of_a_plan_depends_on_no_other_plan_and_on_no_chunk() -> None:
    ways = torch.linspace(-1, 1, 7)[None, :, None, None]
    together = cost("mean")(ways)
    assert torch.allclose(together, torch.cat([cost("mean")(ways[:, k : k + 1]) for k in range(7)], 1), atol=1e-6)
    assert torch.allclose(together, cost("mean", max_bytes=1)(ways), atol=1e-6)


def test_futures_follow_the_gradient() -> None:
    ways = torch.tensor([[[[0.5]]]], requires_grad=True)
    cost("mean")(ways).sum().backward()
    assert ways.grad is not None and ways.grad.abs().item() > 0


def test_impossible_futures_are_refused() -> None:
    with pytest.raises(ValueError, match="one future or more"):
        Futures(torch.zeros(0, 1, 1, 1))
    with pytest.raises(ValueError, match="noise for 1 steps, and a plan has 2"):
        cost("mean")(torch.zeros(1, 1, 2, 1))
    with pytest.raises(ValueError, match="GRASP plans one future"):
        GRASP(GRASP.Config()).plan(cost("mean"), torch.zeros(1, 1, 1), torch.Generator())


def test_a_policy_samples_futures_of_a_predictor_of_distributions_alone() -> None:
    acting = model()
    images = np.zeros((2, 32, 32, 3), np.uint8)
    settings = PlanSettings(
        horizon=2, replan_every=1, planner=CEM(CEM.Config(samples=8, elites=2, iterations=1)), futures=3
    )
    with pytest.raises(UserError, match="futures is 3, and these dynamics predict one future"):
        Policy(acting, images, settings)
    torch.manual_seed(0)
    acting.dynamics = LatentVariablePredictor(LatentVariablePredictor.Config(variables=2), 6, 4).eval()
    policy, again = (Policy(acting, images, settings) for _ in range(2))
    np.testing.assert_allclose(policy.act(images), again.act(images), atol=1e-6)
    assert policy.last_plan is not None
    z = acting.encode_image(torch.zeros(2, 3, 32, 32, dtype=torch.uint8))
    of_the_mean = LatentCost(acting.dynamics, LatentState(z), (Term(goal_reached(z)),))
    assert policy.last_plan.cost.shape == (2,) and of_the_mean.futures is None
