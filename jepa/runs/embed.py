"""`jepa embed`: latents of videos, as a table or as a picture.

    video → clips → encoder → latents [S, N, D] of each clip ─┬→ .npz, .parquet or shards     (embed_write.py)
                                                              └→ colours beside the input     (embed_pca.py)

A video is encoded whole, or in clips of `clip_frames` frames, each on its own and without overlap; the last clip is
shorter, and frames that fill no tubelet at the end are left out. The order is that of sorted names, or of the shards.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from jaxtyping import UInt8
from torch import Tensor

from jepa.config import UserError
from jepa.runs.embed_pca import draw_features, open_picture
from jepa.runs.embed_write import VideoLatents, open_writer
from jepa.runs.model import load
from jepa.world_model import LatentWorldModel
from jepa_data.errors import DecodeError
from jepa_data.shards.index import ShardSet
from jepa_data.shards.read import ShardFiles
from jepa_data.sources.corpus import VIDEO_FILES

CHUNK = 8  # clips encoded at once
Say = Callable[[str], None]


@dataclass(frozen=True)
class Video:
    """A video that has not been read yet."""

    name: str
    read: Callable[[], bytes | Path]


def embed(
    source: Path,
    model_path: str | Path,
    out: Path,
    *,
    kind: str | None = None,
    clip_frames: int | None = None,
    say: Say,
) -> int:
    """Write the latents of a video file, of every video below a folder, or of every sample of a folder of shards.

    A video that cannot be read is named, and the others are embedded.

    Args:
        kind: "npz", "parquet" or "shards"; None: by the ending of `out`, which for shards is a folder.
        clip_frames: frames encoded together; None: all of the video.

    Returns:
        Number of videos embedded.

    Raises:
        UserError: there is no video, none can be read, `out` cannot be written, or the model cannot take such clips.
    """
    videos = _videos(source)
    writer = open_writer(out, kind)
    model = load(model_path)
    _check_clip(model, clip_frames)
    done = failed = 0
    try:
        for video in videos:
            try:
                latents = _encode(model, video, clip_frames)
            except (DecodeError, UserError) as error:
                failed += 1
                say(f"left out: {video.name}: {error}")
                continue
            writer.add(latents)
            done += 1
        if not done:
            raise UserError(f"{source}: none of its {failed} videos could be embedded")
        written = writer.close()
    except BaseException:
        writer.discard()
        raise
    say(f"{out}: {done} video(s), {failed} left out; {written}")
    return done


def draw(source: Path, model_path: str | Path, out: Path, *, clip_frames: int | None = None, say: Say) -> str:
    """Draw what the encoder makes of a video as colours beside it, into `out` (.gif or .mp4).

    Returns:
        The name of the video: of several, the first that can be read.

    Raises:
        UserError: as `embed`, or the latents have no place in the picture.
    """
    videos = list(_videos(source))
    write = open_picture(out)
    model = load(model_path)
    _check_clip(model, clip_frames)
    for video in videos:
        try:
            frames = model.read_video(video.read())
        except (DecodeError, UserError) as error:
            say(f"left out: {video.name}: {error}")
            continue
        drawn = draw_features(model, frames, lambda part: cut(part, model.spec.frames_per_step, clip_frames))
        write(drawn, 1 / model.spec.step_seconds)
        which = video.name if len(videos) == 1 else f"{video.name}, the first of {len(videos)} videos"
        whole = frames.shape[1] // model.spec.frames_per_step
        steps = f"{len(drawn)} steps" if len(drawn) == whole else f"the first {len(drawn)} of {whole} steps"
        say(f"{out}: {which}; {steps} every {model.spec.step_seconds:g} s, colours are three principal components")
        return video.name
    raise UserError(f"{source}: none of its {len(videos)} videos can be read")


def cut(
    video: UInt8[Tensor, "1 T C h w"], frames_per_step: int, clip_frames: int | None
) -> list[UInt8[Tensor, "K n C h w"]]:
    """Clips of equal length, and then the rest if there is one; a video of less than one step as it is."""
    whole = video.shape[1] - video.shape[1] % frames_per_step
    length = min(clip_frames or whole, whole)
    if not length:
        return [video]
    count = whole // length
    parts = [video[0, : count * length].unflatten(0, (count, length))]
    return parts if count * length == whole else [*parts, video[:, count * length : whole]]


def _encode(model: LatentWorldModel, video: Video, clip_frames: int | None) -> VideoLatents:
    per_step, fps = model.spec.frames_per_step, model.preprocessing.fps
    clips = cut(model.read_video(video.read()), per_step, clip_frames)
    latents = torch.cat([model.encode(part, chunk=CHUNK).cpu().flatten(0, 1) for part in clips]).numpy()
    steps = [part.shape[1] // per_step for part in clips for _ in part]
    # A latent's time is that of its last frame, and the first frame of a video is at 0.
    seconds = (per_step - 1) / fps + model.spec.step_seconds * np.arange(len(latents))
    return VideoLatents(video.name, latents, seconds.astype(np.float32), tuple(steps), model.spec.step_seconds)


def _check_clip(model: LatentWorldModel, clip_frames: int | None) -> None:
    per_step = model.spec.frames_per_step
    if clip_frames is not None and (clip_frames < 1 or clip_frames % per_step):
        raise UserError(
            f"--clip-frames is {clip_frames}; this model takes multiples of {per_step} frames, at least one"
        )


def _videos(source: Path) -> Iterator[Video]:
    """Every video of a source, in order. Raises UserError, before anything else is done, if there is none."""
    if source.is_file():
        return iter([Video(source.name, lambda: source)])
    if not source.is_dir():
        raise UserError(f"{source}: no such file or folder")
    if (source / "manifest.json").is_file():
        return _samples(source)
    paths = sorted(path for path in source.rglob("*") if path.suffix[1:].lower() in VIDEO_FILES)
    if not paths:
        endings = ", ".join("." + ending for ending in sorted(VIDEO_FILES))
        raise UserError(f"{source}: no videos ({endings}) and no shards (manifest.json) in this folder")
    return (Video(path.relative_to(source).as_posix(), lambda path=path: path) for path in paths)


def _samples(folder: Path) -> Iterator[Video]:
    shards, files = ShardSet.open(folder), ShardFiles(folder)
    return (Video(sample.key, lambda sample=sample: files.read(sample)[sample.media]) for sample in shards.samples)
