"""`jepa export` and `jepa import`."""

from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer


class To(StrEnum):
    openjepa = "openjepa"
    huggingface = "huggingface"
    meta = "meta"
    onnx = "onnx"


class From(StrEnum):
    meta = "meta"
    huggingface = "huggingface"


class Weights(StrEnum):
    target_encoder = "target_encoder"
    encoder = "encoder"
    ema_encoder = "ema_encoder"


Overwrite = Annotated[bool, typer.Option("--overwrite", help="Replace existing output.")]


def export(
    source: Annotated[str, typer.Argument(metavar="RUN", help="A run or model folder, or a hub id (org/name).")],
    to: Annotated[To, typer.Option("--to", help="The format.")],
    out: Annotated[Path | None, typer.Option(help="Output file or folder.  [default: RUN/export/…]")] = None,
    image_size: Annotated[
        int | None, typer.Option(help="onnx: image size in pixels.  [default: as in training]")
    ] = None,
    frames: Annotated[int | None, typer.Option(help="onnx: frames per clip.  [default: as in training]")] = None,
    overwrite: Overwrite = False,
) -> None:
    """Export a model to the formats of other libraries.

    openjepa: model.json and model.safetensors, for `jepa.load`. huggingface: a folder for transformers' VJEPA2Model.
    meta: a .pt file for Meta's code. onnx: the encoder for clips of a fixed size, checked with onnxruntime.

    Example: jepa export runs/mine --to onnx --frames 16
    """
    from jepa.models.export import export as run_verb

    run_verb(source, to.value, out, image_size=image_size, frames=frames, overwrite=overwrite)


def import_(
    source: Annotated[
        str, typer.Argument(metavar="FILE", help="Meta's .pt file, a folder written by transformers, or a hub id.")
    ],
    origin: Annotated[From, typer.Option("--from", help="The format of FILE.")],
    out: Annotated[Path | None, typer.Option(help="Output folder.  [default: models/NAME]")] = None,
    image_size: Annotated[
        int | None, typer.Option(help="meta: image size in training, in pixels; the file does not contain it.")
    ] = None,
    frames: Annotated[int | None, typer.Option(help="meta: frames per clip in training.")] = None,
    fps: Annotated[float | None, typer.Option(help="meta: frames per second in training.  [default: 4]")] = None,
    heads: Annotated[int | None, typer.Option(help="meta: attention heads; needed for unpublished widths.")] = None,
    predictor_heads: Annotated[
        int | None, typer.Option(help="meta: attention heads of the predictor, if not as published.")
    ] = None,
    weights: Annotated[Weights, typer.Option(help="meta: which encoder of the file to read.")] = Weights.target_encoder,
    overwrite: Overwrite = False,
) -> None:
    """Convert published weights to a model folder, for `jepa embed`, `jepa probe` and `jepa.load`.

    Reads Meta's checkpoints of V-JEPA 1, 2, 2.1 and 2-AC, and V-JEPA 2 and its classifiers from Hugging Face. Missing
    tensors, extra tensors and wrong shapes are errors. Pickled code is never executed.

    Example: jepa import vitl.pt --from meta --image-size 256 --frames 64

    Example: jepa import facebook/vjepa2-vitl-fpc64-256 --from huggingface
    """
    from jepa.models.export import import_ as run_verb

    run_verb(
        source,
        origin.value,
        out,
        image_size=image_size,
        frames=frames,
        fps=fps,
        heads=heads,
        predictor_heads=predictor_heads,
        weights=weights.value,
        overwrite=overwrite,
    )
