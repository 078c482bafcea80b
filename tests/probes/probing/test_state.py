"""Ridge regression of the world's state."""

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import Tensor

from jepa_probes.probing.features import Features
from jepa_probes.probing.reduction import Reduction
from jepa_probes.probing.state import StateScores, _Problem, find_targets, fit_state, headline, mean_state

Make = Callable[..., Features]
World = Callable[..., Tensor]


def mixed(states: Tensor, width: int, seed: int, noise: float = 0.0) -> Tensor:
    """Latents [E, S, 2, width] in which the states stand linearly, mixed with one another and with noise."""
    columns = [t.column for t in find_targets(NAMES) if t.moving]
    known = states[..., columns].nan_to_num()
    mixing = torch.randn(len(columns), 2 * width, generator=torch.Generator().manual_seed(99))
    noisy = torch.randn(*known.shape[:2], 2 * width, generator=torch.Generator().manual_seed(seed))
    return (known @ mixing + noise * noisy + 3).unflatten(-1, (2, width))


NAMES = tuple(f"{disc}.{what}" for disc in ("puck", "body0") for what in ("x", "y", "vx", "vy", "visible", "contact"))


def moving(scores: StateScores) -> dict[str, float | None]:
    """R² of groups of positions and velocities. Contacts are all 0 in this world, and are not scored."""
    return {name: r2 for name, r2 in scores.groups.items() if "position" in name or "velocity" in name}


def test_a_latent_that_holds_the_state_linearly_scores_nearly_one(world: World, features: Make) -> None:
    train, test = world(80, 0), world(30, 1)
    scores = fit_state(features(mixed(train, 16, 0, 0.01), train)).score(
        features(mixed(test, 16, 1, 0.01), test, start=1000)
    )
    assert scores.state_r2 is not None and scores.state_r2 > 0.99
    assert set(scores.groups) >= {"puck.position", "puck.velocity", "bodies.position", "bodies.velocity"}
    assert all(r2 is not None and r2 > 0.95 for r2 in moving(scores).values())
    assert scores.state_r2 == pytest.approx(np.mean([scores.columns[f"puck.{c}"] for c in ("x", "y", "vx", "vy")]))


def test_noise_scores_about_zero_and_not_far_below(world: World, features: Make) -> None:
    train, test = world(80, 0), world(40, 1)
    noise = [torch.randn(n, 10, 1, 200, generator=torch.Generator().manual_seed(n)) for n in (80, 40)]
    scores = fit_state(features(noise[0], train)).score(features(noise[1], test))
    # Hidden steps all lie at x > 0.6, so that of them the overall mean is a bad guess.
    shown = [r2 for name, r2 in moving(scores).items() if "occluded" not in name]
    assert len(shown) == 4 and all(r2 is not None and -0.1 < r2 < 0.05 for r2 in shown)


def test_the_mean_predictor_scores_zero_or_just_below(world: World, features: Make) -> None:
    train, test = world(200, 0, absent=0.3), world(100, 1, absent=0.3)
    blind = torch.zeros(200, 10, 1, 4)
    scores = mean_state(features(blind, train)).score(features(blind[:100], test))
    assert all(r2 is not None and -0.1 < r2 <= 0 for name, r2 in moving(scores).items() if "occluded" not in name)


def test_the_closed_form_is_the_least_squares_solution_of_the_penalised_problem() -> None:
    g = torch.Generator().manual_seed(0)
    x, y = torch.randn(30, 7, 12, generator=g) + 2, torch.randn(30, 7, 3, generator=g) - 1
    order, n = torch.arange(30), 30 * 7
    problem = _Problem.of(x, y, torch.arange(3), order[:20], order[20:])
    for penalty in (1e-6, 0.1, 10.0):
        weight, bias = problem.solve([penalty] * 3)
        # Oracle: ordinary least squares on rows extended by the penalty, the bias as a column that is not penalised.
        a = np.r_[np.c_[x.flatten(0, 1), np.ones(n)], np.c_[np.sqrt(n * penalty) * np.eye(12), np.zeros(12)]]
        b = np.r_[y.flatten(0, 1), np.zeros((12, 3))]
        expected = np.linalg.lstsq(a, b, rcond=None)[0]
        np.testing.assert_allclose(np.r_[weight, bias[None]], expected, atol=1e-5)


