"""DreamerV3's actor-critic (2301.04104), trained only in imagined rollouts ("dreams") of a frozen world model.

    dream    z0 ─a0─> z1 ─a1─> … zH        rewards r1 … rH, continues c1 … cH, values v(z0) … v(zH)
    returns  R_t = r_{t+1} + discount c_{t+1} ((1 - trace) v(z_{t+1}) + trace R_{t+1}),     R_H = v(zH)
    critic   two-hot cross-entropy to R_t, and to the output of its EMA
    actor    reinforce   -(R_t - v(z_t)) / S log pi(a_t)      for any dynamics and reward
             dynamics    -R_t / S, with gradients through rewards, continues, values, dynamics and actions
             both        - entropy * H(pi),    S = max(1, EMA of P95 - P5 of the returns)
    all      step t has the weight c1 … c_t, the probability that it happens

The policy sees the current latent, with or without that of the goal. Unlike in DreamerV3, the optimizer is Adam with
gradient clipping.
"""

import copy
import logging
from typing import Any, Literal

import torch
from jaxtyping import Float
from pydantic import Field
from torch import Tensor, nn

from jepa.agents.controller import Actor, Decision, Latents
from jepa.agents.imagination.heads import TwoHotHead
from jepa.agents.imagination.learner import History, Learner
from jepa.config import Component
from jepa.config.fields import Count, Positive, Share
from jepa.objectives import two_hot

logger = logging.getLogger(__name__)

CHECKS = 256  # dreams by which progress is reported, always the same
REPORTS = 20  # of the progress
STATEFUL = ("actor", "critic", "slow", "_actor_step", "_critic_step")


class Critic(TwoHotHead):
    """The value of a latent, given a goal."""

    def forward(self, z: Latents, goal: Latents) -> Float[Tensor, "B K"]:
        """Logits of the bins."""
        return self.network(self.normalizer(z, goal))

    def value(self, z: Latents, goal: Latents) -> Float[Tensor, " B"]:
        return two_hot.decode(self(z, goal), self.bins)


class ReturnScale:
    """max(1, EMA of the range of returns): small returns are not amplified, large ones are scaled to about 1."""

    def __init__(self, rate: float) -> None:
        self.rate = rate
        self.range: float | None = None

    def update(self, returns: Tensor) -> float:
        returns = returns.detach().float().flatten()
        low, high = torch.quantile(returns, returns.new_tensor([0.05, 0.95])).tolist()
        spread: float = high - low
        if self.range is None:
            self.range = spread
        self.range += self.rate * (spread - self.range)
        return max(1.0, self.range)


