"""A contact sheet: evenly spread samples of a folder of shards, each by its first, middle and last frame.

┌──────┬──────┬──────┐ ┌──────┬──────┬──────┐
│ first│middle│ last │ │      │      │      │
└──────┴──────┴──────┘ └──────┴──────┴──────┘
train  clip-0017       train  clip-0431           samples that cannot be read say why
"""

from collections.abc import Callable
from pathlib import Path

import numpy as np
from jaxtyping import UInt8
from PIL import Image, ImageDraw, ImageFont

from jepa_data.decode import get_backend
from jepa_data.errors import DecodeError
from jepa_data.inspect.summary import evenly
from jepa_data.shards.index import ShardSet
from jepa_data.shards.manifest import IMAGES, Sample
from jepa_data.shards.media import still
from jepa_data.shards.read import ShardFiles
from jepa_data.writable import writing

SIDE = 112  # pixels of a frame's box
STEP = SIDE + 2  # from one box to the next
GAP = 10
TEXT = 18  # height of the line below


def contact_sheet(
    shards: ShardSet,
    out: Path,
    samples: int = 24,
    columns: int = 3,
    progress: Callable[[int], None] = lambda done: None,
) -> int:
    """Write a PNG, and give back how many samples are on it. Raises DataError if it cannot be written."""
    chosen = evenly(len(shards.samples), samples)
    rows = -(-len(chosen) // columns)
    wide = 3 * STEP + GAP
    high = SIDE + TEXT + GAP
    sheet = Image.new("RGB", (columns * wide + GAP, rows * high + GAP), "#ffffff")
    draw = ImageDraw.Draw(sheet)
    font = ImageFont.load_default(12)
    files = ShardFiles(shards.store)
    for index, number in enumerate(chosen):
        left = GAP + index % columns * wide
        top = GAP + index // columns * high
        ink = "#30343b"
        key = f"sample {number}"
        try:
            sample = shards.samples[number]
            key = f"{sample.split}  {sample.key}"
            for i, image in enumerate(_frames(files, sample)):
                sheet.paste(_boxed(image), (left + i * STEP, top))
        except DecodeError as error:
            ink = "#b3261e"
            key = f"{error.kind}: {key}"
            draw.rectangle((left, top, left + 3 * STEP - 3, top + SIDE - 1), fill="#e9eaed")
        draw.text((left, top + SIDE + 3), _fitting(key, draw, font), fill=ink, font=font)
        progress(index + 1)
    with writing(out):
        sheet.save(out, format="PNG")
    return len(chosen)


def _frames(files: ShardFiles, sample: Sample) -> list[UInt8[np.ndarray, "h w 3"]]:
    """First, middle and last frame; the one frame of an image. Raises DecodeError."""
    data = files.read(sample)[sample.media]
    if sample.media in IMAGES:
        return [still(data, None, None)[0]]
    with get_backend("pyav").open(data, sample.video_index()) as reader:
        last = reader.index.frames - 1
        size = _fitted(reader.index.height, reader.index.width)
        return list(reader.frames(sorted({0, last // 2, last}), size=size))


def _fitted(height: int, width: int) -> tuple[int, int]:
    """The size at which an image fills the box one way; it is never made larger."""
    scale = min(1.0, SIDE / max(height, width))
    return max(1, round(height * scale)), max(1, round(width * scale))


def _boxed(image: UInt8[np.ndarray, "h w 3"]) -> Image.Image:
    box = Image.new("RGB", (SIDE, SIDE), "#14161a")
    height, width = _fitted(*image.shape[:2])
    small = Image.fromarray(image).resize((width, height), Image.Resampling.BICUBIC)
    box.paste(small, ((SIDE - width) // 2, (SIDE - height) // 2))
    return box


def _fitting(text: str, draw: ImageDraw.ImageDraw, font: ImageFont.ImageFont | ImageFont.FreeTypeFont) -> str:
    """The text, its end cut off where it is wider than three frames."""
    text = drawable(text)
    while draw.textlength(text, font=font) > 3 * STEP:
        text = text[:-4] + "..."
    return text


def drawable(text: str) -> str:
    """The default font has no letters beyond Latin-1."""
    return text.encode("latin-1", "replace").decode("latin-1")
