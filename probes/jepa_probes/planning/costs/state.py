"""A target for states of the world: the squared distance to it."""

from typing import Literal

import torch
from pydantic import Field

from jepa.config.fields import Positive, Share
from jepa.planners.cost import state_reached
from jepa.world_model import LatentWorldModel
from jepa_data.config import StreamConfig
from jepa_probes.planning.costs.base import CostTerm
from jepa_probes.planning.costs.reading import StateTermConfig, fit_reading


class StateCost(CostTerm):
    """The squared distance of states to a target."""

    class Config(StateTermConfig):
        """The target: one number for each of `names`."""

        one_each = "target"
        kind: Literal["state"] = "state"
        weight: Positive = 1.0
        target: tuple[float, ...]
        running_cost_weight: Share = Field(default=0.0, description="0: at the end of the plan; 1: at every step alike")

    def __init__(self, config: Config, model: LatentWorldModel, data: StreamConfig, seed: int) -> None:
        read, self.r2 = fit_reading(config, model, data, seed)
        target = torch.tensor([config.target])
        self.cost = state_reached(read, target, running_cost_weight=config.running_cost_weight)
