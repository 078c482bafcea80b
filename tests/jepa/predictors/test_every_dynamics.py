"""Every kind of dynamics that a config can name keeps the contract, as it is built from its config."""

from typing import Annotated, Any

import pytest
import torch

from jepa.config import Config, from_dict, part
from jepa.encoders.conv import ConvEncoder
from jepa.encoders.frame import FrameEncoder
from jepa.events import EventLayout
from jepa.models.build import build_dynamics
from jepa.normalize import NormalizationStats
from jepa.planners.cost import Rollout
from jepa.predictors import PREDICTORS, mlp
from jepa.predictors.base import Predictor, PredictorConfig
from jepa.predictors.causal import CausalPredictor
from jepa.testing import check_dynamics
from jepa.training.normalization import fit_normalization
from jepa.world_model import rollout

pytestmark = pytest.mark.usefixtures("one_thread")
BLOCK = 4  # width of the actions of a latent step
EVENTS = EventLayout(action_size=2, names=("close", "open", "move"), frames=2)
SMALL = {"hidden": 24, "depth": 2, "heads": 2}
# Of each kind some settings; tokens: 1 for a vector, 4 for patches. A new kind has to be added here.
CASES: dict[str, list[tuple[int, dict[str, Any]]]] = {
    "mlp": [
        (1, {"hidden": 24}),
        (1, {"hidden": 24, "depth": 2, "normalize_actions": True}),
        (1, {"hidden": 24, "static": 3}),
    ],
    "gru": [(1, {}), (1, {"layer_norm_out": True, "normalize_actions": True})],
    "mdn_rnn": [
        (1, {"hidden": 16}),
        (4, {"hidden": 16, "gaussians": 2, "point": "mode", "normalize_actions": False}),
    ],
    "rssm": [
        (1, {"recurrent_size": 24, "hidden": 16, "blocks": 4, "categoricals": 40, "classes": 3}),
        (4, {"recurrent_size": 16, "hidden": 8, "categoricals": 5, "point": "mean", "normalize_actions": False}),
    ],
    "causal": [
        (1, SMALL | {"window": 3, "conditioning": "adaln"}),
        (4, SMALL | {"layer_norm_out": True}),
        (4, SMALL | {"conditioning": "concat", "window": 3, "head_dim": 8, "normalize_actions": True}),
        (4, SMALL | {"conditioning": "concat", "state_size": 3, "next_state": "predicted", "normalize_states": True}),
        (4, SMALL | {"conditioning": "token", "state_size": 4, "next_state": "add_action", "window": 2}),
        (4, SMALL | {"conditioning": "adaln", "state_size": 2, "next_state": "predicted", "head_dim": 6}),
    ],
    "latent_variable": [
        (1, {"variables": 3, "memory": 8, "hidden": 16}),
        (4, {"variables": 5, "memory": 8, "hidden": 16, "layers": 1, "normalize_actions": False}),
    ],
    "unrolled": [
        (1, {"state": 16, "hidden": 24, "enter": 12, "leave": 8}),
        (4, {"state": 16, "hidden": 24, "depth": 1, "normalize_actions": False}),
    ],
    "hybrid": [
        (1, {"pattern": "M-M*-M-", "hidden": 24, "mamba_heads": 3, "mamba_head_dim": 8, "mamba_state": 8}),
        (4, {"pattern": "M*-", "hidden": 24, "mamba_heads": 2, "window": 2, "chunk": 3, "layer_norm_out": True}),
        (4, {"pattern": "*-*-", "hidden": 24, "normalize_actions": True}),
    ],
    "cdit": [
        (1, SMALL | {"steps": 4, "context": 1, "normalize_actions": True}),
        (4, SMALL | {"steps": 2, "point": "mode"}),
    ],
}


class Named(Config):
    dynamics: Annotated[PredictorConfig, part(PREDICTORS)]


def test_no_kind_of_dynamics_is_forgotten_here() -> None:
    assert set(CASES) == set(PREDICTORS), "add settings of the new kind to CASES"


EVERY = pytest.mark.parametrize(
    ("kind", "tokens", "settings"), [(kind, *case) for kind, cases in CASES.items() for case in cases]
)


def built(kind: str, tokens: int, settings: dict[str, Any], events: EventLayout | None = None) -> Predictor:
    """Dynamics over small latents, whose weights are none of a fresh model's."""
    torch.manual_seed(0)
    encoder = (
        ConvEncoder(ConvEncoder.Config(width=12, channels=8, hidden=16), 32, 4)
        if tokens == 1
        else FrameEncoder(FrameEncoder.Config(model="test_vit"), 32, 4)
    )
    config = from_dict({"dynamics": {"kind": kind} | settings}, Named).dynamics
    dynamics = build_dynamics(config, encoder, BLOCK, events)
    moments = [NormalizationStats(torch.rand(n), torch.rand(n) + 0.5) if n else None for n in (2, dynamics.state_size)]
    fit_normalization(dynamics, *moments)
    with torch.no_grad():  # a fresh model hardly hears of actions, and gates may be closed
        for parameter in dynamics.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
    return dynamics


