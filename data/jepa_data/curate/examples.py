"""Contact sheets: for each stage what it dropped nearest to its threshold, and what just stayed.

static: motion below 0.5 gray levels
┌──────┬──────┬──────┬──────┐
│      │      │      │      │  dropped  clip-0017   motion 0.47 gray levels, at least 0.5
└──────┴──────┴──────┴──────┘
┌──────┬──────┬──────┬──────┐
│      │      │      │      │  kept     clip-0431   0.52
└──────┴──────┴──────┴──────┘
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from jaxtyping import UInt8
from PIL import Image, ImageDraw, ImageFont

from jepa_data.curate.config import Look, NearDuplicates
from jepa_data.curate.measure import looked_at
from jepa_data.curate.report import CURATION, Curated, StageReport
from jepa_data.curate.table import Table
from jepa_data.errors import DecodeError
from jepa_data.inspect.contact_sheet import drawable
from jepa_data.inspect.summary import evenly
from jepa_data.shards.index import ShardSet
from jepa_data.shards.media import probe_media
from jepa_data.shards.read import ShardFiles

FOLDER = "examples"
SHOWN = 4  # frames of a video
# Pixels: of a frame's box, between two, above them all, and of the words beside them.
SIDE = 104
GAP = 8
HEADING = 34
WORDS = 560
PAPER = "#ffffff"
INK = "#30343b"
VERDICTS = {"dropped": "#b3261e", "kept": "#1b6e3c"}


@dataclass(frozen=True)
class Example:
    """A sample on a sheet, and what is written beside it."""

    row: int
    verdict: str
    words: str


def write_examples(shards: ShardSet, curated: Curated, out: Path, count: int) -> tuple[Path, ...]:
    """A PNG for each stage that dropped something that can be shown; of at most `count` dropped ones each."""
    written = []
    for number, stage in enumerate(curated.stages):
        chosen = list(_chosen(curated.table, stage, count))
        if stage.stage is None or not chosen:
            continue  # nothing can be shown of what cannot be read
        (out / FOLDER).mkdir(parents=True, exist_ok=True)
        path = out / FOLDER / f"{number:02d}-{stage.kind}.png"
        _sheet(shards, f"{stage.kind}: {stage.decision.rule}", chosen).save(path)
        written.append(path)
    return tuple(written)


def remove_report(out: Path) -> None:
    """Take away the report and the sheets of the curation before this one."""
    (out / CURATION).unlink(missing_ok=True)
    for path in (out / FOLDER).glob("[0-9][0-9]-*.png"):
        path.unlink()
    if (out / FOLDER).is_dir() and not any((out / FOLDER).iterdir()):
        (out / FOLDER).rmdir()


def _chosen(table: Table, stage: StageReport, count: int) -> Iterator[Example]:
    drops = stage.decision.drops
    measured = [drop for drop in drops if drop.value is not None and drop.threshold is not None]
    measured.sort(key=lambda drop: (abs((drop.value or 0.0) - (drop.threshold or 0.0)), drop.row))
    shown = measured[:count] or [drops[i] for i in evenly(len(drops), count)]
    for drop in shown:
        yield Example(drop.row, "dropped", f"{_named(table, drop.row)}\n{drop.reason}")
        if drop.like is not None:
            yield Example(drop.like, "kept", f"{_named(table, drop.like)}\nis like the one above")
    if not shown or isinstance(stage.stage, NearDuplicates):
        return
    stays = [row for row in stage.seen if row not in stage.dropped]
    half = -(-count // 2)
    near = [(row, f"\n{value:.4g}") for row, value in stage.decision.values.items()]
    for row, value in near[:half] or [(stays[i], "") for i in evenly(len(stays), half)]:
        yield Example(row, "kept", _named(table, row) + value)


def _sheet(shards: ShardSet, title: str, examples: Sequence[Example]) -> Image.Image:
    sheet = Image.new("RGB", (GAP + SHOWN * SIDE + GAP + WORDS, HEADING + len(examples) * (SIDE + GAP)), PAPER)
    draw = ImageDraw.Draw(sheet)
    font = ImageFont.load_default(13)
    files = ShardFiles(shards.store)
    draw.text((GAP, GAP), drawable(title), fill=INK, font=font)
    for number, example in enumerate(examples):
        top = HEADING + number * (SIDE + GAP)
        for i, image in enumerate(_images(shards, files, example.row)):
            box = Image.fromarray(image)
            box.thumbnail((SIDE, SIDE))
            sheet.paste(box, (GAP + i * SIDE + (SIDE - box.width) // 2, top + (SIDE - box.height) // 2))
        left = 2 * GAP + SHOWN * SIDE
        draw.text((left, top), example.verdict, fill=VERDICTS[example.verdict], font=font)
        for line, text in enumerate(_lines(example.words, draw, font, WORDS - 2 * GAP), 1):
            draw.text((left, top + 17 * line), text, fill=INK, font=font)
    return sheet


def _images(shards: ShardSet, files: ShardFiles, row: int) -> list[UInt8[np.ndarray, "h w 3"]]:
    """A few frames; gray boxes for what could be measured and cannot be read any more."""
    try:
        sample = shards.samples[row]
        data = files.read(sample)[sample.media]
        index = sample.video_index() or probe_media(data, sample.media)
        return list(looked_at(data, sample.media, index, Look.model_validate({"frames": SHOWN, "side": SIDE})))
    except DecodeError:
        return [np.full((SIDE, SIDE, 3), 233, np.uint8)]


def _named(table: Table, row: int) -> str:
    return f"{table.splits[row]}  {table.keys[row]}"


def _lines(
    text: str, draw: ImageDraw.ImageDraw, font: ImageFont.ImageFont | ImageFont.FreeTypeFont, width: int
) -> Iterator[str]:
    """Words broken into lines that fit."""
    for paragraph in drawable(text).split("\n"):
        line, *words = paragraph.split(" ")
        for word in words:
            if draw.textlength(f"{line} {word}", font=font) > width:
                yield line
                line = word
            else:
                line += f" {word}"
        yield line
