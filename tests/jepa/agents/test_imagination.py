"""Learning in dreams: returns, two-hot values, whose weights move, and a toy world that both learners solve."""

import copy
import sys
from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest
import torch
from torch import Tensor

from jepa.agents.controller import ActionSpace, Decision, Linear, ObservationNormalizer
from jepa.agents.imagination.actor_critic import ActorCritic, ReturnScale, lambda_returns
from jepa.agents.imagination.belief import Belief
from jepa.agents.imagination.dream import Dream, Recorded
from jepa.agents.imagination.evolution import Evolution
from jepa.agents.imagination.reward import Distance
from jepa.config import UserError
from jepa.objectives import two_hot
from jepa.predictors.causal import CausalPredictor
from jepa.predictors.gru import GRUPredictor
from jepa.predictors.mlp import MLPPredictor
from jepa.predictors.rssm import RSSM, point
from tests.jepa.agents.point_mass import DREAM, PLACE, SMALL, SPACE, PointMass, generator, push, recorded

pytestmark = pytest.mark.usefixtures("one_thread")


def test_lambda_returns_equal_the_weighted_sum_of_n_step_returns() -> None:
    rewards, values = torch.randn(3, 6, generator=generator()), torch.randn(3, 7, generator=generator(1))
    discount, trace = torch.rand(3, 6, generator=generator(2)), 0.7
    discount[1, 3] = 0.0  # an end

    def n_step(t: int, n: int) -> Tensor:
        found, left = torch.zeros(3), torch.ones(3)
        for i in range(t, t + n):
            found, left = found + left * rewards[:, i], left * discount[:, i]
        return found + left * values[:, t + n]

    found = lambda_returns(rewards, values, discount, trace)
    for t in range(6):
        left = 6 - t
        expected = sum((1 - trace) * trace ** (n - 1) * n_step(t, n) for n in range(1, left))
        torch.testing.assert_close(found[:, t], expected + trace ** (left - 1) * n_step(t, left))
    torch.testing.assert_close(lambda_returns(rewards, values, discount, 0.0), rewards + discount * values[:, 1:])
    later = rewards.clone()
    later[1, 4:] += 9.0
    torch.testing.assert_close(lambda_returns(later, values, discount, trace)[1, :4], found[1, :4])
    with pytest.raises(ValueError, match="expected 7 values for 6 rewards, found 6"):
        lambda_returns(rewards, values[:, 1:], discount, trace)


