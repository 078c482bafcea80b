"""From the `costs:` of a config to terms of a cost, for planners.

    costs:
      - {kind: action_cost, weight: 0.01}
      - {kind: keep_out, names: [agent.x, agent.y], center: [0.5, 0.3], radius: 0.1}

What is told in states of the world is read off the latents; how well that can be done is told with it.
"""

from collections.abc import Callable, Sequence
from math import isnan
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image, UnidentifiedImageError

from jepa.config import UserError
from jepa.decoders.state import LinearRead
from jepa.planners.cost import Imagined, Term, action_cost, image_reached, keep_out, state_reached
from jepa.world_model import LatentWorldModel
from jepa_data.config import StreamConfig
from jepa_data.shards.index import ShardSet
from jepa_probes.planning.config import (
    ActionCostConfig,
    CostConfig,
    ImageCostConfig,
    KeepOutConfig,
    StateCostConfig,
    StateTermConfig,
)
from jepa_probes.planning.evaluate import Costs, Region
from jepa_probes.planning.recordings import recorded
from jepa_probes.probing.features import split_episodes


def known_states(costs: Sequence[CostConfig], data: StreamConfig) -> None:
    """Raises UserError if a cost names a state that was not recorded. Asked first: it costs nothing."""
    names = ShardSet.open(data.folder).manifest.state_names
    for number, cost in enumerate(costs):
        unknown = [name for name in cost.names if name not in names] if isinstance(cost, StateTermConfig) else []
        if unknown:
            known = ", ".join(names) or "none"
            raise UserError(f"costs.{number}: no state {unknown[0]!r} was recorded; there are: {known}")


def build_costs(costs: Sequence[CostConfig], model: LatentWorldModel, data: StreamConfig, seed: int) -> Costs:
    """Fit what is read off latents, and encode what is a picture, once for all plans.

    Raises:
        UserError: a state does not exist in all episodes, or a picture cannot be read or is not square.
    """
    terms, regions, described = [], [], []
    for number, cost in enumerate(costs):
        about: dict[str, Any] = cost.model_dump(mode="json")
        try:
            match cost:
                case ActionCostConfig():
                    value = action_cost(model.spec.actions)
                case ImageCostConfig():
                    value = _picture(cost, model)
                case KeepOutConfig():
                    read, about["r2"] = _reading(cost, model, data, seed)
                    value = keep_out(read, cost.center, cost.radius)
                    regions.append(Region(cost.names, cost.center, cost.radius))
                case StateCostConfig():
                    read, about["r2"] = _reading(cost, model, data, seed)
                    value = state_reached(
                        read, torch.tensor([cost.target]), running_cost_weight=cost.running_cost_weight
                    )
        except ValueError as error:
            raise UserError(f"costs.{number}: {error}") from error
        terms.append(Term(value, cost.weight))
        described.append(about)
    return Costs(tuple(terms), tuple(regions), described)


def _reading(
    cost: StateTermConfig, model: LatentWorldModel, data: StreamConfig, seed: int
) -> tuple[LinearRead, dict[str, float | None]]:
    """States off latents, fitted to all recorded clips; and the R² of each when it is fitted to some for the others.

    None is the R² of a state that does not vary.
    """
    found, _ = recorded(model, data, seed, cost.clips, 1)
    columns = [found.state_names.index(name) for name in cost.names]
    states = found.states[..., columns]
    if missing := [name for name, x in zip(cost.names, states.unbind(-1), strict=True) if not x.isfinite().all()]:
        raise UserError(f"the state {missing[0]!r} does not exist in every episode, so nothing can be told in it")
    fit, held = split_episodes(found.keys, seed=seed)
    rows = [(found.latents[part].flatten(0, 1), states[part].flatten(0, 1)) for part in (fit, held)]
    r2 = LinearRead(*rows[0]).explained(*rows[1])
    whole = LinearRead(found.latents.flatten(0, 1), states.flatten(0, 1))
    return whole, {name: None if isnan(x) else round(x, 4) for name, x in zip(cost.names, r2.tolist(), strict=True)}


def _picture(cost: ImageCostConfig, model: LatentWorldModel) -> Callable[[Imagined], torch.Tensor]:
    try:
        with Image.open(Path(cost.file)) as file:
            picture = np.array(file.convert("RGB"))
    except (OSError, UnidentifiedImageError) as error:
        raise UserError(f"{cost.file}: no picture that can be read ({error})") from error
    if picture.shape[0] != picture.shape[1]:
        height, width = picture.shape[:2]
        raise UserError(f"{cost.file}: expected a square picture, as the model sees, found {width} x {height}")
    return image_reached(
        model.encode_image,
        torch.from_numpy(picture).permute(2, 0, 1)[None],
        running_cost_weight=cost.running_cost_weight,
    )
