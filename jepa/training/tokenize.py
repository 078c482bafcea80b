"""`jepa data tokenize`: the latents of a frozen encoder for every frame of a folder of shards, computed once.

    video of a sample ──→ every run of `tubelet` frames ──→ frozen encoder ──→ latents [R, N, D], as bf16 or int8

Methods on a frozen encoder read them in place of video: `method.latents_from`. They must be of single latent steps, as
those of every frozen encoder here are: a latent depends on its own frames alone.
"""

from collections.abc import Callable
from itertools import groupby
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float, UInt8
from torch import Tensor

from jepa.config.writing import replacing
from jepa.encoders.module import Encoder
from jepa.training.clips import pixels_of
from jepa.training.encoder_from import open_frozen
from jepa.training.run_state.checkpoints import tensors_sha256
from jepa.world_model import Preprocessing
from jepa_data.decode import Limits, get_backend
from jepa_data.errors import DataError
from jepa_data.sampling import action_stride, fitted_box
from jepa_data.shards.index import ShardSet
from jepa_data.shards.manifest import IMAGES, Manifest, Sample
from jepa_data.shards.read import ClipSpec, SampleReader
from jepa_data.stream.latents import (
    LATENTS,
    LatentsFile,
    LatentsManifest,
    Precision,
    manifest_sha256,
    to_stored,
    write_file,
)
from jepa_data.writable import check_empty, holding

ROWS = 64  # latent steps encoded at once


def tokenize(
    shards: str,
    out: Path,
    model: str,
    *,
    precision: Precision = "bf16",
    timeout_seconds: float = 60.0,
    progress: Callable[[int], None] = lambda done: None,
) -> LatentsManifest:
    """Write the latents of all samples of a folder of shards.

    Args:
        model: run, model folder or hub id of the encoder.
        precision: bf16 (2 bytes per number), or int8 with a scale per token.
        timeout_seconds: limit for decoding a video.
        progress: called with the number of samples done.

    Raises:
        UserError: there is no such model, or its latents depend on other frames than their own.
        DataError: the shards cannot be read, or OUT is not empty, cannot be written, or another process writes to it.
        DecodeError: a video cannot be read; leave it out by `jepa data curate` first.
    """
    source = ShardSet.open(shards)
    about, encoder = open_frozen(model)
    pixels = about.preprocessing
    apart = _frames_apart(source.manifest, pixels, encoder.tubelet)
    size = (pixels.image_size, pixels.image_size)
    reader = SampleReader(source.store, get_backend("pyav"), Limits(timeout_seconds=timeout_seconds), size, 0, 0)
    files = list[LatentsFile]()
    done = 0
    with holding(out):
        check_empty(out)
        for shard, samples in groupby(source.samples, lambda sample: sample.shard):
            tensors = dict[str, Tensor]()
            for sample in samples:
                video = _video(reader, sample, pixels)
                stored = to_stored(_latents(encoder, pixels, video, apart), precision)
                tensors |= {sample.key + suffix: value for suffix, value in stored.items()}
                done += 1
                progress(done)
            files.append(write_file(out, shard, tensors))
        manifest = LatentsManifest(
            model=model,
            encoder_sha256=tensors_sha256(encoder),
            shards=source.url,
            shards_sha256=manifest_sha256(source.manifest),
            tokens=encoder.tokens,
            width=encoder.width,
            frames_per_step=encoder.tubelet,
            frames_apart=apart,
            precision=precision,
            pixels=pixels_of(pixels),
            files=tuple(files),
        )
        with replacing(out / LATENTS) as partial:
            partial.write_text(manifest.to_file())
    return manifest


def _frames_apart(manifest: Manifest, pixels: Preprocessing, tubelet: int) -> int:
    """Video frames between two frames of a latent step. Raises DataError if the rates do not divide."""
    return 1 if tubelet == 1 or manifest.fps is None else action_stride(manifest.fps, pixels.fps)


def _video(reader: SampleReader, sample: Sample, pixels: Preprocessing) -> UInt8[Tensor, "F C h w"]:
    """All frames of a sample, as the encoder is shown them. Raises DataError for an image."""
    index = sample.video_index()
    if index is None or sample.media in IMAGES:
        raise DataError(f"{sample.shard}: sample {sample.key!r}: expected video with an index, found .{sample.media}")
    crop = fitted_box(index.height, index.width, pixels.image_size, pixels.fit, pixels.shortest_edge)
    frames, _ = reader.clips(sample, ClipSpec(np.arange(index.frames), crop))
    return torch.from_numpy(np.ascontiguousarray(frames)).permute(0, 3, 1, 2)


@torch.inference_mode()
def _latents(
    encoder: Encoder, pixels: Preprocessing, video: UInt8[Tensor, "F C h w"], apart: int
) -> Float[Tensor, "R N D"]:
    """The latent of every step that the video holds, by its first frame."""
    rows = len(video) - (encoder.tubelet - 1) * apart
    steps = torch.arange(max(0, rows))[:, None] + apart * torch.arange(encoder.tubelet)
    parts = [encoder(pixels.normalized(video[part]))[:, 0] for part in steps.split(ROWS)]
    return torch.cat(parts).float() if rows > 0 else torch.zeros(0, encoder.tokens, encoder.width)
