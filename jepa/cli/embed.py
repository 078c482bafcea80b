"""`jepa embed`."""

from pathlib import Path
from typing import Annotated, Any

import typer


def embed(
    source: Annotated[Path, typer.Argument(help="A video or image, a folder of them, or a folder of shards.")],
    model: Annotated[str, typer.Option(help="A run or model folder, or a hub id (org/name).")],
    out: Annotated[
        Path | None,
        typer.Option(
            help="FILE.npz, FILE.parquet, or a FOLDER for shards.  [default: features.npz, or none with --pca]"
        ),
    ] = None,
    kind: Annotated[
        str | None, typer.Option("--format", help="npz, parquet or shards.  [default: from the suffix of --out]")
    ] = None,
    clip_frames: Annotated[int | None, typer.Option(help="Frames per clip.  [default: as in training]")] = None,
    pca: Annotated[
        Path | None,
        typer.Option(help="Write the first video with a PCA of its features as colors: FILE.gif or FILE.mp4."),
    ] = None,
    timeout_seconds: Annotated[
        float, typer.Option(min=0.001, help="Time limit for opening a file, and for decoding each part of it.")
    ] = 60.0,
) -> None:
    """Write the features of videos and images, or visualize them.

    .npz and shards contain all latents [steps, tokens, width] and their times. .parquet has one row for each clip: key,
    start_seconds, steps and vector (the mean over steps and tokens). `jepa data curate` reads .npz and .parquet.

    Example: jepa embed my_videos --model runs/mine --out features.parquet --clip-frames 16

    Example: jepa embed my_videos/cat.mp4 --model runs/mine --pca cat.gif
    """
    from jepa_probes.embedding import embed as run

    if pca is not None:
        run.draw(source, model, pca, clip_frames=clip_frames)
    if pca is None or out is not None or kind is not None:
        features = out or Path("features.npz")
        settings: dict[str, Any] = {"kind": kind, "clip_frames": clip_frames, "timeout_seconds": timeout_seconds}
        run.embed(source, model, features, **settings)
