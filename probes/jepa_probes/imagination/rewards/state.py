"""Minus the distance between what a head reads from both latents; it is fitted to recorded true states."""

from typing import Annotated, Literal

from pydantic import Field

from jepa.agents.imagination.reward import Distance, Reward
from jepa.config import Component, UserError
from jepa.decoders.state import LinearRead
from jepa_data.shards.manifest import Manifest
from jepa_probes.imagination.rewards.base import GoalReward
from jepa_probes.probing.features import Features


class StateReward(GoalReward):
    """Minus the distance of states that are read off latents."""

    class Config(Component):
        """Which states, and how their distance is measured."""

        kind: Literal["state"] = "state"
        names: Annotated[tuple[str, ...], Field(min_length=1, description="states, such as agent.x")]
        measure: Literal["squared", "root"] = "squared"

    def check(self, about: Manifest) -> None:
        if missing := [name for name in self.config.names if name not in about.state_names]:
            known = ", ".join(about.state_names) or "none"
            raise UserError(f"reward.names: no state {missing[0]!r} was recorded; there are: {known}")

    def reward(self, features: Features) -> Reward:
        columns = [features.state_names.index(name) for name in self.config.names]
        read = LinearRead(features.latents.flatten(0, 1), features.states.flatten(0, 1)[:, columns])
        return Distance(self.config.measure, read)
