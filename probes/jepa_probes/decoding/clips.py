"""What a decoder is fitted to and measured on: clips of a run, their latents, and the last frame of each step."""

from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float, Int, UInt8
from torch import Tensor

from jepa.world_model import LatentWorldModel
from jepa_data.config import StreamConfig
from jepa_data.stream.loader import ClipLoader, make_loader
from jepa_data.types import ClipBatch

BATCH = 64  # clips encoded at once


@dataclass(frozen=True)
class DecodedClips:
    """Latents of E clips of S steps, and the frame that ends each step.

    `keys`, `start_seconds`: the sample of each clip, and where in it the clip starts.
    """

    latents: Float[Tensor, "E S N D"]
    frames: UInt8[Tensor, "E S 3 h w"]
    keys: tuple[str, ...]
    start_seconds: Float[np.ndarray, " E"]

    def __len__(self) -> int:
        return len(self.keys)


def read_clips(
    model: LatentWorldModel, data: StreamConfig, split: str, *, seed: int, clips: int, clip_frames: int | None = None
) -> DecodedClips:
    """Training clips in random order and at random places, or each held-out sample once.

    Args:
        clips: at most so many.
        clip_frames: None: as the data say.
    """
    size = min(clips, BATCH)
    changes = {"clip_frames": clip_frames or data.clip_frames, "spatial": (), "batch_size": size}
    settings = data.model_copy(update=changes)
    train = split == "train"
    batches = -(-clips // size) if train else None
    loader = make_loader(settings, split, seed=seed, total_batches=batches, shuffle=train)
    return collect(model, loader, clips)


def collect(model: LatentWorldModel, loader: ClipLoader, clips: int) -> DecodedClips:
    """Encode the first clips of a loader."""
    tubelet = model.spec.frames_per_step
    parts: list[ClipBatch] = []
    latents: list[Tensor] = []
    left = clips
    for batch in loader:
        video = batch.video[:left]
        latents.append(model.encode_clips(video))
        parts.append(batch)
        left -= len(video)
        if left <= 0:
            break
    z = torch.cat(latents)
    frames = torch.cat([last_frames(batch.video, tubelet) for batch in parts])[: len(z)]
    keys = tuple(key for batch in parts for key in batch.keys)[: len(z)]
    starts = torch.cat([batch.start_seconds for batch in parts])[: len(z)].cpu().double().numpy()
    return DecodedClips(z, frames, keys, starts)


def last_frames(video: UInt8[Tensor, "B T 3 h w"], tubelet: int) -> UInt8[Tensor, "B S 3 h w"]:
    """Of each latent step."""
    return video[:, tubelet - 1 :: tubelet]


def frame_numbers(start: int, steps: int, tubelet: int, stride: int) -> Int[np.ndarray, " S"]:
    """Numbers of these frames in the recording; `stride`: its frames for one of the clip."""
    return start + stride * (tubelet * np.arange(steps) + tubelet - 1)
