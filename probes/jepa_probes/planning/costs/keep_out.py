"""A forbidden ball of states: how deep a plan lies in it, as a share of its radius; 0 outside."""

from typing import Literal, Self

import torch
from pydantic import Field, model_validator

from jepa.config import UserError
from jepa.config.fields import Positive
from jepa.planners.cost import keep_out
from jepa.world_model import LatentWorldModel
from jepa_data.config import StreamConfig
from jepa_probes.planning.costs.base import CostTerm, Region
from jepa_probes.planning.costs.reading import StateTermConfig, fit_reading
from jepa_probes.planning.tasks import Tasks


class KeepOut(CostTerm):
    """How deep the steps of a plan lie in the ball, on average."""

    class Config(StateTermConfig):
        """The ball: one number of `center` for each of `names`; without a center, those of the tasks."""

        one_each = "center"
        kind: Literal["keep_out"] = "keep_out"
        weight: Positive = 10.0
        center: tuple[float, ...] | None = Field(default=None, description="none: the ball of each task")
        radius: Positive | None = Field(
            default=None, description="none: that of the tasks; a larger one keeps at a distance"
        )

        @model_validator(mode="after")
        def _center_has_a_radius(self) -> Self:
            if self.center is not None and self.radius is None:
                raise ValueError("a ball with a center needs a radius")
            return self

    def __init__(self, config: Config, model: LatentWorldModel, data: StreamConfig, seed: int) -> None:
        self.config = config
        self._read, self.r2 = fit_reading(config, model, data, seed)
        if config.center is not None and config.radius is not None:
            self.cost = keep_out(self._read, config.center, config.radius)
            self.regions = (Region(config.names, config.center, config.radius),)

    def for_tasks(self, tasks: Tasks) -> None:
        if self.config.center is not None:
            return
        if tasks.regions is None:
            raise UserError("expected a center, as the tasks have no regions; give one, or set keep_out_radius")
        if self.config.names != (names := tasks.start(1).goal_names):
            raise UserError(f"the regions of the tasks are of {', '.join(names)}, found {', '.join(self.config.names)}")
        center = torch.from_numpy(tasks.regions.center).float()
        self.cost = keep_out(self._read, center, self.config.radius or tasks.regions.radius)