@EVERY
def test_dynamics_keep_the_contract_as_they_are_built_from_a_config(
    kind: str, tokens: int, settings: dict[str, Any]
) -> None:
    dynamics = built(kind, tokens, settings)
    width = dynamics.state_size
    sizes = {"tokens": tokens, "width": dynamics.width, "action_size": BLOCK}
    check_dynamics(dynamics, **sizes, state_size=width, parallel=dynamics.parallel, tolerance=2e-5)
    if isinstance(dynamics, CausalPredictor) and width:
        with pytest.raises(ValueError, match=f"states {width} wide at every frame, found None"):
            dynamics.initial_state(torch.zeros(1, 1, tokens, dynamics.width), torch.zeros(1, 0, BLOCK))


@EVERY
def test_events_are_a_condition_of_every_dynamics_and_plain_actions_are_those_without(
    kind: str, tokens: int, settings: dict[str, Any]
) -> None:
    dynamics = built(kind, tokens, settings, EVENTS).eval()
    z = torch.randn(3, 2, tokens, dynamics.width)
    plain = torch.randn(3, 2, BLOCK)
    states = torch.randn(3, 2, dynamics.state_size) if dynamics.state_size else None
    event = EVENTS.complete(plain)
    assert event.shape == (3, 2, EVENTS.width) and not EVENTS.split(event)[1].any()
    torch.testing.assert_close(EVENTS.plain(event), plain, rtol=0, atol=0)
    event[0, 1, -1] = 1  # the last event, in the second frame of the step
    with torch.no_grad():
        state = dynamics.initial_state(z, plain[:, :1], states)
        expected = dynamics.step(state, plain[:, 1])[1].mean()
        state = dynamics.initial_state(z, EVENTS.complete(plain[:, :1]), states)
        without, prompted = (dynamics.step(state, a)[1].mean() for a in (EVENTS.complete(plain)[:, 1], event[:, 1]))
        later = dynamics.step(dynamics.step(state, event[:, 1])[0], plain[:, 1])[1].mean()
    torch.testing.assert_close(without, expected)
    torch.testing.assert_close(prompted[1:], expected[1:], rtol=1e-4, atol=1e-5)
    assert (prompted[0] - expected[0]).abs().max() > 1e-4 and later.isfinite().all()
    with pytest.raises(ValueError, match=f"actions {EVENTS.width} wide"):
        dynamics.step(state, torch.zeros(3, BLOCK + 1))


@pytest.mark.parametrize("settings", [{"depth": 2}, {"hidden": 15, "static": 3}, {"hidden": 25}])
def test_the_last_latents_alone_are_those_of_whole_rollouts(
    settings: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(mlp, "ROWS", 4)
    torch.manual_seed(0)
    dynamics = mlp.MLPPredictor(mlp.MLPPredictor.Config(**{"hidden": 16} | settings), 12, BLOCK)
    dynamics.scale_actions.load_state_dict({"mean": torch.rand(BLOCK), "std": torch.rand(BLOCK) + 0.5})
    z, actions = torch.randn(2, 1, 1, 12), torch.randn(2, 5, 3, BLOCK)
    start = dynamics.initial_state(z, actions[:, 0, :0])
    steps = Rollout(dynamics, start, actions).last  # with gradients: step by step
    with torch.no_grad():
        end = Rollout(dynamics, start, actions).last
        both = Rollout(dynamics, start, actions)
        assert both.latents[:, :, -1:].equal(both.last)
    assert (dynamics.imagine_end is None) == (dynamics.config.hidden > 24)
    assert steps.requires_grad and not end.requires_grad and end.shape == (2, 5, 1, 1, 12)
    torch.testing.assert_close(end, steps.detach(), rtol=1e-5, atol=1e-5)
    end.mul_(2)  # an ordinary tensor


@pytest.mark.parametrize("settings", [{"depth": 2, "normalize_actions": True}, {"static": 3}])
def test_plans_imagined_at_once_are_what_steps_give(settings: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(mlp, "ROWS", 4)  # so that the plans do not divide into whole parts
    torch.manual_seed(0)
    dynamics = mlp.MLPPredictor(mlp.MLPPredictor.Config(hidden=24, **settings), 12, BLOCK)
    dynamics.scale_actions.load_state_dict({"mean": torch.rand(BLOCK), "std": torch.rand(BLOCK) + 0.5})
    z, actions = torch.randn(2, 1, 1, 12), torch.randn(2, 5, 3, BLOCK)
    start = dynamics.initial_state(z, actions[:, 0, :0])
    with_gradients = rollout(dynamics, start, actions)  # step by step
    with torch.no_grad():
        at_once = rollout(dynamics, start, actions)
    assert with_gradients.requires_grad and not at_once.requires_grad
    assert at_once.shape == (2, 5, 3, 1, 12)
    torch.testing.assert_close(at_once, with_gradients.detach(), rtol=0, atol=1e-6)
    at_once.mul_(2)  # an ordinary tensor, which later code may change and differentiate through


def test_a_subclass_with_steps_of_its_own_is_rolled_out_by_them() -> None:
    class Still(mlp.MLPPredictor):
        def predict(self, z: torch.Tensor, action: torch.Tensor) -> torch.Tensor:
            return z

    dynamics = Still(mlp.MLPPredictor.Config(hidden=24), 12, BLOCK)
    z = torch.randn(2, 1, 1, 12)
    with torch.no_grad():
        plans = Rollout(dynamics, dynamics.initial_state(z, torch.zeros(2, 0, BLOCK)), torch.randn(2, 5, 3, BLOCK))
        assert plans.last.equal(z[:, :, None].expand(-1, 5, 1, -1, -1))
        assert plans.latents.equal(z[:, :, None].expand(-1, 5, 3, -1, -1))