def test_two_hot_gives_back_what_it_was_given_and_zero_logits_are_exactly_zero() -> None:
    bins = two_hot.symexp_bins()
    assert len(bins) == 255 and torch.equal(bins, -bins.flip(0)) and bins[127] == 0
    assert (bins.diff() > 0).all() and bins[-1] == pytest.approx(np.expm1(20.0), rel=1e-6)
    x = torch.cat([torch.linspace(-50, 50, 999), bins, torch.tensor([1e6, -3e7, 1e-4])])
    weights = two_hot.encode(x, bins)
    torch.testing.assert_close(weights.sum(-1), torch.ones(len(x)))
    assert (weights >= 0).all() and ((weights > 0).sum(-1) <= 2).all()
    torch.testing.assert_close(weights.double() @ bins.double(), x.double(), rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(two_hot.decode(weights.log().clamp_min(-1e4), bins), x, rtol=1e-4, atol=1e-4)
    assert torch.equal(two_hot.decode(torch.zeros(4, 255), bins), torch.zeros(4))
    beyond = two_hot.encode(torch.tensor([1e12, -1e12]), bins)
    assert beyond[0, -1] == 1 and beyond[1, 0] == 1
    with pytest.raises(ValueError, match="odd number of bins"):
        two_hot.symexp_bins(254)


def test_two_hot_cross_entropy_is_least_where_the_logits_are_the_code() -> None:
    bins, x = two_hot.symexp_bins(), torch.tensor([3.3, -70.0])
    logits = torch.zeros(2, 255, requires_grad=True)
    step = torch.optim.Adam([logits], 0.5)
    for _ in range(300):
        step.zero_grad()
        two_hot.cross_entropy(logits, x, bins).sum().backward()
        step.step()
    torch.testing.assert_close(two_hot.decode(logits.detach(), bins), x, rtol=0.01, atol=0.01)


def test_a_decision_is_torchs_gaussian() -> None:
    mean, std = torch.randn(5, 3, generator=generator()), torch.rand(5, 3, generator=generator(1)) + 0.1
    ours, theirs = Decision(mean, std), torch.distributions.Normal(mean, std)
    drawn = ours.sample(generator(2))
    torch.testing.assert_close(ours.log_prob(drawn), theirs.log_prob(drawn).sum(-1))
    torch.testing.assert_close(ours.entropy(), theirs.entropy().sum(-1))


def test_decisions_are_held_and_kept_within_the_bounds() -> None:
    space = ActionSpace(2, frames=4, action_repeat=2)
    decisions = torch.tensor([[3.0, -0.5, 0.6, 0.8]], requires_grad=True)
    block = space.block(decisions)
    assert space.size == 4 and space.block_size == 8
    torch.testing.assert_close(block, torch.tensor([[1, -0.5, 1, -0.5, 0.6, 0.8, 0.6, 0.8]]))
    block.sum().backward()
    assert decisions.grad is not None and (decisions.grad == 2).all()  # straight through what was cut off
    decisions.grad = None
    choice = ActionSpace(2, frames=4, action_repeat=2, bounds="choice").block(decisions)
    assert torch.equal(choice, torch.tensor([[1.0, 0, 1, 0, 0, 1, 0, 1]]))
    (choice * torch.tensor([1.0, 0, 1, 0, 0, 0, 0, 0])).sum().backward()
    assert decisions.grad is not None and (decisions.grad[0].sign() == torch.tensor([1, -1, 0, 0])).all()
    ball = ActionSpace(2, frames=4, action_repeat=2, bounds="ball").block(decisions.detach()).view(4, 2)
    torch.testing.assert_close(ball.norm(dim=-1), torch.ones(4))
    with pytest.raises(ValueError, match="action_repeat must divide the 4 action"):
        ActionSpace(2, frames=4, action_repeat=3)


@pytest.mark.parametrize("gradient", ["reinforce", "dynamics"])
def test_the_actor_learns_and_the_world_model_stays_as_it_was(gradient) -> None:
    torch.manual_seed(0)
    model = MLPPredictor(MLPPredictor.Config(hidden=16), 4, 2)
    assert all(p.requires_grad for p in model.parameters())
    before = copy.deepcopy(model.state_dict())
    learner = ActorCritic(
        SMALL.model_copy(update={"gradient": gradient}), Dream(model, 2, Distance(), None), recorded(), SPACE
    )
    actor, critic = (copy.deepcopy(m.state_dict()) for m in (learner.actor, learner.critic))
    told = learner.update()
    assert all(p.grad is None for p in model.parameters())
    assert all(torch.equal(before[name], x) for name, x in model.state_dict().items())
    assert all(p.grad is not None and p.grad.isfinite().all() for p in learner.actor.parameters())
    assert any(not torch.equal(actor[name], x) for name, x in learner.actor.state_dict().items())
    assert any(not torch.equal(critic[name], x) for name, x in learner.critic.state_dict().items())
    assert {"actor", "critic", "entropy", "return", "scale"} == set(told) and all(np.isfinite(list(told.values())))


def test_the_critic_begins_at_zero_and_the_slow_one_follows_at_its_rate() -> None:
    learner = ActorCritic(SMALL, DREAM, recorded(), SPACE)
    z, goal = learner.recorded.draw(8, generator())
    assert torch.equal(learner.critic.value(z, goal), torch.zeros(8))
    before = copy.deepcopy(learner.slow.state_dict())
    learner.update()
    for name, fast in learner.critic.named_parameters():
        slow = learner.slow.get_parameter(name)
        torch.testing.assert_close(slow, before[name] + 0.02 * (fast - before[name]))
        assert not slow.requires_grad
    assert not torch.equal(learner.slow.network[-1].bias, before["network.6.bias"])


def test_returns_are_scaled_by_their_range_and_never_blown_up() -> None:
    scale = ReturnScale(0.01)
    assert scale.update(torch.linspace(0, 0.1, 101)) == 1.0
    wide = ReturnScale(0.01)
    assert wide.update(torch.linspace(0, 100, 101)) == pytest.approx(90)
    assert wide.update(torch.linspace(0, 200, 101)) == pytest.approx(0.99 * 90 + 0.01 * 180)


def test_the_same_seed_learns_the_same_and_another_does_not() -> None:
    def weights(seed: int) -> list[Tensor]:
        learner = ActorCritic(SMALL, DREAM, recorded(), SPACE, seed=seed)
        learner.train()
        return [*learner.actor.parameters()]

    first, again, other = weights(0), weights(0), weights(1)
    assert all(map(torch.equal, first, again)) and not all(map(torch.equal, first, other))
    few = Evolution.Config(generations=5, population=8, rollouts=4, horizon=3, std=0.5)
    np.random.seed(5)  # noqa: NPY002 - that of the whole process
    state = np.random.get_state()[1].copy()  # noqa: NPY002
    found = [Evolution(few, DREAM, recorded(), SPACE, goals="any", seed=seed).train()[0].weight for seed in (0, 0, 1)]
    assert torch.equal(found[0], found[1]) and not torch.equal(found[0], found[2])
    assert (np.random.get_state()[1] == state).all()  # noqa: NPY002


def test_a_reward_without_gradient_is_refused_where_gradients_are_wanted() -> None:
    dream = replace(DREAM, reward=lambda z, goal: ((z - goal).flatten(1).norm(dim=-1) < 0.1).float())
    learner = ActorCritic(SMALL.model_copy(update={"gradient": "dynamics", "horizon": 2}), dream, recorded(), SPACE)
    with pytest.raises(ValueError, match="use reinforce"):
        learner.update()
    ActorCritic(SMALL, dream, recorded(), SPACE).update()


@pytest.mark.parametrize("gradient", ["reinforce", "dynamics"])
def test_both_learn_in_any_dynamics_and_from_goals_of_several_tokens(gradient) -> None:
    torch.manual_seed(0)
    attentive = (
        CausalPredictor(CausalPredictor.Config(hidden=16, depth=1, heads=2), 8, 4, grid=(2, 1))
        .eval()
        .requires_grad_(False)
    )
    recurrent = GRUPredictor(GRUPredictor.Config(), 8, 4).eval().requires_grad_(False)
    space = ActionSpace(2, frames=2)
    for dynamics, tokens in ((attentive, 2), (recurrent, 1)):
        clips = Recorded(torch.randn(6, 3, tokens, 8, generator=generator()), list("aabbcc"))
        dream = Dream(dynamics, 4, Distance("root"), None)
        told = ActorCritic(SMALL.model_copy(update={"gradient": gradient}), dream, clips, space).update()
        assert all(np.isfinite(list(told.values())))
        few = Evolution.Config(generations=2, population=4, rollouts=2, horizon=3)
        assert np.isfinite(Evolution(few, dream, clips, space).train()[1]).all()


def test_candidates_in_one_batch_are_as_good_as_alone() -> None:
    normalizer = ObservationNormalizer.fitted(recorded().z)
    controller, others = Linear(normalizer, SPACE), torch.randn(3, 18, generator=generator())
    z, goal = recorded().draw(12, generator(), "any")
    together = controller.act_all(others, z, goal)
    for number, parameters in enumerate(others):
        controller.set(parameters)
        rows = slice(4 * number, 4 * number + 4)
        torch.testing.assert_close(controller.act(z[rows], goal[rows]), together[rows])


def test_evolution_needs_cma_and_says_how_to_get_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "cma", None)
    with pytest.raises(UserError, match=r"pip install 'openjepa\[dream\]'"):
        Evolution(Evolution.Config(generations=1), DREAM, recorded(), SPACE).train()


