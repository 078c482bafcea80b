"""A second goal, given as an image: the squared distance to its latent, the same for all tasks."""

from pathlib import Path
from typing import Literal

import numpy as np
import torch
from jaxtyping import UInt8
from PIL import Image, UnidentifiedImageError
from pydantic import Field
from torch import Tensor

from jepa.config import UserError
from jepa.config.fields import Positive, Share
from jepa.planners.cost import goal_reached
from jepa.world_model import LatentWorldModel
from jepa_data.config import StreamConfig
from jepa_probes.planning.costs import TermConfig
from jepa_probes.planning.costs.base import CostTerm


class ImageCost(CostTerm):
    """The squared distance to the latent of an image, beside the tasks' own goals."""

    class Config(TermConfig):
        """The image."""

        kind: Literal["image"] = "image"
        weight: Positive = 1.0
        file: str = Field(description="a square image; it is scaled to the model's size")
        running_cost_weight: Share = 1.0

    def __init__(self, config: Config, model: LatentWorldModel, data: StreamConfig, seed: int) -> None:
        goal = model.encode_image(read_square(Path(config.file)))
        self.cost = goal_reached(goal, running_cost_weight=config.running_cost_weight)


def read_square(path: Path) -> UInt8[Tensor, "1 3 h w"]:
    """Raises UserError if there is no image that can be read, or it is not square."""
    try:
        with Image.open(path) as file:
            image = np.array(file.convert("RGB"))
    except (OSError, UnidentifiedImageError) as error:
        raise UserError(f"{path}: no image that can be read ({error})") from error
    if image.shape[0] != image.shape[1]:
        height, width = image.shape[:2]
        raise UserError(f"{path}: expected a square image, as the model's, found {width} x {height}")
    return torch.from_numpy(image).permute(2, 0, 1)[None]
