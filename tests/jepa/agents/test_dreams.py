"""Dreams: where they start, what they are worth, their temperature and their ends, and the heads that tell both."""

from dataclasses import dataclass, replace

import pytest
import torch
from torch import Tensor

from jepa.agents.controller import ObservationNormalizer
from jepa.agents.imagination.actor_critic import ActorCritic
from jepa.agents.imagination.dream import Dream, Recorded
from jepa.agents.imagination.evolution import Evolution
from jepa.agents.imagination.heads import HeadSettings, RewardHead, fit_continue, fit_reward
from jepa.agents.imagination.reward import Distance, Head, Within
from jepa.decoders.state import LinearRead
from jepa.predictors.base import LatentState
from jepa.world_model import Deterministic
from tests.jepa.agents.point_mass import DREAM, PLACE, SMALL, SPACE, PointMass, generator, recorded

pytestmark = pytest.mark.usefixtures("one_thread")


SMALL_HEAD = HeadSettings(updates=400, batch=128, hidden=64, lr=2e-3)


def test_dreams_start_and_end_in_recorded_latents_of_the_same_episode_or_of_any() -> None:
    z = torch.arange(12.0).view(6, 2, 1, 1)
    found = Recorded(z, ["a", "b", "a", "c", "b", "a"])
    start, goal = (x.flatten().long() for x in found.draw(500, generator()))
    clip = torch.tensor([0, 1, 0, 2, 1, 0]).repeat_interleave(2)
    assert torch.equal(clip[start], clip[goal]) and len(set(start.tolist())) == 12 and (start != goal).any()
    start, goal = (x.flatten().long() for x in found.draw(500, generator(), "any"))
    assert (clip[start] != clip[goal]).any() and len(set(goal.tolist())) == 12
    with pytest.raises(ValueError, match="found latents"):
        Recorded(z, ["a"])


def test_rewards_are_distances_bonuses_and_heads() -> None:
    z, goal = torch.zeros(3, 1, 2), torch.tensor([[[3.0, 4.0]], [[0.0, 0.1]], [[0.0, 0.0]]])
    torch.testing.assert_close(Distance()(z, goal), -torch.tensor([12.5, 0.005, 0]))
    torch.testing.assert_close(Distance("root")(z, goal), -torch.tensor([12.5, 0.005, 0]).sqrt(), atol=2e-4, rtol=0)
    assert Distance("root")(z, goal)[2].item() == pytest.approx(0, abs=1e-8)
    torch.testing.assert_close(Within(Distance(), 0.1, 2.0)(z, goal), torch.tensor([-12.5, 1.995, 2.0]))
    with pytest.raises(ValueError, match="above 0"):
        Within(Distance(), 0.0)
    latents = torch.randn(50, 1, 4, generator=generator())
    truth = latents[:, 0, :2] @ torch.tensor([[1.0], [-2.0]]) + 3
    read = LinearRead(latents, truth, ridge=0.0)
    torch.testing.assert_close(read(latents), truth, atol=1e-4, rtol=1e-4)
    head = Head(torch.nn.Sequential(read, torch.nn.Flatten(0)))
    torch.testing.assert_close(head(latents, latents), truth[:, 0], atol=1e-4, rtol=1e-4)
    with pytest.raises(ValueError, match="finite"):
        LinearRead(latents, truth * float("nan"))


@dataclass(frozen=True)
class Cloud:
    """A Gaussian around the next latent, 0.1 wide; temperature as World Models has it: sigma * sqrt(tau)."""

    z: Tensor

    def mean(self) -> Tensor:
        return self.z

    def sample(self, noise: Tensor | None = None, temperature: float = 1.0) -> Tensor:
        assert noise is not None
        return self.z + 0.1 * temperature**0.5 * noise

    def log_prob(self, z: Tensor) -> Tensor | None:
        return None


class NoisyMass(PointMass):
    def step(self, state, action, noise=None, temperature=1.0):
        _, next_latent = super().step(state, action)
        return LatentState(next_latent.z if noise is None else next_latent.z + 0.1 * noise), Cloud(next_latent.z)


def stand(z: Tensor, goal: Tensor) -> Tensor:
    return torch.zeros(len(z), 2)


def test_sampled_dreams_need_a_generator_and_repeat_with_it() -> None:
    dream = Dream(NoisyMass(), 2, PLACE, temperature=1.0)
    still = torch.zeros(5, 1, 4)
    runs = [dream.run(stand, still, still, 4, generator(seed)).latents for seed in (0, 0, 1)]
    assert torch.equal(runs[0], runs[1]) and not torch.equal(runs[0], runs[2])
    assert dream.varies(still) and not replace(dream, dynamics=PointMass()).varies(still)
    with pytest.raises(ValueError, match="needs a generator"):
        dream.run(stand, still, still, 4)


def test_the_temperature_of_a_dream_is_that_of_what_is_drawn() -> None:
    still = torch.zeros(4000, 1, 4)

    def spread(temperature: float) -> float:
        dream = Dream(NoisyMass(), 2, PLACE, temperature)
        return dream.run(stand, still, still, 1, generator()).latents[:, 1].std().item()

    assert [spread(t) for t in (0.01, 1.0, 2.25)] == pytest.approx([0.01, 0.1, 0.15], rel=0.03)
    with pytest.raises(ValueError, match="lies above 0, found 0"):
        Dream(NoisyMass(), 2, PLACE, temperature=0.0)


