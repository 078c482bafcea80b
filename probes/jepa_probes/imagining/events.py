"""Events that are prompted by number of the frame and name: "12: close-door, 20: open-door".

frame    0: right before the first action after the last frame seen (of a world: after its reset), as in a file of
         actions
"""

import re

import numpy as np
import torch
from jaxtyping import Float32

from jepa.config import UserError
from jepa.events import append_events
from jepa.world_model import LatentWorldModel
from jepa_probes.imagining.config import ImagineConfig


def parse_events(text: str) -> dict[int, str]:
    """Names by frame.

    Raises:
        UserError: it is written in another way, or a frame has two.
    """
    events: dict[int, str] = {}
    for part in text.split(","):
        match = re.fullmatch(r"\s*(\d{1,9})\s*:\s*([\w-]+)\s*", part)
        if match is None:
            raise UserError(
                f'events: expected FRAME: NAME, as in "12: close-door, 20: open-door"; found {part.strip()!r}'
            )
        if int(match[1]) in events:
            raise UserError(
                f"events: frame {match[1]} has two, {events[int(match[1])]} and {match[2]}; give one a frame"
            )
        events[int(match[1])] = match[2]
    return events


def prompts(config: ImagineConfig, frames: int) -> list[str | None]:
    """The name of the event right before each frame's action, or None.

    Raises:
        UserError: an event comes after the last of them.
    """
    names: list[str | None] = [None] * frames
    for frame, name in config.events.items():
        if frame >= frames:
            raise UserError(f"events: {name} at frame {frame} is after the last of {frames} that are imagined")
        names[frame] = name
    return names


def prompted(config: ImagineConfig, model: LatentWorldModel, frames: int) -> Float32[np.ndarray, "P E"]:
    """Columns of the model's events for so many actions.

    Raises:
        UserError: the model does not know an event.
    """
    nothing = torch.zeros(frames, 0)
    return append_events(nothing, prompts(config, frames), model.spec.events).numpy()
