"""An encoder as an ONNX file, for programs without torch.

    video    [batch, T, 3, h, w]   float32, normalized; batch is free, T, h and w are those the file was made for
    latents  [batch, S, N, D]

ONNX has no complex numbers, so the rotary table of these T, h and w is stored in the file as real ones. What prepares
video for it (size, frames, rate, mean, std) stands in the file's metadata. An encoder of over 2 GB keeps its weights
beside the file, in FILE.data.

Needs the packages onnxscript and onnxruntime: pip install 'openjepa[onnx]'.
"""

import logging
import os
import tempfile
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import torch
from jaxtyping import Float
from torch import Tensor, nn

from jepa.config import UserError
from jepa.encoders.video_vit import VideoViT

FORMAT = "openjepa-onnx"
TOLERANCE = 1e-4  # of the checked latents, which LayerNorm keeps near 1
CHECKED_BATCHES = (1, 3)


def to_onnx(
    encoder: nn.Module, path: Path, *, image_size: int, frames: int, about: Mapping[str, str] | None = None
) -> float:
    """Write the encoder for clips of this length and size, and run it with onnxruntime.

    Args:
        encoder: takes video `[B, T, 3, h, w]`, in evaluation mode.
        about: more for the file's metadata.

    Returns:
        The greatest difference of onnxruntime's latents from ours, over batches of 1 and 3 random clips.

    Raises:
        UserError: the encoder does not take such clips, onnxruntime disagrees by more than 1e-4 (no file is written
            then), or a package is missing.
    """
    try:
        import onnxruntime  # noqa: F401 - asked for before the work, not after
        import onnxscript  # noqa: F401
    except ImportError as error:
        raise UserError(f"ONNX files need the package {error.name}: pip install 'openjepa[onnx]'") from None
    generator = torch.Generator().manual_seed(0)
    clips = [torch.randn(n, frames, 3, image_size, image_size, generator=generator) for n in CHECKED_BATCHES]
    metadata = {"format": FORMAT, "image_size": str(image_size), "frames": str(frames), **(about or {})}
    with torch.no_grad(), tempfile.TemporaryDirectory(dir=path.parent, prefix=".onnx-") as folder:
        try:
            expected = [encoder(video) for video in clips]
        except ValueError as error:
            raise UserError(f"the encoder takes no clips of {frames} frames of {image_size} pixels: {error}") from None
        partial = Path(folder) / path.name
        _write(encoder, clips[-1], partial, metadata)
        difference = max(map(_difference, _run(partial, clips), expected))
        if not difference <= TOLERANCE:
            raise UserError(
                f"{path}: onnxruntime's latents differ from ours by up to {difference:.1e}, more than {TOLERANCE:.0e}; "
                "no file was written. Another version of onnxruntime may do better"
            )
        for file in sorted(Path(folder).iterdir(), key=lambda file: file == partial):  # the weights first
            os.replace(file, path.parent / file.name)
    return difference


def _write(encoder: nn.Module, video: Float[Tensor, "B T C h w"], path: Path, metadata: Mapping[str, str]) -> None:
    with _baked_tables(encoder, video), _quiet():
        program = torch.onnx.export(
            encoder,
            (video,),
            dynamo=True,
            input_names=["video"],
            output_names=["latents"],
            dynamic_shapes=({0: torch.export.Dim("batch")},),
            verbose=False,
        )
        assert program is not None
        program.model.metadata_props.update(metadata)
        program.save(path)


@contextmanager
def _baked_tables(encoder: nn.Module, video: Float[Tensor, "B T C h w"]) -> Iterator[None]:
    """Within, a `VideoViT` in the encoder has the rotary table of `video` as a constant of real numbers."""
    vits = [module for module in encoder.modules() if isinstance(module, VideoViT) and module.positions != "sincos"]
    try:
        for vit in vits:
            tables = list[Tensor]()
            original = vit.rotary_table

            def record(positions: Tensor, original=original, tables=tables) -> Tensor | None:
                tables.append(original(positions))
                return tables[0]

            vit.rotary_table = record
            encoder(video[:1])
            real = torch.view_as_real(tables[0]).clone()
            vit.rotary_table = lambda positions, real=real: real
        yield
    finally:
        for vit in vits:
            vars(vit).pop("rotary_table", None)


def _run(path: Path, clips: list[Tensor]) -> list[Tensor]:
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    return [torch.from_numpy(session.run(None, {"video": video.numpy()})[0]) for video in clips]


def _difference(output: Tensor, expected: Tensor) -> float:
    return (output - expected).abs().max().item() if output.shape == expected.shape else float("inf")


@contextmanager
def _quiet() -> Iterator[None]:
    """Without the exporter's progress and its advice to its own developers; what fails still raises."""
    loggers = [logging.getLogger(name) for name in ("torch.onnx", "onnxscript", "onnx_ir")]
    levels = [logger.level for logger in loggers]
    try:
        for logger in loggers:
            logger.setLevel(logging.ERROR)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)
