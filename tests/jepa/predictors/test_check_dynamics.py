"""The checker of dynamics passes what exists, and names what a broken model breaks."""

import pytest
import torch
from torch import Tensor

from jepa.predictors.base import LatentState
from jepa.predictors.causal import CausalPredictor
from jepa.predictors.gru import GRUPredictor
from jepa.predictors.mlp import MLPPredictor
from jepa.testing import ContractError, check_dynamics
from jepa.transformer import AdaptiveBlock
from jepa.world_model import Deterministic

WIDTH, ACTION = 12, 4


def mlp() -> MLPPredictor:
    torch.manual_seed(0)
    return MLPPredictor(MLPPredictor.Config(hidden=24), WIDTH, ACTION)


def test_the_markov_predictor_passes() -> None:
    check_dynamics(mlp(), tokens=1, width=WIDTH, action_size=ACTION)


def test_the_gru_passes_and_stays_in_training_mode() -> None:
    torch.manual_seed(0)
    gru = GRUPredictor(GRUPredictor.Config(), WIDTH, ACTION).train()
    check_dynamics(gru, tokens=1, width=WIDTH, action_size=ACTION)
    assert gru.training


@pytest.mark.parametrize("grid", [(1, 1), (2, 3)])
@pytest.mark.parametrize(
    ("positions", "conditioning", "window"),
    [("rotary", "token", None), ("rotary_tiled", "token", None), ("rotary", "token", 2), ("rotary", "adaln", 2)],
)
def test_the_causal_predictor_passes_with_its_cache_against_the_parallel_pass(
    grid, positions, conditioning, window
) -> None:
    torch.manual_seed(0)
    sizes = {"hidden": 24, "depth": 2, "heads": 2}
    predictor = CausalPredictor(
        CausalPredictor.Config(positions=positions, conditioning=conditioning, window=window, **sizes),
        WIDTH,
        ACTION,
        grid=grid,
    )
    with torch.no_grad():  # adaptive blocks start with closed gates
        for block in predictor.predictor_blocks:
            if isinstance(block, AdaptiveBlock):
                block.modulation.bias.normal_()
                block.modulation.weight.normal_(std=0.1)
    parallel = lambda z, actions: predictor(z, actions, None)  # noqa: E731
    check_dynamics(predictor, tokens=grid[0] * grid[1], width=WIDTH, action_size=ACTION, parallel=parallel)


class Broken(MLPPredictor):
    """One promise is broken, which `how` says."""

    def __init__(self, how: str) -> None:
        torch.manual_seed(0)
        super().__init__(MLPPredictor.Config(hidden=24), WIDTH, ACTION)
        self.how, self.calls = how, 0

    def step(self, state, action, noise=None, temperature=1.0):
        self.calls += 1
        if action.shape[-1] != ACTION and self.how == "width":
            action = action[:, :ACTION]
        if self.how == "gradient":
            action = action.detach()
        next_latent = self(state.z, action)
        if self.how == "mutates":
            state.z.copy_(next_latent)
        if self.how == "batch":
            next_latent = next_latent + next_latent.mean(0, keepdim=True)
        if self.how == "shape":
            next_latent = next_latent[:, :, 1:]
        if self.how == "nan":
            next_latent = next_latent / 0.0 * 0.0
        if self.how == "random":
            return LatentState(next_latent), Noisy(next_latent)
        if self.how == "temperature":
            return LatentState(next_latent), Cold(next_latent)
        return (Ordered if self.how == "repeat" else LatentState)(next_latent), Deterministic(next_latent)


class Noisy(Deterministic):
    def sample(self, noise: Tensor | None = None, temperature: float = 1.0) -> Tensor:
        return self.z + torch.randn_like(self.z)


class Cold(Deterministic):
    def sample(self, noise: Tensor | None = None, temperature: float = 0.5) -> Tensor:
        assert noise is not None
        return self.z + temperature * noise


class Ordered(LatentState):
    def repeat(self, k: int) -> LatentState:
        return LatentState(self.z.repeat(k, 1, 1))


@pytest.mark.parametrize(
    ("how", "promise"),
    [
        ("shape", "a next latent has shape"),
        ("nan", "a next latent is finite"),
        ("mutates", r"step\(\) leaves the state as it was"),
        ("batch", "a row is predicted as if alone"),
        ("repeat", r"repeat\(k\) puts every row k times in a row"),
        ("random", "the same noise gives the same sample"),
        ("temperature", "a sample's temperature is 1 if none is said"),
        ("gradient", "gradients reach the actions"),
        ("width", "an action of another width is refused"),
    ],
)
def test_a_broken_promise_is_named(how: str, promise: str, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ContractError, match=promise):
        check_dynamics(Broken(how), tokens=1, width=WIDTH, action_size=ACTION)


def test_what_has_no_steps_is_no_dynamics() -> None:
    with pytest.raises(ContractError, match=r"Linear has no initial_state\(\) and step\(\)"):
        check_dynamics(torch.nn.Linear(2, 2), tokens=1, width=2, action_size=2)  # pyright: ignore[reportArgumentType]


def test_a_parallel_pass_that_sees_the_future_is_found() -> None:
    def peeks(z: Tensor, actions: Tensor) -> Tensor:
        return z.mean(1, keepdim=True).expand_as(z)

    with pytest.raises(ContractError, match="a step equals the teacher-forced parallel pass"):
        check_dynamics(mlp(), tokens=1, width=WIDTH, action_size=ACTION, parallel=peeks)
