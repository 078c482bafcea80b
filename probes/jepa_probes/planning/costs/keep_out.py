"""A forbidden ball of states: how deep a plan lies in it, as a share of its radius; 0 outside."""

from typing import Literal

from jepa.config.fields import Positive
from jepa.planners.cost import keep_out
from jepa.world_model import LatentWorldModel
from jepa_data.config import StreamConfig
from jepa_probes.planning.costs.base import CostTerm, Region
from jepa_probes.planning.costs.reading import StateTermConfig, fit_reading


class KeepOut(CostTerm):
    """How deep the steps of a plan lie in the ball, on average."""

    class Config(StateTermConfig):
        """The ball: one number of `center` for each of `names`."""

        one_each = "center"
        kind: Literal["keep_out"] = "keep_out"
        weight: Positive = 10.0
        center: tuple[float, ...]
        radius: Positive

    def __init__(self, config: Config, model: LatentWorldModel, data: StreamConfig, seed: int) -> None:
        read, self.r2 = fit_reading(config, model, data, seed)
        self.cost = keep_out(read, config.center, config.radius)
        self.regions = (Region(config.names, config.center, config.radius),)