@pytest.mark.parametrize(("mirrored", "pairs"), [(0.0, 0), (0.25, 3), (0.5, 6)])
def test_some_candidates_mirror_others_at_the_mean(mirrored: float, pairs: int) -> None:
    found: list[Tensor] = []

    class Spy(PointMass):
        def step(self, state, action, noise=None):
            found.append(action)
            return super().step(state, action)

    still = Recorded(torch.ones(4, 1, 1, 4), list("abcd"))
    dream = Dream(Spy(), 2, PLACE, None)
    settings = Evolution.Config(generations=1, population=12, rollouts=1, horizon=1, mirrored=mirrored)
    Evolution(settings, dream, still, SPACE, actor_inputs="latent").train()
    decided = found[1].clamp(-0.999, 0.999).atanh()  # of the candidates, each a linear map of the same latent
    opposite = (decided[:, None] + decided[None]).abs().amax(-1) < 1e-5
    assert opposite.triu(1).sum() == pairs
    more = settings.model_copy(update={"generations": 5, "rollouts": 4})
    learner = Evolution(more, DREAM, recorded(), SPACE, actor_inputs="latent")
    assert np.isfinite(learner.train()[1]).all()


def test_evolution_refuses_what_has_no_covariance() -> None:
    with pytest.raises(ValueError, match="mirrored"):
        Evolution.Config(mirrored=0.6)
    with pytest.raises(ValueError, match="population"):
        Evolution.Config(population=2)
    wide = Recorded(torch.randn(4, 1, 4, 400), list("abcd"))
    with pytest.raises(ValueError, match="use an actor-critic"):
        Evolution(Evolution.Config(), Dream(PointMass(), 2, Distance(), None), wide, SPACE)


