"""Named events of a world as a condition of the dynamics: columns beside the numbers of each action.

    spec.events ("close-door", "open-door")     a frame's action [A] is followed by a column for each event [E]
    frame       a0 a1 0 1                       1: the event happens in the transition that the action takes
    block       a0 a1 0 1 | a0 a1 0 0           of a latent step of two frames
    plain       a0 a1     | a0 a1               without columns: no event happens

Whoever plans, probes or acts gives plain actions. A predictor with events puts zeros where the columns are missing, in
`EventLayout.complete`, so no planner searches over events. `LatentWorldModel.condition` prompts one.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional as F

from jepa.config import UserError
from jepa_data.events import event_number

# Numbers of events (0: none), [T] or [*B, T]; columns [*B, T, E]; or T names, numbers or None. None: no event at all.
EventPrompt = Tensor | Sequence[str | int | None] | None


@dataclass(frozen=True)
class EventLayout:
    """Where events stand in the action of one latent step.

    Attributes:
        action_size: A, width of one raw action.
        names: of the E events.
        frames: raw actions of a latent step.
    """

    action_size: int
    names: tuple[str, ...]
    frames: int

    @property
    def count(self) -> int:
        """E."""
        return len(self.names)

    @property
    def width(self) -> int:
        """Of the action of a latent step with its columns."""
        return self.frames * (self.action_size + self.count)

    @property
    def plain_width(self) -> int:
        """Of the action of a latent step without columns."""
        return self.frames * self.action_size

    def complete(self, actions: Float[Tensor, "*B P"]) -> Float[Tensor, "*B W"]:
        """Actions with columns as they are; plain ones with zeros, no event."""
        if actions.shape[-1] != self.plain_width:
            return actions
        return F.pad(actions.unflatten(-1, (self.frames, self.action_size)), (0, self.count)).flatten(-2)

    def split(self, actions: Float[Tensor, "*B W"]) -> tuple[Float[Tensor, "*B F A"], Float[Tensor, "*B F E"]]:
        """The actions of each frame and the columns of events."""
        frames = self.complete(actions).unflatten(-1, (self.frames, self.action_size + self.count))
        return frames[..., : self.action_size], frames[..., self.action_size :]

    def joined(self, actions: Float[Tensor, "*B P"], columns: Float[Tensor, "*B C"]) -> Float[Tensor, "*B W"]:
        """Plain actions and the columns of all their frames, as they stand in a block."""
        frames = actions.unflatten(-1, (self.frames, -1)), columns.unflatten(-1, (self.frames, -1))
        return torch.cat(frames, -1).flatten(-2)

    def plain(self, actions: Float[Tensor, "*B W"]) -> Float[Tensor, "*B P"]:
        """The actions without columns."""
        return self.split(actions)[0].flatten(-2)


def append_events(
    actions: Float[Tensor, "*B T A"], events: EventPrompt, names: Sequence[str], owner: str = "the model"
) -> Float[Tensor, "*B T C"]:
    """The actions between frames, each followed by the columns of its events, C = A + E.

    Args:
        events: what happens in each of the T transitions, see `EventPrompt`.
        names: the events of a model, `LatentSpec.events`; if empty, the actions are returned as they are.
        owner: who knows these events, for messages.

    Raises:
        UserError: an event has another name or number than these, or there is not one entry for each action.
    """
    columns = _columns(events, actions.shape[-2], names, owner)
    if not names:
        return actions
    return torch.cat((actions, columns.to(actions).expand(*actions.shape[:-1], -1)), -1)


def check_same_events(known: Sequence[str], found: Sequence[str], owner: str, where: str) -> None:
    """Compare the events of a model with those of some data, if both have any.

    Args:
        known: of `owner`, a model.
        found: of `where`, some data.

    Raises:
        UserError: they are others, named in the message.
    """
    if not known or not found or tuple(known) == tuple(found):
        return
    strange = [name for name in found if name not in known] or list(found)
    raise UserError(
        f"{where} has the event {strange[0]!r}; {owner} knows {', '.join(known)}, in this order. Use data of the same "
        "world, or leave their events out: data.events=false"
    )


def _columns(events: EventPrompt, steps: int, names: Sequence[str], owner: str) -> Float[Tensor, "*B T E"]:
    if events is None:
        return torch.zeros(steps, len(names))
    if isinstance(events, Tensor):
        if events.ndim and events.shape[-2:] == (steps, len(names)) and not _is_numbers(events):
            return events
        numbers = events
    else:
        numbers = torch.tensor([_number(event, names, owner) for event in events], dtype=torch.long)
    if not _is_numbers(numbers) or numbers.shape[-1:] != (steps,):
        raise UserError(
            f"events: expected a number, or a column for each of {len(names)} events, for each of {steps} actions, "
            f"found {list(numbers.shape)} {numbers.dtype}"
        )
    if numbers.numel() and not (numbers.min() >= 0 and numbers.max() <= len(names)):
        known = ", ".join(f"{number} {name}" for number, name in enumerate(names, 1)) or "no events"
        wrong = numbers.max() if numbers.max() > len(names) else numbers.min()
        raise UserError(f"events: {owner} knows {known}, and 0 for none; found {int(wrong)}")
    return F.one_hot(numbers.long(), len(names) + 1)[..., 1:].float()


def _is_numbers(events: Tensor) -> bool:
    return not events.is_floating_point() and not events.is_complex() and events.dtype != torch.bool


def _number(event: str | int | None, names: Sequence[str], owner: str) -> int:
    if event is None:
        return 0
    return event_number(event, names, owner) if isinstance(event, str) else int(event)
