"""Minus the distance between the latent and the goal's, and a bonus for being there."""

from typing import Literal

from pydantic import Field

from jepa.agents.imagination.reward import Distance, Reward, Within
from jepa.config import Component, UserError
from jepa.config.fields import Positive
from jepa_probes.imagination.rewards.base import GoalReward
from jepa_probes.probing.features import Features


class DistanceReward(GoalReward):
    """Minus the distance of latents."""

    class Config(Component):
        """How the distance is measured, and what is near."""

        kind: Literal["distance"] = "distance"
        measure: Literal["squared", "root"] = "squared"
        bonus: float = Field(default=0.0, ge=0, description="for every step that ends near the goal")
        near: Positive | None = Field(
            default=None,
            description="with a bonus: at most so far; none: as far as recorded neighbors in time, at median",
        )

    def reward(self, features: Features) -> Reward:
        distance = Distance(self.config.measure)
        if not self.config.bonus:
            return distance
        near = self.config.near
        if near is None:
            if features.latents.shape[1] < 2:
                raise UserError("reward.near: clips of one latent step have no neighbors in time; say how near")
            pairs = (features.latents[:, 1:].flatten(0, 1), features.latents[:, :-1].flatten(0, 1))
            near = -distance(*pairs).median().item()
        return Within(distance, near, self.config.bonus)