def test_the_held_out_score_of_a_penalty_is_that_of_a_probe_fitted_without_these_episodes() -> None:
    g = torch.Generator().manual_seed(1)
    x = torch.randn(30, 5, 8, generator=g)
    y = x[..., :2] + 0.5 * torch.randn(30, 5, 2, generator=g)
    fit, held = torch.arange(22), torch.arange(22, 30)
    scored = _Problem.of(x, y, torch.arange(2), fit, held).held_out_r2()
    for row, penalty in ((0, 1e-6), (5, 0.1), (7, 10.0)):
        weight, bias = _Problem.of(x[fit], y[fit], torch.arange(2), fit[:11], fit[11:]).solve([penalty] * 2)
        truth = y[held].flatten(0, 1)
        errors = (x[held] @ weight + bias).flatten(0, 1) - truth
        expected = 1 - errors.square().sum(0) / (truth - truth.mean(0)).square().sum(0)
        torch.testing.assert_close(scored[row], expected, atol=1e-4, rtol=0)


def test_a_noisy_group_gets_a_stronger_penalty_than_a_clear_one(world: World, features: Make) -> None:
    train = world(60, 0)
    latents = torch.cat([train[..., :2], torch.randn(60, 10, 150, generator=torch.Generator().manual_seed(0))], -1)
    penalties = fit_state(features(latents[:, :, None], train)).penalties
    assert penalties["puck.position"] < penalties["bodies.velocity"]


def test_test_episodes_have_no_say_in_the_fitted_probe(world: World, features: Make) -> None:
    train, test = world(60, 0), world(20, 1)
    fitted = features(mixed(train, 8, 0, 1.0), train)
    probe, again = fit_state(fitted), fit_state(fitted)
    shuffled = features(mixed(test, 8, 1, 1.0), test[torch.randperm(20)])
    before = probe.weight.clone()
    probe.score(shuffled)
    assert torch.equal(probe.weight, before) and torch.equal(probe.weight, again.weight)
    assert torch.equal(probe.bias, again.bias) and probe.penalties == again.penalties


def test_rows_of_an_absent_disc_are_left_out_and_counted_and_do_not_matter(world: World, features: Make) -> None:
    train, test = world(120, 0, absent=0.4), world(60, 1, absent=0.4)
    gone = int(test[:, 0, NAMES.index("body0.x")].isnan().sum())
    latents, held = mixed(train, 16, 0, 0.01), mixed(test, 16, 1, 0.01)
    absent = train[:, 0, NAMES.index("body0.x")].isnan()
    assert 0 < gone < 60 and 0 < int(absent.sum()) < 120
    probe = fit_state(features(latents, train))
    scores = probe.score(features(held, test))
    assert scores.dropped["body0.x"] == gone * 10 and scores.samples["body0.x"] == (60 - gone) * 10
    assert scores.dropped["puck.x"] == 0
    assert all(r2 is not None and r2 > 0.95 for r2 in moving(scores).values())
    assert probe.weight.isfinite().all() and probe.bias.isfinite().all()


def test_hidden_steps_are_scored_by_themselves_where_there_are_enough(world: World, features: Make) -> None:
    train, test = world(80, 0), world(40, 1)
    latents, held = mixed(train, 16, 0, 0.01), mixed(test, 16, 1, 0.01)
    hidden = test[..., NAMES.index("body0.visible")] == 0
    held[hidden] = held[~hidden].mean(0)  # under the cover the latent says nothing
    scores = fit_state(features(latents, train)).score(features(held, test))
    # Velocities have two columns, each of which is hidden in the same rows.
    assert scores.occluded["bodies.velocity"] == 2 * int(hidden.sum()) > 100
    seen, unseen = scores.groups["bodies.velocity"], scores.groups["bodies.velocity.occluded"]
    assert seen is not None and unseen is not None and unseen < 0.1 < seen
    few = scores_of_few(world, features)
    assert "bodies.position.occluded" not in few.groups and few.occluded["bodies.position"] > 0


