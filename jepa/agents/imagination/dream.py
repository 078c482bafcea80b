"""Dreams: imagined rollouts of a controller in a frozen dynamics model.

recorded latents ──draw──> z0, goal
z0 ──controller(z, goal)──> a0 ──dynamics──> z1 ──controller──> a1 ──> …  zH        no image, no simulator
                                              reward(z1, goal)            reward(zH, goal)
                                              continues(z1)               …          where episodes can end

A dream is not truncated where an episode ends: later steps are weighted by the probability that it continues.
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
    """B dreams. `actions[:, t]` leads to `latents[:, t + 1]`, with the reward `rewards[:, t]`; `continues[:, t]` is the
    probability that the episode continues from there."""

    latents: Float[Tensor, "B H1 N D"]
    actions: Float[Tensor, "B H E"]
    rewards: Float[Tensor, "B H"]
    continues: Float[Tensor, "B H"]

    @property
    def alive(self) -> Float[Tensor, "B H"]:
        """The probability that the episode has not ended before `actions[:, t]`."""
        before = torch.cat([torch.ones_like(self.continues[:, :1]), self.continues[:, :-1]], 1)
        return before.cumprod(1)

    @property
    def expected_rewards(self) -> Float[Tensor, "B H"]:
        """Rewards, weighted by the probability that the episode has not ended."""
        return self.alive * self.rewards


@dataclass(frozen=True)
class Dream:
    """An environment made of the frozen dynamics, a reward and a continue head.

    Attributes:
        dynamics: imagines the next latent; frozen.
        action_size: E, width of the action of one latent step.
        reward: of a latent, given a goal.
        temperature: of the sampled next latents: 1 as predicted; higher values make dreams more uncertain and harder to
            exploit (World Models); near 0 only the most likely outcome. None: no sampling, the mean is taken.
        continues: the probability that an episode continues at a latent; None: episodes do not end.

    Raises:
        ValueError: the temperature is not above 0.
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
        """Roll out `act` for `steps` steps from `start`. Differentiable in the actions.

        Raises:
            ValueError: latents are sampled, and there is no generator.
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
        """Whether the next latent depends on the noise; False for deterministic models."""
        no_action = lambda z, goal: z.new_zeros(len(z), self.action_size)  # noqa: E731
        seeds = (torch.Generator().manual_seed(seed) for seed in (0, 1))
        return not torch.equal(*(self.run(no_action, start, start, 1, seed).latents for seed in seeds))


class Recorded:
    """Latents of recorded episodes, from which starts and goals of dreams are drawn.

    `z` and `goals` have one row per step; the steps of an episode are contiguous.

    Args:
        latents: of clips.
        episodes: the episode of each clip.
        goals: the same steps encoded as goal images, without motion; None: the latents.

    Raises:
        ValueError: latents and episodes differ in number, or there are fewer than two steps.
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
        """Draw starts, and a goal for each: any latent of the same episode, or of any episode.

        Goals of other episodes are reachable only if the world is the same in all episodes.
        """
        start = torch.randint(len(self), (batch,), generator=generator)
        if goals == "any":
            goal = torch.randint(len(self), (batch,), generator=generator)
        else:
            episode = self.episode[start]
            share = torch.rand(batch, generator=generator, dtype=torch.float64)
            goal = self.first[episode] + (share * self.count[episode]).long()
        return self.z[start], self.goals[goal]