class ActorCritic(Learner):
    """An actor-critic trained in dreams. The defaults are DreamerV3's, except batch, learning rate and sizes.

    Raises:
        ValueError: the actor needs gradients through the dynamics, and there are none.
    """

    class Config(Component):
        """Actor and critic, trained in imagined rollouts."""

        kind: Literal["actor_critic"] = "actor_critic"
        updates: Count = Field(default=2000, description="updates of actor and critic")
        batch: Count = Field(default=256, description="dreams per update")
        horizon: Count = Field(default=15, description="latent steps of a dream")
        discount: float = Field(default=1 - 1 / 333, gt=0, lt=1, description="gamma of the returns")
        trace: Share = Field(default=0.95, description="lambda of the returns")
        gradient: Literal["reinforce", "dynamics"] = Field(
            default="reinforce", description="gradient of the actor: REINFORCE, or backpropagation through the dynamics"
        )
        entropy: float = Field(default=3e-4, ge=0, description="weight of the entropy bonus")
        return_rate: Share = Field(default=0.01, description="rate of the EMA that scales the returns")
        critic_rate: Share = Field(default=0.02, description="rate of the EMA critic")
        lr: Positive = Field(default=3e-4, description="learning rate of actor and critic")
        clip_norm: Positive = Field(default=1.0, description="gradient clipping of actor and critic")
        hidden: Count = Field(default=256, description="hidden units per layer of actor and critic")
        layers: int = Field(default=2, ge=0, description="hidden layers of actor and critic")

    build = Actor

    def _build(self) -> None:
        config = self.config
        self.network = {"hidden": config.hidden, "layers": config.layers}
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(self.seed)
            self.actor = Actor(self.normalizer, self.space, hidden=config.hidden, layers=config.layers)
            self.critic = Critic(copy.deepcopy(self.normalizer), **self.network)
        self.slow = copy.deepcopy(self.critic).requires_grad_(False)
        self.scale = ReturnScale(config.return_rate)
        self.generator = torch.Generator().manual_seed(self.seed)
        self._checks = self.recorded.draw(CHECKS, self.generator, self.goals)
        self._actor_step = torch.optim.Adam(self.actor.parameters(), config.lr, eps=1e-5, fused=True)
        self._critic_step = torch.optim.Adam(self.critic.parameters(), config.lr, eps=1e-5, fused=True)

    def train(self) -> tuple[Actor, History]:
        """Run all updates. Returns the controller and (updates, return) on a fixed set of dreams, before and during."""
        history = [(0, self.score())]
        every = max(1, self.config.updates // REPORTS)
        for number in range(1, self.config.updates + 1):
            self.update()
            if number % every == 0 or number == self.config.updates:
                history.append((number, self.score()))
                logger.info(f"update {number}/{self.config.updates}  return in the dream {history[-1][1]:.3f}")
        return self.actor, history

    @torch.no_grad()
    def score(self) -> float:
        """Mean undiscounted return on a fixed set of dreams."""
        dreams = self.dream.run(self.actor.act, *self._checks, self.horizon, torch.Generator().manual_seed(0))
        return dreams.expected_rewards.sum(1).mean().item()

    def update(self) -> dict[str, float]:
        """One update of actor and critic; returns the losses, the entropy, the mean return and the scale."""
        s = self.config
        follows_dynamics = s.gradient == "dynamics"
        start, goal = self.recorded.draw(s.batch, self.generator, self.goals)
        decided: list[tuple[Decision, Tensor]] = []

        def act(z: Latents, goal: Latents) -> Tensor:
            decision = self.actor(z, goal)
            with torch.set_grad_enabled(follows_dynamics):
                taken = decision.sample(self.generator)
            decided.append((decision, taken))
            return self.actor.space.block(taken)

        dreamt = self.dream.run(act, start, goal, s.horizon, self.generator)
        goals = goal[:, None].expand(-1, s.horizon + 1, -1, -1)
        with torch.set_grad_enabled(follows_dynamics):
            values = self.critic.value(dreamt.latents.flatten(0, 1), goals.flatten(0, 1)).unflatten(0, (s.batch, -1))
        returns = lambda_returns(dreamt.rewards, values, s.discount * dreamt.continues, s.trace)
        scale = self.scale.update(returns)
        alive = dreamt.alive.detach()
        entropy = (alive * torch.stack([decision.entropy() for decision, _ in decided], 1)).mean()
        if follows_dynamics:
            if not dreamt.rewards.requires_grad:
                raise ValueError("the dream's rewards have no gradient with respect to its actions; use reinforce")
            gain = (alive * returns / scale).mean()
        else:
            advantage = alive * ((returns - values[:, :-1]) / scale).detach()
            gain = (advantage * torch.stack([d.log_prob(taken) for d, taken in decided], 1)).mean()
        actor_loss = -gain - s.entropy * entropy
        self._descend(actor_loss, self.actor, self._actor_step)
        critic_loss = self._critic_loss(dreamt.latents[:, :-1].detach(), goals[:, :-1], returns.detach(), alive)
        self._descend(critic_loss, self.critic, self._critic_step)
        self._move_slow_critic()
        metrics = {"actor": actor_loss, "critic": critic_loss, "entropy": entropy, "return": returns.mean()}
        return {name: x.item() for name, x in metrics.items()} | {"scale": scale}

    def state(self) -> dict[str, Any]:
        """All that a later `update` depends on, apart from what is recorded and dreamt."""
        return {
            **{name: getattr(self, name).state_dict() for name in STATEFUL},
            "range": self.scale.range,
            "generator": self.generator.get_state(),
        }

    def restore(self, state: dict[str, Any]) -> None:
        """Go on from a `state`."""
        for name in STATEFUL:
            getattr(self, name).load_state_dict(state[name])
        self.scale.range = state["range"]
        self.generator.set_state(state["generator"])

    def _critic_loss(
        self,
        latents: Float[Tensor, "B H N D"],
        goals: Float[Tensor, "B H N D"],
        returns: Float[Tensor, "B H"],
        alive: Float[Tensor, "B H"],
    ) -> Float[Tensor, ""]:
        z, goal = latents.flatten(0, 1), goals.flatten(0, 1)
        with torch.no_grad():
            slow = self.slow.value(z, goal)
        logits = self.critic(z, goal)
        losses = [two_hot.cross_entropy(logits, target, self.critic.bins) for target in (returns.flatten(), slow)]
        return (alive.flatten() * (losses[0] + losses[1])).mean()

    def _descend(self, loss: Tensor, module: nn.Module, optimizer: torch.optim.Optimizer) -> None:
        """An optimizer step on this module only; other modules get no gradient."""
        parameters = list(module.parameters())
        optimizer.zero_grad()
        loss.backward(inputs=parameters)
        nn.utils.clip_grad_norm_(parameters, self.config.clip_norm)
        optimizer.step()

    @torch.no_grad()
    def _move_slow_critic(self) -> None:
        for slow, fast in zip(self.slow.parameters(), self.critic.parameters(), strict=True):
            slow.lerp_(fast, self.config.critic_rate)


def lambda_returns(
    rewards: Float[Tensor, "B H"], values: Float[Tensor, "B H1"], discount: Float[Tensor, "B H"], trace: float
) -> Float[Tensor, "B H"]:
    """Lambda returns of each step. `rewards[:, t]` is between `values[:, t]` and `values[:, t + 1]`.

    Args:
        discount: after each reward; 0 where the episode ends.

    Raises:
        ValueError: the number of values is not that of rewards + 1.
    """
    if values.shape[1] != rewards.shape[1] + 1:
        raise ValueError(
            f"expected {rewards.shape[1] + 1} values for {rewards.shape[1]} rewards, found {len(values[0])}"
        )
    returns = [values[:, -1]]
    for t in reversed(range(rewards.shape[1])):
        later = (1 - trace) * values[:, t + 1] + trace * returns[-1]
        returns.append(rewards[:, t] + discount[:, t] * later)
    return torch.stack(returns[:0:-1], 1)  # without the last value
