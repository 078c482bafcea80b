"""`jepa embed`: latents of videos as a .npz that numpy opens without pickle.

<name>            latents [S, N, D] of the video <name>
<name>.seconds    [S]: the time of each latent, that is of the last frame it has seen
"""

from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import torch

from jepa.config import UserError
from jepa.runs.build import load
from jepa.world_model import LatentWorldModel
from jepa_data.errors import DecodeError
from jepa_data.shards.index import ShardSet
from jepa_data.shards.read import ShardFiles

VIDEOS = {".mp4", ".webm", ".mkv", ".mov", ".avi", ".m4v"}


def embed(source: Path, model_path: Path, out: Path, *, say: Callable[[str], None] = print) -> int:
    """Write the latents of a video file, of every video below a folder, or of every sample of a folder of shards.

    A video that cannot be read is named, and the others are embedded.

    Returns:
        Number of videos embedded.

    Raises:
        UserError: there is no video, or none can be read.
    """
    if out.suffix != ".npz":
        raise UserError(f"--out is {out}; features are written as .npz, give a name that ends so")
    model = load(model_path)
    step = model.spec.step_seconds
    # A latent's time is that of its last frame, and the first frame of a video is at 0.
    first = step - 1 / model.preprocessing.fps
    arrays: dict[str, np.ndarray] = {}
    failed = 0
    for name, read in _videos(source):
        try:
            z = model.encode(read(model))[0].cpu().numpy()
        except (DecodeError, UserError) as error:
            failed += 1
            say(f"left out: {name}: {error}")
            continue
        arrays |= {name: z, f"{name}.seconds": (first + step * np.arange(len(z))).astype(np.float32)}
    if not arrays:
        raise UserError(f"{source}: none of its {failed} videos could be embedded")
    out.parent.mkdir(parents=True, exist_ok=True)
    np.savez(out, allow_pickle=False, **arrays)
    done = len(arrays) // 2
    shape = next(iter(arrays.values())).shape
    say(f"{out}: {done} video(s), {failed} left out; latents [steps, {shape[1]}, {shape[2]}] every {step:g} s")
    return done


Read = Callable[[LatentWorldModel], torch.Tensor | Path]


def _videos(source: Path) -> Iterator[tuple[str, Read]]:
    """Name and reader of every video."""
    if source.is_file():
        yield source.name, lambda model: source
        return
    if not source.is_dir():
        raise UserError(f"{source}: no such file or folder")
    if (source / "manifest.json").is_file():
        yield from _samples(source)
        return
    paths = sorted(p for p in source.rglob("*") if p.suffix.lower() in VIDEOS)
    if not paths:
        raise UserError(
            f"{source}: no videos ({', '.join(sorted(VIDEOS))}) and no shards (manifest.json) in this folder"
        )
    for path in paths:
        yield str(path.relative_to(source)), lambda model, path=path: path


def _samples(folder: Path) -> Iterator[tuple[str, Read]]:
    shards = ShardSet.open(folder)
    files = ShardFiles(folder)
    for sample in shards.samples:

        def read(model: LatentWorldModel, sample=sample) -> torch.Tensor:
            return model.read_video(files.read(sample)[sample.media])

        yield sample.key, read
