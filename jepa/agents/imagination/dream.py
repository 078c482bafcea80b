"""Dreams: a controller acts in latents that a frozen dynamics model imagines.

recorded latents ──draw──> z0, goal
z0 ──controller(z, goal)──> a0 ──dynamics──> z1 ──controller──> a1 ──> …  zH        no image, no simulator
                                              reward(z1, goal)            reward(zH, goal)
                                              continues(z1)               …          where episodes can end

A dream is not cut where it ends: what comes later counts by the chance that it has gone on until then.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from jaxtyping import Float, Int
from torch import Tensor

from jepa.agents.imagination.reward import Reward
from jepa.world_model import Dynamics, advance

Act = Callable[[Float[Tensor, "B N D"], Float[Tensor, "B N D"]], Float[Tensor, "B E"]]
Continues = Callable[[Float[Tensor, "B N D"]], Float[Tensor, " B"]]
Goals = Literal["episode", "any"]


@dataclass(frozen=True)
class Dreamt:
    """What happened in B dreams: `rewards[:, t]` is that of `latents[:, t + 1]`, where `actions[:, t]` led, and
    `continues[:, t]` the chance in 0..1 that the episode goes on from there."""

    latents: Float[Tensor, "B H1 N D"]
    actions: Float[Tensor, "B H E"]
    rewards: Float[Tensor, "B H"]
    continues: Float[Tensor, "B H"]

    @property
    def alive(self) -> Float[Tensor, "B H"]:
        """The chance that the episode was still going on when `actions[:, t]` was taken."""
        before = torch.cat([torch.ones_like(self.continues[:, :1]), self.continues[:, :-1]], 1)
        return before.cumprod(1)

    @property
    def expected_rewards(self) -> Float[Tensor, "B H"]:
        """The rewards that can be expected: none after the end."""
        return self.alive * self.rewards


@dataclass(frozen=True)
class Dream:
    """Where controllers learn.

    Attributes:
        dynamics: imagines the next latent; never changed.
        action_size: E, width of the action of one latent step.
        reward: of a latent, for a goal.
        temperature: of what is drawn from the prediction: 1 as the model predicts it, more for dreams that are less
            sure of themselves and so harder to exploit (World Models), nearly 0 for its likeliest outcome. None:
            nothing is drawn, the mean is taken, and a dream is always the same.
        continues: the chance that an episode goes on at a latent; None: none ever ends.

    Raises:
        ValueError: a temperature that is not above 0.
    """

    dynamics: Dynamics
    action_size: int
    reward: Reward
    temperature: float | None
    continues: Continues | None = None

    def __post_init__(self) -> None:
        if self.temperature is not None and not self.temperature > 0:
            raise ValueError(f"the temperature of a dream lies above 0, found {self.temperature:g}")

    def run(
        self,
        act: Act,
        start: Float[Tensor, "B N D"],
        goal: Float[Tensor, "B N D"],
        steps: int,
        generator: torch.Generator | None = None,
    ) -> Dreamt:
        """Let `act` choose `steps` actions from `start` on. Differentiable in what `act` returns.

        Raises:
            ValueError: latents are drawn, and there is no generator to draw with.
        """
        if self.temperature is not None and generator is None:
            raise ValueError("a dream that is sampled needs a generator")
        state = self.dynamics.initial_state(start[:, None], start.new_zeros(len(start), 0, self.action_size))
        latents = [start]
        happened: list[tuple[Tensor, Tensor, Tensor]] = []  # actions, rewards and continues
        noise = None
        for _ in range(steps):
            action = act(latents[-1], goal)
            if self.temperature is not None:
                noise = torch.randn(start.shape, generator=generator).to(start)
            state, z = advance(self.dynamics, state, action, noise, self.temperature or 1.0)
            reward = self.reward(z, goal)
            latents.append(z)
            happened.append((action, reward, torch.ones_like(reward) if self.continues is None else self.continues(z)))
        return Dreamt(torch.stack(latents, 1), *(torch.stack(parts, 1) for parts in zip(*happened, strict=True)))

    def varies(self, start: Float[Tensor, "B N D"]) -> bool:
        """Whether the next latent depends on the noise: not if the model predicts one outcome alone."""
        no_action = lambda z, goal: z.new_zeros(len(z), self.action_size)  # noqa: E731
        seeds = (torch.Generator().manual_seed(seed) for seed in (0, 1))
        return not torch.equal(*(self.run(no_action, start, start, 1, seed).latents for seed in seeds))


class Recorded:
    """Latents of recorded episodes: where dreams start, and what their goals are.

    `z` and `goals` of all moments, the latents of an episode side by side.

    Args:
        latents: of clips.
        episodes: which episode each clip was cut from.
        goals: the same moments as a goal image shows them, where that is not the latent: standing still.

    Raises:
        ValueError: there are not as many latents as episodes, or fewer than two steps in all.
    """

    def __init__(
        self, latents: Float[Tensor, "E S N D"], episodes: Sequence[str], goals: Float[Tensor, "E S N D"] | None = None
    ) -> None:
        if len(latents) != len(episodes) or latents.shape[:2].numel() < 2:
            raise ValueError(
                f"expected clips with an episode each and two latents at least, found latents "
                f"{list(latents.shape)} and {len(episodes)} episodes"
            )
        names = {name: number for number, name in enumerate(dict.fromkeys(episodes))}
        number = torch.tensor([names[name] for name in episodes]).repeat_interleave(latents.shape[1])
        order = number.argsort(stable=True)  # the latents of one episode side by side
        self.z: Float[Tensor, "M N D"] = latents.flatten(0, 1)[order]
        self.goals: Float[Tensor, "M N D"] = self.z if goals is None or goals is latents else goals.flatten(0, 1)[order]
        self.count: Int[Tensor, " V"] = number.bincount()
        self.first: Int[Tensor, " V"] = self.count.cumsum(0) - self.count
        self.episode: Int[Tensor, " M"] = number[order]

    def __len__(self) -> int:
        return len(self.z)

    def draw(
        self, batch: int, generator: torch.Generator, goals: Goals = "episode"
    ) -> tuple[Float[Tensor, "B N D"], Float[Tensor, "B N D"]]:
        """Starts, and a goal for each: any latent of the start's own episode, or of any episode.

        Goals of other episodes can be reached only where the world looks the same in all.
        """
        start = torch.randint(len(self), (batch,), generator=generator)
        if goals == "any":
            goal = torch.randint(len(self), (batch,), generator=generator)
        else:
            episode = self.episode[start]
            share = torch.rand(batch, generator=generator, dtype=torch.float64)
            goal = self.first[episode] + (share * self.count[episode]).long()
        return self.z[start], self.goals[goal]
