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


Overwrite = Annotated[bool, typer.Option("--overwrite", help="Replace what is there.")]


def export(
    source: Annotated[str, typer.Argument(metavar="RUN", help="A run or model folder, or a hub id (org/name).")],
    to: Annotated[To, typer.Option("--to", help="The format.")],
    out: Annotated[Path | None, typer.Option(help="By default RUN/export/…")] = None,
    image_size: Annotated[
        int | None, typer.Option(help="onnx: pixels of the clips. By default as in training.")
    ] = None,
    frames: Annotated[int | None, typer.Option(help="onnx: frames of the clips. By default as in training.")] = None,
    overwrite: Overwrite = False,
) -> None:
    """Write a model for other programs.

    openjepa: model.json and model.safetensors, all that `jepa.load` needs. huggingface: a folder for transformers'
    VJEPA2Model. meta: a .pt file for Meta's code. onnx: the encoder for clips of one size, checked with onnxruntime.

    Example: jepa export runs/mine --to onnx --frames 16
    """
    from jepa.models.export import export as run_verb

    run_verb(source, to.value, out, image_size=image_size, frames=frames, overwrite=overwrite)


def import_(
    source: Annotated[
        str, typer.Argument(metavar="FILE", help="Meta's .pt; or a folder of transformers, or a hub id.")
    ],
    origin: Annotated[From, typer.Option("--from", help="Whose format it is.")],
    out: Annotated[Path | None, typer.Option(help="Folder to write. By default models/NAME.")] = None,
    image_size: Annotated[
        int | None, typer.Option(help="meta: pixels it was trained on; its file does not say.")
    ] = None,
    frames: Annotated[int | None, typer.Option(help="meta: frames of the clips it was trained on.")] = None,
    fps: Annotated[float | None, typer.Option(help="meta: frames a second it was trained on.  [default: 4]")] = None,
    heads: Annotated[int | None, typer.Option(help="meta: heads, where the width is none of the published.")] = None,
    predictor_heads: Annotated[
        int | None, typer.Option(help="meta: heads of the predictor, where they are not the published ones'.")
    ] = None,
    weights: Annotated[Weights, typer.Option(help="meta: which encoder of the file.")] = Weights.target_encoder,
    overwrite: Overwrite = False,
) -> None:
    """Write published weights as a model folder, for `jepa embed`, `jepa probe` and `jepa.load`.

    V-JEPA 1, 2, 2.1 and 2-AC of Meta; V-JEPA 2 and its classifiers of Hugging Face. A tensor that is missing, surplus
    or of another shape is an error. No file that could hold code is opened.

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
