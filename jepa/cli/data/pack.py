"""`jepa data pack`: videos to shards."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from jepa_data.pack.pack import Packing
    from jepa_data.sources.corpus import Corpus

Rate = Annotated[
    float | None,
    typer.Option(help="Frames per second; slower videos keep theirs.  [default: 15; unchanged with actions or states]"),
]


def pack(
    source: Annotated[
        Path,
        typer.Argument(
            help="A folder of videos or images, a table of them (csv, tsv, jsonl, parquet, V-JEPA's lists), "
            "a LeRobot v3 data set, or a folder of shards."
        ),
    ],
    out: Annotated[Path, typer.Argument(help="Output folder. Run again to continue after an interruption.")],
    short_side: Annotated[int, typer.Option(help="Pixels of the shorter side; smaller videos keep their size.")] = 256,
    fps: Rate = None,
    repeat_frames: Annotated[
        bool, typer.Option("--repeat-frames", help="Repeat frames of slower videos to reach --fps.")
    ] = False,
    gop: Annotated[int, typer.Option(help="Keyframe interval, in frames.")] = 8,
    crf: Annotated[int, typer.Option(help="Quality of x264; lower is better and larger.")] = 23,
    pixel_format: Annotated[
        str, typer.Option(help="yuv420p, or yuv444p, which keeps the color of very small objects.")
    ] = "yuv420p",
    copy: Annotated[bool, typer.Option("--copy", help="Do not re-encode; cut only at keyframes.")] = False,
    scenes: Annotated[bool, typer.Option("--scenes", help="Cut at scene changes (PySceneDetect).")] = False,
    scene_threshold: Annotated[float, typer.Option(help="Threshold for --scenes; lower finds more changes.")] = 27.0,
    max_seconds: Annotated[
        float | None,
        typer.Option(help="Cut longer videos into equal parts.  [default: 60; none with actions, states or --copy]"),
    ] = None,
    min_seconds: Annotated[float, typer.Option(help="Drop shorter videos and parts.")] = 0.0,
    test_share: Annotated[float, typer.Option(help="Share of the source videos in the test split.")] = 0.1,
    val_share: Annotated[float, typer.Option(help="Share of the source videos in the val split.")] = 0.0,
    seed: Annotated[int, typer.Option(help="Seed of the splits and the order.")] = 0,
    shard_mib: Annotated[int, typer.Option(help="Size of a shard, in MiB.")] = 64,
    camera: Annotated[str | None, typer.Option(help="LeRobot: the camera to pack.")] = None,
    labels: Annotated[bool, typer.Option("--labels/--no-labels", help="Use folder or column names as labels.")] = True,
    processes: Annotated[int | None, typer.Option(help="Worker processes.  [default: one per core]")] = None,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace existing output.")] = False,
) -> None:
    """Cut, scale and re-encode videos into shards that stream fast, split into train, val and test."""
    from jepa_data.errors import DataError
    from jepa_data.pack.pack import Packing
    from jepa_data.pack.recipe import Recipe

    if copy and (fps is not None or repeat_frames):
        raise DataError("--copy keeps the frames that there are. Leave out --fps and --repeat-frames, or --copy")
    if pixel_format not in ("yuv420p", "yuv444p"):
        raise DataError(f"--pixel-format: expected yuv420p or yuv444p, found {pixel_format!r}")
    corpus = _open(source, camera, labels)
    plain = not copy and not corpus.timed
    recipe = Recipe(
        video="copy" if copy else "encode",
        short_side=short_side,
        fps=15.0 if fps is None and plain else fps,
        slower="repeat" if repeat_frames else "keep",
        gop=gop,
        crf=crf,
        pixel_format=pixel_format,
        scene_threshold=scene_threshold if scenes else None,
        max_seconds=60.0 if max_seconds is None and plain else max_seconds,
        min_seconds=min_seconds,
    )
    _pack(corpus, out, Packing(recipe, val_share, test_share, seed, shard_mib), processes, overwrite)


def _open(source: Path, camera: str | None, labels: bool) -> "Corpus":
    from jepa_data.pack.pack import open_corpus

    corpus = open_corpus(source, camera=camera, labels=labels)
    for note in corpus.notes:
        typer.echo(f"note: {note}", err=True)
    return corpus


def _pack(corpus: "Corpus", out: Path, packing: "Packing", processes: int | None, overwrite: bool) -> None:
    from jepa.cli.show import counting
    from jepa_data.pack.pack import pack as run

    with counting("packing", corpus.count) as progress:
        report = run(corpus, out, packing, processes=processes, overwrite=overwrite, progress=progress)
    typer.echo("\n".join(report.lines(out)))
    typer.echo(f"next: jepa data inspect {out}")
