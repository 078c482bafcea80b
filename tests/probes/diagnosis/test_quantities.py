"""States as numbers: what is an angle, what belongs together, and errors in the units of the world."""

import math

import pytest
import torch

from jepa.planners.cem import CEM
from jepa.planners.gradient import Gradient
from jepa.planners.hybrid import Hybrid
from jepa.planners.random_shooting import RandomShooting
from jepa_probes.diagnosis.cost_quality import share_below, spearman
from jepa_probes.diagnosis.open_loop import measure_exploitation
from jepa_probes.diagnosis.quantities import StateCode, kind_of, read_out
from jepa_probes.planning.settings import enlarged
from jepa_probes.probing.features import Features

NAMES = ("puck.x", "puck.y", "puck.vx", "puck.visible", "body0.x", "body1.x", "block.angle", "wrist.speed", "light")


def code(rows: int = 400) -> tuple[StateCode, torch.Tensor]:
    states = torch.rand(rows, len(NAMES), generator=torch.Generator().manual_seed(0))
    states[:, 6] *= 2 * math.pi
    states[: rows // 2, 5] = torch.nan
    return StateCode.fit(NAMES, states), states


def test_quantities_are_named_by_body_and_kind() -> None:
    found = {quantity.name: quantity.kind for quantity in code()[0].quantities}
    assert found == {
        "puck.position": "position",
        "puck.velocity": "velocity",
        "bodies.position": "position",
        "block.angle": "angle",
        "wrist.speed": "velocity",
        "light": "other",
    }
    assert kind_of("pole.theta") == "angle" and kind_of("puck.contact") is None


def test_numbers_are_standardized_and_missing_ones_stay_missing() -> None:
    made, states = code()
    numbers = made.encode(states)
    there = torch.where(numbers.isfinite(), numbers, torch.nan)
    assert torch.allclose(there.nanmean(0), torch.zeros(9), atol=1e-4)
    assert torch.allclose(there.square().nanmean(0), torch.ones(9), atol=1e-3)
    assert numbers[:200, made.of_states(["body1.x"])].isnan().all()
    assert len(made.of_states(["block.angle"])) == 2


def test_errors_are_in_the_units_of_the_world_and_angles_in_degrees_across_a_turn() -> None:
    made, states = code()
    other = states.clone()
    other[:, 0] += 0.3
    other[:, 1] += 0.4
    other[:, 6] = (states[:, 6] + math.radians(350)) % (2 * math.pi)
    missed = {q.name: made.error(q, made.encode(other), made.encode(states)) for q in made.quantities}
    assert missed["puck.position"] == pytest.approx(0.5, abs=1e-4)
    assert missed["block.angle"] == pytest.approx(10.0, abs=1e-2)
    assert missed["bodies.position"] == pytest.approx(0.0, abs=1e-6)
    perfect = {q.name: made.r2(q, made.encode(states), made.encode(states)) for q in made.quantities}
    assert perfect == dict.fromkeys(perfect, pytest.approx(1.0))


@pytest.mark.parametrize("known", ["everything", "all but the angle"])
def test_a_read_out_has_every_kind_of_state_and_an_angle_counts_as_sine_and_cosine(known: str) -> None:
    """A latent that turns with the block is read in full, which no linear map from it to the raw angle could be."""
    names = ("block.x", "block.y", "block.angle", "block.visible", "door")
    parts = []
    for seed, episodes in ((0, 60), (1, 30)):
        draw = torch.Generator().manual_seed(seed)
        states = torch.rand(episodes, 6, len(names), generator=draw)
        states[..., 2] *= 2 * math.pi
        states[..., 4] = 0.5  # never changes
        turn = [states[..., 2].sin(), states[..., 2].cos()]
        hidden = [torch.rand(x.shape, generator=draw) for x in turn]
        numbers = torch.stack([states[..., 0], states[..., 1], *(turn if known == "everything" else hidden)], -1)
        keys = tuple(f"{seed}-{i}" for i in range(episodes))
        parts.append(Features(numbers[:, :, None], states, {}, keys, names))
    scores = read_out(*parts)
    assert list(scores) == ["state_r2", "block.position_r2", "block.angle_r2"]
    assert scores["block.position_r2"] == pytest.approx(scores["state_r2"]) and scores["state_r2"] > 0.99
    if known == "everything":
        assert scores["block.angle_r2"] > 0.99
    else:
        assert scores["block.angle_r2"] < 0.1


def test_more_search_is_as_many_times_as_many_plans() -> None:
    more = enlarged(CEM.Config(samples=100, elites=10, iterations=4), 9)
    assert more == CEM.Config(samples=300, elites=30, iterations=12)
    assert enlarged(RandomShooting.Config(samples=100), 9) == RandomShooting.Config(samples=900)
    both = enlarged(Hybrid.Config(refine=Gradient.Config(steps=20, starts=1)), 9)
    assert isinstance(both, Hybrid.Config)
    assert both.sampler == more and (both.refine.steps, both.refine.starts) == (60, 3)


def test_rank_correlation_is_of_ranks() -> None:
    costs = torch.rand(3, 50, generator=torch.Generator().manual_seed(0))
    assert spearman(costs, costs.exp()) == pytest.approx(1.0)
    assert spearman(costs, -costs) == pytest.approx(-1.0)
    assert spearman(costs, torch.ones(3, 50)) == 0.0


def test_costs_that_are_as_high_count_half() -> None:
    costs = torch.tensor([[1.0, 2.0, 3.0, 4.0], [2.0, 2.0, 2.0, 2.0]])
    assert share_below(costs, torch.tensor([[3.0], [2.0]])).tolist() == [0.625, 0.5]
    assert share_below(costs * (1 + 1e-7), torch.tensor([[0.5], [2.0]])).tolist() == [0.0, 0.5]


def test_latents_beyond_the_recordings_are_counted() -> None:
    draw = torch.Generator().manual_seed(0)
    train, test = torch.randn(400, 2, 1, 3, generator=draw), torch.randn(200, 2, 1, 3, generator=draw)
    near, far = torch.randn(50, 4, 1, 3, generator=draw), 100 + torch.randn(50, 4, 1, 3, generator=draw)
    found = measure_exploitation([far, near], near, train, test)
    assert found.plans == pytest.approx(0.5, abs=0.05)
    assert found.recorded_actions is not None and found.recorded_actions < 0.05
