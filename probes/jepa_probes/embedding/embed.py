"""`jepa embed`: latents of videos and images, as a table or as an image.

    file → clips → encoder → latents [S, N, D] of each clip ─┬→ .npz, .parquet or shards     (write.py)
                                                             └→ colors beside the input      (pca.py)

A file is read at the model's rate and size, in clips of `clip_frames` frames without overlap, a block at a time: memory
does not grow with its length. The last clip is shorter, and frames that fill no tubelet at the end are left out. The
order is that of sorted names, or of the shards.
"""

import logging
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
from jaxtyping import Float32

from jepa.config import UserError
from jepa.models.model import load
from jepa.world_model import LatentWorldModel
from jepa_data.decode import Limits
from jepa_data.errors import DecodeError
from jepa_data.preprocessing import VideoFile
from jepa_data.printable import printable
from jepa_data.shards.index import ShardSet
from jepa_data.shards.read import ShardFiles
from jepa_data.sources.corpus import IMAGE_FILES, VIDEO_FILES
from jepa_data.sources.walk import walk
from jepa_probes.embedding.pca import draw_features, open_image
from jepa_probes.embedding.write import EncodedVideo, kind_of, writer_of

logger = logging.getLogger(__name__)

CHUNK = 8  # clips encoded at once
REPORT_SECONDS = 10.0  # between two lines about the progress of one file
UNREADABLE = (DecodeError, UserError, OSError)  # what is wrong with one file, and no reason to stop


@dataclass(frozen=True)
class Video:
    """A video or image that has not been read yet."""

    name: str
    read: Callable[[], bytes | Path]


def embed(
    source: Path,
    model_path: str | Path,
    out: Path,
    *,
    kind: str | None = None,
    clip_frames: int | None = None,
    timeout_seconds: float = Limits.timeout_seconds,
) -> int:
    """Write the latents of a file, of every video and image below a folder, or of every sample of a folder of shards.

    What cannot be read is named and counted, and the others are embedded.

    Args:
        kind: "npz", "parquet" or "shards"; None: by the ending of `out`, which for shards is a folder.
        clip_frames: frames encoded together; None: as many as in training.
        timeout_seconds: longest time for opening a file, and for decoding a block of it.

    Returns:
        Number of files embedded.

    Raises:
        UserError: there is no video or image, none can be read, `out` cannot be written, or the model cannot take
            such clips. What was embedded before the writing failed is kept, in a file that the last line names.
    """
    videos = _videos(source)
    out = out.expanduser()
    with writer_of(out, kind_of(out, kind)) as writer:
        model = load(model_path)
        clip_frames = _checked_clip(model, clip_frames)
        names, left_out = set[str](), 0
        try:
            for video in videos:
                try:
                    if video.name in names:
                        raise UserError("another one before it has this name")
                    names.add(video.name)
                    with model.open_video(video.read(), Limits(timeout_seconds=timeout_seconds)) as file:
                        writer.add(_encoded(model, file, video.name, clip_frames, partial(_progress, video.name)))
                except UNREADABLE as error:
                    if writer.failed:
                        raise
                    left_out += 1
                    logger.info(f"left out: {video.name}: {error}")
            if not writer.count:
                raise UserError(f"{source}: none of its {left_out} videos and images could be embedded")
            written = writer.close()
        except BaseException:
            if kept := writer.abandon():
                logger.info(f"stopped: what was embedded until then, {writer.count} file(s), is in {kept}")
            raise
        logger.info(f"{out}: {writer.count} file(s), {left_out} left out; {written}")
        return writer.count


