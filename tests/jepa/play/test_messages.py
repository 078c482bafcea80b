"""What a page sends is checked; of a flood only the latest counts."""

import io
import json

import numpy as np
import pytest
from PIL import Image
from pydantic import ValidationError

from jepa.play.messages import Inputs, Message, encode_picture, pack


@pytest.mark.parametrize(
    "text",
    [
        "",
        "[]",
        "{",
        '{"axes": [2, 0, 0]}',
        '{"axes": [0, 0]}',
        '{"axes": [NaN, 0, 0]}',
        '{"fps": 0}',
        '{"fps": 1e9}',
        '{"goal": [0.5, 1.5]}',
        '{"goal": "elsewhere"}',
        '{"run": -1}',
        '{"temperature": Infinity}',
        '{"unknown": 1}',
        '{"reset": "yes"}',
    ],
)
def test_a_message_that_makes_no_sense_is_refused(text: str) -> None:
    with pytest.raises(ValidationError):
        Message.model_validate_json(text)


def test_of_many_messages_the_latest_counts_and_no_button_is_lost() -> None:
    inputs = Inputs()
    inputs.add(Message(reground=True, event=1))
    for number in range(10_000):
        inputs.add(Message(axes=(number / 10_000, 0.0, 0.0), seq=number, event=number, fps=1 + number % 100))
    taken = inputs.take()
    assert taken.seq == 9999 and taken.axes[0] == 0.9999 and taken.settings == {"fps": 100}
    assert taken.buttons == {"reground"} and len(taken.events) == 64
    again = inputs.take()
    assert again.axes == taken.axes and not (again.buttons or again.events or again.settings)


@pytest.mark.parametrize(("side", "kind"), [(64, "rgb"), (80, "webp")])
def test_a_frame_holds_its_header_and_pictures_bit_for_bit(side: int, kind: str) -> None:
    picture = np.random.default_rng(0).integers(0, 255, (side, side, 3), np.uint8)
    frame = pack({"step": 3}, {"imagined": encode_picture(picture), "true": encode_picture(picture)})
    length = int.from_bytes(frame[:4], "little")
    header = json.loads(frame[4 : 4 + length])
    size = header["pictures"][0][-1]
    assert header["step"] == 3 and header["pictures"][1] == ["true", kind, side, side, size]
    first = frame[4 + length :][:size]
    pixels = np.frombuffer(first, np.uint8) if kind == "rgb" else np.asarray(Image.open(io.BytesIO(first)))
    assert (pixels.reshape(picture.shape) == picture).all() and len(frame) == 4 + length + 2 * size
