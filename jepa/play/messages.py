"""What browser and server tell each other.

browser → server   JSON, see `Message`: the state of the keys, and buttons
server → browser   JSON: {"hello": …}, {"notice": …}; and a frame as one binary message:
                   length of the header (4 bytes, little-endian) · header (JSON) · pictures, one after the other
"""

import io
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Annotated, Any, Literal

import numpy as np
from jaxtyping import UInt8
from PIL import Image
from pydantic import Field

from jepa.config import Config
from jepa.config.fields import Share

MAX_BYTES = 4096  # of a message of a browser
RAW_BYTES = 64 * 64 * 3  # of a picture that is sent as it is
Axis = Annotated[float, Field(ge=-1, le=1, allow_inf_nan=False)]
Time = Annotated[float, Field(ge=0, le=1e6, allow_inf_nan=False)]


class Stats(Config):
    """What a browser measured over the last second or so."""

    fps: Time
    latency_ms: Time | None = None


class Message(Config):
    """Keys and buttons. Only the page that drives is heard, but for `drawn`.

    `axes`: held, to the right, downwards and the third; `seq` counts the changes of them. `drawn`: frames so far.
    """

    axes: tuple[Axis, Axis, Axis] | None = None
    seq: int | None = Field(default=None, ge=0, le=2**53)
    fps: int | None = Field(default=None, gt=0, le=120)
    temperature: float | None = Field(default=None, ge=0, le=10)
    truth: bool | None = None
    keep_grounded: bool | None = None
    record: bool | None = None
    run: int | None = Field(default=None, ge=0)
    event: int | None = Field(default=None, ge=0)
    goal: tuple[Share, Share] | Literal["draw"] | None = None
    reground: bool = False
    reset: bool = False
    stop: bool = False
    drawn: int | None = Field(default=None, ge=0, le=2**53)
    stats: Stats | None = None


SETTINGS = ("fps", "temperature", "truth", "keep_grounded", "record", "run", "goal")
BUTTONS = ("reground", "reset", "stop")


@dataclass
class Inputs:
    """What happened since the last frame: of each kind only the latest, so that a flood of messages costs nothing."""

    axes: tuple[float, float, float] = (0.0, 0.0, 0.0)
    seq: int = 0
    settings: dict[str, Any] = field(default_factory=dict)
    buttons: set[str] = field(default_factory=set)
    events: set[int] = field(default_factory=set)

    def add(self, message: Message) -> None:
        """Take over what a message says."""
        if message.axes is not None:
            self.axes = message.axes
        if message.seq is not None:
            self.seq = message.seq
        for name in SETTINGS:
            if (value := getattr(message, name)) is not None:
                self.settings[name] = value
        self.buttons.update(name for name in BUTTONS if getattr(message, name))
        if message.event is not None and len(self.events) < 64:
            self.events.add(message.event)

    def take(self) -> "Inputs":
        """All of it, for a frame; what is held stays."""
        taken = Inputs(self.axes, self.seq, self.settings, self.buttons, self.events)
        self.settings = {}
        self.buttons = set()
        self.events = set()
        return taken

    def release(self) -> None:
        """Nothing is held: whoever held it left."""
        self.axes = (0.0, 0.0, 0.0)
        self.seq = 0


@dataclass(frozen=True)
class Encoded:
    """A picture for the browser."""

    kind: Literal["rgb", "webp"]
    width: int
    height: int
    data: bytes


def pack(header: Mapping[str, Any], pictures: Mapping[str, Encoded]) -> bytes:
    """A frame as one binary message; the header gets [name, kind, width, height, bytes] of each picture."""
    about = [[name, one.kind, one.width, one.height, len(one.data)] for name, one in pictures.items()]
    text = json.dumps({**header, "pictures": about}, separators=(",", ":"), allow_nan=False).encode()
    return b"".join((len(text).to_bytes(4, "little"), text, *(one.data for one in pictures.values())))


def encode_picture(picture: UInt8[np.ndarray, "h w 3"]) -> Encoded:
    """Without loss: raw pixels of small pictures, WebP of larger ones.

    At 64 px, raw takes 12 kB and no time, WebP 4.8 kB and 0.5 ms, PNG 5.6 kB and 0.9 ms; browsers decode the last two
    in a thread of their own, for which a frame waits on a busy machine.
    """
    height, width, _ = picture.shape
    if picture.nbytes <= RAW_BYTES:
        return Encoded("rgb", width, height, picture.tobytes())
    buffer = io.BytesIO()
    Image.fromarray(picture).save(buffer, "WEBP", lossless=True, method=0)
    return Encoded("webp", width, height, buffer.getvalue())