def draw(source: Path, model_path: str | Path, out: Path, *, clip_frames: int | None = None) -> str:
    """Draw what the encoder makes of a video as colors beside it, into `out` (.gif or .mp4).

    Returns:
        The name of the video: of several, the first that can be read.

    Raises:
        UserError: as `embed`, or the latents have no place in the image.
    """
    videos = list(_videos(source))
    write = open_image(out)
    model = load(model_path)
    clip_frames = _checked_clip(model, clip_frames)
    for video in videos:
        try:
            with model.open_video(video.read()) as file:
                drawn = draw_features(model, file, clip_frames)
        except DecodeError as error:
            logger.info(f"left out: {video.name}: {error}")
            continue
        write(drawn, 1 / model.spec.step_seconds)
        which = video.name
        if len(videos) > 1:
            which += f", the first of {len(videos)} files"
        whole = max(1, file.frames // model.spec.frames_per_step)
        steps = f"{len(drawn)} steps" if len(drawn) == whole else f"the first {len(drawn)} of {whole} steps"
        logger.info(
            f"{out}: {which}; {steps} every {model.spec.step_seconds:g} s, colors are three principal components"
        )
        return video.name
    raise UserError(f"{source}: none of its {len(videos)} videos can be read")


def _encoded(
    model: LatentWorldModel,
    file: VideoFile,
    name: str,
    clip_frames: int | None,
    progress: Callable[[Iterator[np.ndarray], int], Iterator[np.ndarray]],
) -> EncodedVideo:
    """A file whose latents are computed when they are written."""
    per_step = model.spec.frames_per_step
    if file.is_image:
        per_step = 1
    steps = file.frames // per_step
    if not steps:
        raise UserError(f"it has {file.frames} frame(s) at the model's rate; one latent step takes {per_step}")
    parts = (z.float().cpu().numpy() for z in model.encode_file(file, file.clips(clip_frames), CHUNK))
    # A latent's time is that of its last frame, and the first frame of a video is at 0.
    times = (per_step - 1) / model.preprocessing.fps + model.spec.step_seconds * np.arange(steps)
    return EncodedVideo(name, times.astype(np.float32), model.spec.step_seconds, progress(parts, steps))


def _progress(
    name: str, parts: Iterator[Float32[np.ndarray, "K S N D"]], steps: int
) -> Iterator[Float32[np.ndarray, "K S N D"]]:
    """The same parts; a line now and then where a file takes long."""
    done, spoken = 0, time.monotonic()
    for part in parts:
        yield part
        done += part.shape[0] * part.shape[1]
        if time.monotonic() - spoken > REPORT_SECONDS:
            spoken = time.monotonic()
            logger.info(f"{name}: {done} of {steps} latent steps")


def _checked_clip(model: LatentWorldModel, clip_frames: int | None) -> int | None:
    """Frames of a clip: as many as in training, if nobody says otherwise."""
    per_step = model.spec.frames_per_step
    if clip_frames is None:
        trained = model.preprocessing.clip_frames
        return trained and max(per_step, trained - trained % per_step)
    if clip_frames < 1 or clip_frames % per_step:
        raise UserError(
            f"--clip-frames is {clip_frames}; this model takes multiples of {per_step} frames, at least one"
        )
    return clip_frames


def _videos(source: Path) -> Iterator[Video]:
    """Every video and image of a source, in order. Raises UserError, before anything is done, if there is none."""
    source = source.expanduser()
    if source.is_file():
        return iter([Video(printable(source.name), lambda: source)])
    if not source.is_dir():
        raise UserError(f"{printable(source)}: no such file or folder")
    if (source / "manifest.json").is_file():
        return _samples(source)
    listing = walk(source, VIDEO_FILES | IMAGE_FILES)
    for note in listing.notes:
        logger.info(note)
    if not listing.files:
        endings = ", ".join("." + ending for ending in sorted(VIDEO_FILES | IMAGE_FILES))
        raise UserError(f"{source}: no videos or images ({endings}) and no shards (manifest.json) in this folder")
    return (Video(printable(path.relative_to(source)), lambda path=path: path) for path in listing.files)


def _samples(folder: Path) -> Iterator[Video]:
    samples, files = ShardSet.open(folder).samples, ShardFiles(folder)
    return (Video(sample.key, lambda sample=sample: files.read(sample)[sample.media]) for sample in samples)
