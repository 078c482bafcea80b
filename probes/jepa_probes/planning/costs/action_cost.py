"""The price of actions: the mean of their squares, each in half ranges of the data."""

from typing import Literal

from jepa.config.fields import Positive
from jepa.planners.cost import action_cost
from jepa.world_model import LatentWorldModel
from jepa_data.config import StreamConfig
from jepa_probes.planning.costs import TermConfig
from jepa_probes.planning.costs.base import CostTerm


class ActionCost(CostTerm):
    """The mean square of the actions."""

    class Config(TermConfig):
        """The weight alone."""

        kind: Literal["action_cost"] = "action_cost"
        weight: Positive = 0.01

    def __init__(self, config: Config, model: LatentWorldModel, data: StreamConfig, seed: int) -> None:
        self.cost = action_cost(model.spec.actions)