def scores_of_few(world: World, features: Make):
    train, test = world(20, 0), world(4, 1)
    test[..., NAMES.index("body0.visible")] = 1.0
    test[0, :3, NAMES.index("body0.visible")] = 0.0
    return fit_state(features(mixed(train, 8, 0), train)).score(features(mixed(test, 8, 1), test))


def test_a_disc_that_training_never_shows_is_not_scored_and_breaks_nothing(world: World, features: Make) -> None:
    train, test = world(30, 0, absent=1.0), world(20, 1, absent=1.0)
    scores = fit_state(features(mixed(train, 8, 0), train)).score(features(mixed(test, 8, 1), test))
    assert scores.groups["bodies.position"] is None and scores.columns["body0.vx"] is None
    assert scores.state_r2 is not None and scores.state_r2 > 0.99


def test_a_collapsed_latent_scores_no_better_than_the_mean(world: World, features: Make) -> None:
    train, test = world(60, 0), world(30, 1)
    for width in (8, 1100):
        constant = torch.full((60, 10, 1, width), 0.3)
        scores = fit_state(features(constant, train)).score(features(constant[:30], test))
        assert scores.state_r2 is not None and -0.1 < scores.state_r2 <= 0.001


def named(states: Tensor, names: tuple[str, ...], seed: int, *, start: int = 0, blind: int = 0) -> Features:
    """Episodes whose latents hold all states but the last `blind`, mixed."""
    known = states[..., : states.shape[-1] - blind]
    mixing = torch.randn(known.shape[-1], 8, generator=torch.Generator().manual_seed(99))
    noise = 0.01 * torch.randn(*states.shape[:2], 8, generator=torch.Generator().manual_seed(seed))
    keys = tuple(f"episode-{start + i}" for i in range(len(states)))
    return Features((known @ mixing + noise)[:, :, None], states, {}, keys, names)


def drawn(episodes: int, columns: int, seed: int) -> Tensor:
    return torch.randn(episodes, 10, columns, generator=torch.Generator().manual_seed(seed))


def test_states_of_a_robot_are_all_probed_each_with_a_penalty_of_its_own() -> None:
    names = ("observation.state.0", "observation.state.1", "joint.elbow", "gripper", "reward")
    train, test = named(drawn(60, 5, 0), names, 0, blind=1), named(drawn(30, 5, 1), names, 1, start=100, blind=1)
    probe = fit_state(train)
    scores = probe.score(test)
    assert list(scores.columns) == list(names) == list(probe.penalties)
    assert list(scores.groups) == ["observation.state", "joint", "gripper", "reward"]
    assert all(r2 is not None and r2 > 0.99 for name, r2 in scores.columns.items() if name != "reward")
    unknown = scores.columns["reward"]
    assert unknown is not None and -0.1 < unknown < 0.05 and probe.penalties["reward"] > probe.penalties["gripper"]
    assert scores.state_r2 == pytest.approx(sum(r2 for r2 in scores.columns.values() if r2 is not None) / 5)


def test_positions_are_grouped_as_before_beside_states_of_any_other_name() -> None:
    names = ("a.x", "a.y", "a.vx", "a.vy", "body0.z", "body1.z", "a.angle", "joint", "joint.elbow", "a.visible")
    targets = {t.name: t.group for t in find_targets(names)}
    assert targets == {
        "a.x": "a.position",
        "a.y": "a.position",
        "a.vx": "a.velocity",
        "a.vy": "a.velocity",
        "body0.z": "bodies.position",
        "body1.z": "bodies.position",
        "a.angle": "a",
        "joint": "joint",
        "joint.elbow": "joint.*",  # "joint" is a state itself
    }
    assert [t.name for t in headline(find_targets(names))] == list(names[:6])
    assert [t.name for t in headline(find_targets(("puck.x", "puck.contact", "body0.x")))] == ["puck.x"]
    assert find_targets(()) == () and [t.name for t in find_targets(("lamp.visible",))] == ["lamp.visible"]