def test_both_learners_dream_at_a_temperature() -> None:
    cold = Dream(NoisyMass(), 2, PLACE, temperature=0.1)
    hot = replace(cold, temperature=4.0)
    actors = [ActorCritic(SMALL, dream, recorded(), SPACE).train()[1] for dream in (cold, hot, hot)]
    assert actors[1] == actors[2] != actors[0]
    few = Evolution.Config(generations=3, population=8, rollouts=4, horizon=3, std=0.5)
    linear = [Evolution(few, dream, recorded(), SPACE).train()[1] for dream in (cold, hot, hot)]
    assert linear[1] == linear[2] != linear[0]


def test_what_comes_after_the_end_of_a_dream_counts_by_the_chance_that_there_was_none() -> None:
    chances = iter(torch.tensor([[1.0, 0.5], [0.25, 0.5], [0.5, 0.0], [1.0, 1.0]]))
    dream = replace(DREAM, reward=lambda z, goal: torch.ones(2), continues=lambda z: next(chances))
    dreamt = dream.run(stand, torch.zeros(2, 1, 4), torch.zeros(2, 1, 4), 4)
    torch.testing.assert_close(dreamt.alive, torch.tensor([[1, 1, 0.25, 0.125], [1, 0.5, 0.25, 0]]))
    torch.testing.assert_close(dreamt.expected_rewards.sum(1), torch.tensor([2.375, 1.75]))


@pytest.mark.parametrize("gradient", ["reinforce", pytest.param("dynamics", marks=pytest.mark.slow)])
def test_an_actor_learns_to_stay_alive(gradient) -> None:
    """Every step is worth 1; beyond 1.5 to the left it is over, and a wind blows that way."""

    class Wind(PointMass):
        def step(self, state, action, noise=None):
            state, next_latent = super().step(state, action)
            z = next_latent.z + torch.tensor([-0.25, 0, 0, 0])
            return LatentState(z), Deterministic(z)

    def goes_on(z: Tensor) -> Tensor:
        return (8 * (z[:, 0, 0] + 1.5)).sigmoid()

    dream = Dream(Wind(), 2, lambda z, goal: torch.ones(len(z)) + 0 * z[:, 0, 0], None, goes_on)
    settings = ActorCritic.Config(
        updates=80, batch=64, horizon=12, gradient=gradient, discount=0.95, hidden=32, layers=1, lr=5e-3
    )
    learner = ActorCritic(settings, dream, recorded(), SPACE, actor_inputs="latent")
    _, history = learner.train()
    start, goal = recorded().draw(100, generator(7))
    alive = dream.run(learner.actor.act, start, goal, 12).alive[:, -1].mean()
    assert alive > 0.9 > 0.5 > dream.run(stand, start, goal, 12).alive[:, -1].mean()
    assert history[-1][1] > history[0][1] + 1
    for diagonal in (False, True):
        few = Evolution.Config(generations=15, population=12, rollouts=8, horizon=12, std=0.5, diagonal=diagonal)
        controller, _ = Evolution(few, dream, recorded(), SPACE, actor_inputs="latent").train()
        assert dream.run(controller.act, start, goal, 12).alive[:, -1].mean() > 0.9


def test_a_reward_head_begins_at_zero_and_learns_rewards_of_any_scale() -> None:
    z = recorded(2000).z
    assert torch.equal(RewardHead(ObservationNormalizer(1, 4, "latent"), hidden=8, layers=1)(z), torch.zeros(len(z)))
    true = 300 * z[:, 0, 0].square() - 0.5
    head = fit_reward(z[:1500], true[:1500], SMALL_HEAD)
    wrong = (head(z[1500:]) - true[1500:]).square().mean() / true.var()
    assert wrong < 0.1 and not any(p.requires_grad for p in head.parameters())
    again = fit_reward(z[:1500], true[:1500], SMALL_HEAD)
    assert torch.equal(head(z), again(z))
    seen = z[z[:, 0, 0].abs() > 0.3].clone().requires_grad_()
    head(seen).sum().backward()
    assert seen.grad is not None and (seen.grad * seen)[:, 0, 0].gt(0).float().mean() > 0.95  # uphill is outwards
    with pytest.raises(ValueError, match="finite rewards only"):
        fit_reward(z, true * float("nan"))


def test_a_continue_head_knows_ends() -> None:
    z = recorded(2000).z
    ended = z[:, 0].norm(dim=-1) > 1
    head = fit_continue(z[:1500], ended[:1500], SMALL_HEAD)
    goes_on = head(z[1500:])
    assert ((goes_on < 0.5) == ended[1500:]).float().mean() > 0.95
    assert goes_on[ended[1500:]].mean() < 0.1 < 0.9 < goes_on[~ended[1500:]].mean()
    for wrong in (torch.zeros(2000, dtype=torch.bool), torch.ones(2000, dtype=torch.bool)):
        with pytest.raises(ValueError, match="needs ends and other latents"):
            fit_continue(z, wrong)


def test_a_controller_may_see_the_latent_alone_and_follow_a_reward_head() -> None:
    class GoRight(torch.nn.Module):
        def forward(self, z: Tensor) -> Tensor:
            return z[:, 0, 0]

    dream = replace(DREAM, reward=Head(GoRight()))
    few = Evolution.Config(generations=10, population=8, rollouts=4, horizon=5, std=0.5)
    controller, history = Evolution(few, dream, recorded(), SPACE, actor_inputs="latent").train()
    start, goal = recorded().draw(20, generator())
    assert controller.weight.shape == (2, 4) and history[-1][1] > history[0][1] + 1
    assert torch.equal(controller.act(start, goal), controller.act(start, goal.flip(0)))
    assert (controller.act(start, goal)[:, 0] > 0.3).all()
