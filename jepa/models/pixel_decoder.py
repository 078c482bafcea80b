"""Pixel decoders in the native format, in a folder beside the model they belong to: RUN/model/pixels."""

from pathlib import Path

from jepa.config import UserError
from jepa.decoders.pixels import PixelDecoder
from jepa.models import checkpoint

FOLDER = "pixels"


def save_pixel_decoder(model: Path, decoder: PixelDecoder) -> None:
    """Write the decoder beside the model in the folder `model`."""
    checkpoint.save(model / FOLDER, decoder, {"kind": "pixel_decoder", "settings": decoder.settings})


def load_pixel_decoder(model: Path) -> PixelDecoder:
    """The decoder saved beside the model. Raises UserError if there is none, or it is damaged."""
    description = checkpoint.read_description(model / FOLDER)
    try:
        decoder = PixelDecoder(**description["settings"])
    except (KeyError, TypeError, ValueError) as error:
        raise UserError(f"{model / FOLDER}: does not describe a pixel decoder ({error})") from None
    checkpoint.load_into(decoder, model / FOLDER)
    return decoder.eval().requires_grad_(False)