@pytest.mark.parametrize(("offset", "spread"), [(1000.0, 0.1), (10_000.0, 1.0), (0.0, 1e-5)])
def test_the_mean_scores_zero_whatever_offset_and_unit_a_state_has(offset: float, spread: float) -> None:
    states = offset + spread * drawn(90, 1, 0)
    truth = states[60:].double()
    latents = ((states - offset) / spread)[:, :, None]
    keys = tuple(map(str, range(90)))
    train, test = (
        Features(latents[part], states[part], {}, keys[part], ("tank.level",)) for part in (slice(60), slice(60, 90))
    )
    expected = 1 - (truth - states[:60].double().mean()).square().sum() / (truth - truth.mean()).square().sum()
    assert mean_state(train).score(test).state_r2 == pytest.approx(expected.item(), abs=1e-6)
    assert fit_state(train).score(test).state_r2 == pytest.approx(1, abs=1e-4)
    flat = replace(train, latents=0 * train.latents), replace(test, latents=0 * test.latents)
    assert fit_state(flat[0]).score(flat[1]).state_r2 == pytest.approx(expected.item(), abs=1e-6)


def test_a_feature_that_training_never_varies_says_nothing_in_testing() -> None:
    states, keys = drawn(90, 1, 0), tuple(map(str, range(90)))
    latents = torch.cat([states, torch.full_like(states, 5.0)], -1)[:, :, None]
    latents[:60, ..., 1] += 1e-5 * drawn(60, 1, 1)
    latents[60:, ..., 1] += drawn(30, 1, 2)
    train, test = (Features(latents[p], states[p], {}, keys[p], ("level",)) for p in (slice(60), slice(60, 90)))
    assert fit_state(train).score(test).state_r2 == pytest.approx(1, abs=1e-3)


def test_infinite_states_are_left_out_and_counted_apart_from_missing_ones() -> None:
    train, test = named(drawn(60, 2, 0), ("a", "b"), 0), named(drawn(30, 2, 1), ("a", "b"), 1, start=100)
    expected = fit_state(train).score(test)
    train.states[:, 0, 0], test.states[0, :3, 0], test.states[1, :2, 0] = torch.inf, -torch.inf, torch.nan
    probe = fit_state(train)
    scores = probe.score(test)
    assert probe.weight.isfinite().all() and probe.bias.isfinite().all()
    assert scores.infinite == {"a": 3} and scores.dropped == {"a": 5, "b": 0} and scores.samples == {"a": 295, "b": 300}
    assert scores.columns["a"] == pytest.approx(expected.columns["a"], abs=1e-3)
    floor = mean_state(train).score(test).columns["a"]
    assert floor is not None and -0.1 < floor <= 0


def test_wide_features_are_cut_to_the_components_that_hold_the_variance() -> None:
    g = torch.Generator().manual_seed(0)
    hidden, mixing = torch.randn(400, 6, generator=g), torch.randn(6, 2000, generator=g)
    rows = hidden @ mixing + 5
    for width in (1200, 2000):  # the covariance of the features; that of the rows
        reduction = Reduction.fit(rows[:, :width], 10)
        reduced = reduction(rows[:, :width])
        assert reduced.shape[1] <= 10
        # The six directions that vary are kept whole: the hidden numbers can be read off them exactly.
        known = torch.cat([reduced[:, :6], torch.ones(400, 1)], 1)
        torch.testing.assert_close(known @ torch.linalg.lstsq(known, hidden).solution, hidden, atol=1e-2, rtol=0)
        torch.testing.assert_close(reduced[:, :6].T @ reduced[:, :6] / 400, torch.eye(6), atol=1e-2, rtol=0)