def in_the_world(controller, start: Tensor, goal: Tensor, steps: int) -> np.ndarray:
    """States [B, steps + 1, 4] of the point mass in numpy, under a controller."""
    states = [start[:, 0].double().numpy()]
    for _ in range(steps):
        z = torch.from_numpy(states[-1]).float()[:, None]
        states.append(push(states[-1], controller.act(z, goal).double().numpy()))
    return np.stack(states, 1)


def solves(controller, near: float = 0.15) -> None:
    """It gets near the goals and stays there, and its dreams are worth what the world is."""
    start, goal = recorded().draw(100, generator(7), "any")
    states = in_the_world(controller, start, goal, 15)
    apart = np.linalg.norm(states[:, -1, :2] - goal[:, 0, :2].numpy(), axis=-1)
    assert (apart < near).mean() > 0.9, sorted(apart)[::-10]
    dreamt = DREAM.run(controller.act, start, goal, 15).rewards.sum(1).double().numpy()
    world = -np.square(states[:, 1:, :2] - goal[:, :, :2].double().numpy()).mean(-1).sum(1)
    np.testing.assert_allclose(dreamt, world, atol=1e-5)


@pytest.mark.parametrize(
    ("gradient", "updates", "near"),
    [("dynamics", 60, 0.1), pytest.param("reinforce", 200, 0.3, marks=pytest.mark.slow)],
)
def test_the_actor_critic_reaches_the_goals_of_a_toy_world(gradient, updates, near) -> None:
    settings = ActorCritic.Config(
        updates=updates, batch=256, horizon=5, gradient=gradient, discount=0.9, hidden=64, layers=1, lr=5e-3
    )
    learner = ActorCritic(settings, DREAM, recorded(), SPACE, goals="any")
    _, history = learner.train()
    assert history[-1][1] > history[0][1] and [done for done, _ in history][:3] == [0, updates // 20, updates // 10]
    solves(learner.actor, near)


def test_evolution_reaches_the_goals_of_a_toy_world_and_its_best_never_gets_worse() -> None:
    settings = Evolution.Config(generations=120, population=24, rollouts=16, std=0.3)
    controller, history = Evolution(settings, DREAM, recorded(), SPACE, goals="any").train()
    assert all(later[1] >= earlier[1] for earlier, later in pairwise(history))
    assert history[-1][1] > history[0][1]
    solves(controller)


def test_dreams_of_an_rssms_own_state_follow_its_prior() -> None:
    torch.manual_seed(0)
    rssm = RSSM(RSSM.Config(recurrent_size=8, hidden=8, blocks=2, categoricals=3, classes=4), 4, 2)
    rssm.requires_grad_(False)
    z = torch.randn(5, 4, 1, 4, generator=generator())
    seen = rssm.observe(z, torch.rand(5, 3, 2, generator=generator(1)))
    start = rssm.features(seen.h, seen.s)[:, -1:]
    belief = Belief(rssm)
    state = belief.initial_state(start[:, None], start.new_zeros(5, 0, 2))
    torch.testing.assert_close(state.h, seen.h[:, -1])
    torch.testing.assert_close(state.s, seen.s[:, -1])
    action = torch.rand(5, 2, generator=generator(2))
    after, latent = belief.step(state, action, torch.randn(start.shape, generator=generator(3)))
    h = rssm.advance(seen.h[:, -1], seen.s[:, -1], rssm.embedded_action(action))
    torch.testing.assert_close(after.h, h)
    assert (after.s.sum(-1) - 1).abs().max() < 1e-6 and after.s.max(-1).values.min() > 0.99  # a draw
    torch.testing.assert_close(latent.mean()[:, 0], rssm.features(after.h, after.s))
    torch.testing.assert_close(
        belief.step(state, action)[1].mean()[:, 0], rssm.features(h, point(rssm.prior(h), "mode"))
    )
