"""Linear, attentive and nearest-neighbor probes, and how their answers are scored."""

from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from jepa_probes.probing.attentive import AttentiveProbe
from jepa_probes.probing.base import ClassProbe
from jepa_probes.probing.features import Features
from jepa_probes.probing.knn import NeighborProbe
from jepa_probes.probing.labels import accuracies, make_task
from jepa_probes.probing.linear import LinearProbe

Make = Callable[..., Features]
LINEAR = LinearProbe(LinearProbe.Config())
NEAREST = NeighborProbe(NeighborProbe.Config())


def clusters(n: int, seed: int, spread: float = 0.3) -> tuple[Tensor, Tensor, list[str]]:
    """Clips [n, 1, 1, 6] around three centers."""
    g = torch.Generator().manual_seed(seed)
    target = torch.randint(0, 3, (n,), generator=g)
    points = 4 + torch.eye(3, 6)[target] + spread * torch.randn(n, 6, generator=g)
    return points[:, None, None], target, names(n)


def names(n: int) -> list[str]:
    return [str(i) for i in range(n)]


def in_order(n: int, seed: int) -> tuple[Tensor, Tensor]:
    """Clips [n, 8, 1, 4] of one event early and another late (class 0), or the other way round (class 1)."""
    g = torch.Generator().manual_seed(seed)
    target = torch.randint(0, 2, (n,), generator=g)
    clips = 0.1 * torch.randn(n, 8, 1, 4, generator=g)
    early, late = torch.randint(0, 4, (n,), generator=g), torch.randint(4, 8, (n,), generator=g)
    clips[torch.arange(n), early, 0, target] += 1
    clips[torch.arange(n), late, 0, 1 - target] += 1
    return clips, target


@pytest.mark.parametrize("probe", [LINEAR, NEAREST])
def test_clusters_are_distinguished(probe: ClassProbe) -> None:
    x, y, keys = clusters(200, 0)
    test_x, test_y, _ = clusters(100, 1)
    answers = probe.fit(x, y, keys, 3, seed=0)(test_x)
    assert (answers == test_y).float().mean() > 0.9


def test_logistic_regression_stands_at_the_minimum_of_its_penalised_loss() -> None:
    x, y, keys = clusters(150, 0, spread=1.0)
    probe = LINEAR.fit(x, y, keys, 3, seed=0)
    weight = probe.weight.clone().requires_grad_()
    rows = torch.cat([probe.reduction(x[:, 0, 0]), torch.ones(150, 1)], 1)
    loss = torch.nn.functional.cross_entropy(rows @ weight, y) + probe.penalty / 2 * weight[:-1].square().sum()
    loss.backward()
    assert weight.grad is not None and weight.grad.abs().max() < 1e-3


def test_a_linear_probe_of_noise_chooses_a_strong_penalty_and_of_clusters_a_weak_one() -> None:
    x, y, keys = clusters(200, 0, spread=0.05)
    noise = torch.randn(200, 1, 1, 100, generator=torch.Generator().manual_seed(0))
    assert LINEAR.fit(x, y, keys, 3, seed=0).penalty < LINEAR.fit(noise, y, keys, 3, seed=0).penalty


def test_neighbors_are_chosen_on_episodes_held_out_of_the_bank() -> None:
    # With every point its own neighbor k = 1 would be perfect on noise; held out, it is not chosen for that.
    g = torch.Generator().manual_seed(0)
    x = torch.randn(300, 1, 1, 4, generator=g)
    y = (torch.rand(300, generator=g) < 0.2).long()
    assert NEAREST.fit(x, y, names(300), 2, seed=0).k > 1


def test_the_attentive_probe_reads_an_order_that_the_mean_does_not_hold() -> None:
    (x, y), (test_x, test_y) = in_order(400, 0), in_order(200, 1)
    attentive = AttentiveProbe(AttentiveProbe.Config(steps=250)).fit(x, y, names(400), 2, seed=0)
    assert (attentive(test_x) == test_y).float().mean() > 0.95
    linear = LINEAR.fit(x, y, names(400), 2, seed=0)
    assert (linear(test_x) == test_y).float().mean() < 0.65


def test_the_attentive_probe_reads_where_among_the_tokens_something_is() -> None:
    g = torch.Generator().manual_seed(0)
    x, y = 0.1 * torch.randn(300, 3, 4, 5, generator=g), torch.randint(0, 2, (300,), generator=g)
    x[torch.arange(300), :, 3 * y, 0] += 1  # the same mark on the first or on the last token
    probe = AttentiveProbe(AttentiveProbe.Config()).fit(x[:200], y[:200], names(200), 2, seed=0)
    assert (probe(x[200:]) == y[200:]).float().mean() > 0.9


@pytest.mark.parametrize("depth", [0, 1])
def test_the_attentive_probe_is_a_function_of_its_seed_and_leaves_the_global_one_alone(depth: int) -> None:
    x, y = in_order(60, 0)
    state = torch.random.get_rng_state()
    probe = AttentiveProbe(AttentiveProbe.Config(steps=5, depth=depth))
    runs = [probe.fit(x, y, names(60), 2, seed=seed).classifier.state_dict() for seed in (0, 0, 1)]
    assert torch.equal(torch.random.get_rng_state(), state)
    assert all(torch.equal(runs[0][name], runs[1][name]) for name in runs[0])
    assert any(not torch.equal(runs[0][name], runs[2][name]) for name in runs[0])


def test_clips_without_the_label_are_left_out_and_counted(features: Make) -> None:
    latents = torch.zeros(6, 2, 1, 3)
    train = features(latents, labels={"heavy": torch.tensor([-1, 0, 5, 5, -1, 5])})
    test = features(latents[:3], labels={"heavy": torch.tensor([5, -1, 0])})
    task = make_task("heavy", train, test)
    assert task is not None
    assert task.classes == (0, 5) and task.train.tolist() == [1, 2, 3, 5] and task.test.tolist() == [0, 2]
    assert task.train_class.tolist() == [0, 1, 1, 1] and task.test_class.tolist() == [1, 0] and task.dropped == 3
    assert task.majority().tolist() == [1, 1]


def test_a_label_with_one_class_is_no_task(features: Make) -> None:
    one = features(torch.zeros(3, 2, 1, 3), labels={"heavy": torch.tensor([1, -1, 1])})
    assert make_task("heavy", one, one) is None


def test_accuracy_counts_clips_and_balanced_accuracy_counts_classes(features: Make) -> None:
    latents = torch.zeros(10, 2, 1, 3)
    made = features(latents, labels={"x": torch.tensor([0] * 8 + [1] * 2)})
    task = make_task("x", made, made)
    assert task is not None
    assert accuracies(task.majority(), task) == pytest.approx({"accuracy": 0.8, "balanced": 0.5})


def test_a_class_that_only_the_test_split_has_counts_as_an_error(features: Make) -> None:
    train = features(torch.zeros(4, 2, 1, 3), labels={"x": torch.tensor([0, 1, 0, 1])})
    test = features(torch.zeros(4, 2, 1, 3), labels={"x": torch.tensor([0, 1, 7, 7])})
    task = make_task("x", train, test)
    assert task is not None and task.trained == 2
    assert accuracies(torch.tensor([0, 1, 0, 1]), task)["accuracy"] == pytest.approx(0.5)
