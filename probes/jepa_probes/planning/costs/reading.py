"""States of the world, read off latents by ridge regression (jepa/decoders/state.py), for cost terms that use them."""

from math import isnan
from typing import Annotated, ClassVar, Self

from pydantic import Field, model_validator

from jepa.config import UserError
from jepa.config.fields import Count
from jepa.decoders.state import LinearRead
from jepa.world_model import LatentWorldModel
from jepa_data.config import StreamConfig
from jepa_probes.planning.costs import TermConfig
from jepa_probes.planning.recordings import recorded
from jepa_probes.probing.features import split_episodes


class StateTermConfig(TermConfig):
    """Which states, and what the reading is fitted to."""

    one_each: ClassVar[str]  # the field that holds a number for each name

    names: Annotated[tuple[str, ...], Field(min_length=1, description="states, such as agent.x")]
    clips: Count = Field(default=500, description="recorded clips that the reading is fitted to, at most")

    @property
    def states(self) -> tuple[str, ...]:
        return self.names

    @model_validator(mode="after")
    def _one_number_a_name(self) -> Self:
        if (count := len(getattr(self, self.one_each))) != len(self.names):
            raise ValueError(f"expected a {self.one_each} with {len(self.names)} number(s), one a name; found {count}")
        return self


def fit_reading(
    config: StateTermConfig, model: LatentWorldModel, data: StreamConfig, seed: int
) -> tuple[LinearRead, dict[str, float | None]]:
    """States off latents, fitted to all recorded clips; and the R² of each when it is fitted to some for the others.

    None is the R² of a state that does not vary.

    Raises:
        UserError: a state does not exist in all episodes.
    """
    features, _ = recorded(model, data, seed, config.clips, 1)
    columns = [features.state_names.index(name) for name in config.names]
    states = features.states[..., columns]
    if missing := [name for name, x in zip(config.names, states.unbind(-1), strict=True) if not x.isfinite().all()]:
        raise UserError(f"the state {missing[0]!r} does not exist in every episode, so it cannot be used")
    fit, others = split_episodes(features.keys, seed=seed)
    rows = [(features.latents[part].flatten(0, 1), states[part].flatten(0, 1)) for part in (fit, others)]
    r2 = LinearRead(*rows[0]).explained(*rows[1])
    whole = LinearRead(features.latents.flatten(0, 1), states.flatten(0, 1))
    return whole, {name: None if isnan(x) else round(x, 4) for name, x in zip(config.names, r2.tolist(), strict=True)}
