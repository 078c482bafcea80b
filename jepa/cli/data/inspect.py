"""`jepa data inspect`, `check`, `bench`, `index`, and `jepa doctor`: look at data before training on it."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    from jepa_data.config import StreamConfig

JSON = typer.Option("--json", help="Print JSON.")
WORKERS = typer.Option(help="Worker processes.  [default: one per core]")


def inspect(
    shards: Annotated[list[str], typer.Argument(help="One or more folders or URLs of shards.")],
    as_json: Annotated[bool, JSON] = False,
    sheet: Annotated[Path | None, typer.Option(help="Also write a contact sheet to this PNG.")] = None,
    samples: Annotated[int, typer.Option(min=1, help="Samples on the contact sheet.")] = 24,
) -> None:
    """Summarize shards: counts, lengths, codecs, labels, captions, damaged samples.

    Several folders are printed as a table, with their shares of the mix.
    """
    import json

    from jepa.cli.show import table
    from jepa_data.errors import DataError
    from jepa_data.inspect import summary as inspection
    from jepa_data.shards.index import ShardSet

    if sheet is not None and len(shards) > 1:
        raise DataError("--sheet: one folder of shards at a time")
    opened = [ShardSet.open(folder) for folder in shards]
    summaries = [inspection.summary(each) for each in opened]
    if as_json:
        typer.echo(json.dumps(summaries[0] if len(shards) == 1 else summaries, indent=2))
    elif len(shards) > 1:
        typer.echo(table(inspection.mix(summaries)))
    else:
        typer.echo("\n".join(inspection.lines(summaries[0])))
    if sheet is not None:
        from jepa_data.inspect.contact_sheet import contact_sheet

        count = contact_sheet(opened[0], sheet, samples)
        typer.echo(f"{sheet}: first, middle and last frame of {count} samples", err=as_json)


def worlds(
    speed: Annotated[bool, typer.Option("--speed", help="Also measure images per CPU second.")] = False,
    sheet: Annotated[Path | None, typer.Option(help="Also draw every world on this PNG.")] = None,
) -> None:
    """List the simulated worlds: their actions, goals and success criteria, and which are not installed."""
    from jepa.cli.show import table
    from jepa_data.inspect import worlds as inspection
    from jepa_data.writable import check_file

    if sheet is not None:
        check_file(sheet, "Give another file: --sheet FILE")
    summaries = list(inspection.summarize_worlds(look=sheet is not None, time_it=speed))
    typer.echo(table(inspection.table(summaries)))
    for world in summaries:
        if world.missing is not None:
            typer.echo(world.missing)
    for events in dict.fromkeys(world.events for world in summaries if world.events):
        names = ", ".join(world.name for world in summaries if world.events == events)
        typer.echo(f"events of {names}: {', '.join(events)}")
    typer.echo("gym:ID is any Gymnasium environment that draws itself; it can be recorded, but has no goals.")
    if sheet is not None:
        count = inspection.sheet(summaries, sheet)
        typer.echo(f"{sheet}: {count} worlds, an episode and a goal of each")


def check(
    shards: Annotated[str, typer.Argument(help="Folder or URL of shards.")],
    workers: Annotated[int | None, WORKERS] = None,
    quarantine: Annotated[
        Path | None, typer.Option(help="File that lists damaged samples.  [default: SHARDS/quarantine.jsonl]")
    ] = None,
    timeout: Annotated[
        float, typer.Option(min=0.1, help="Seconds without progress after which a sample fails.")
    ] = 60.0,
    backend: Annotated[str, typer.Option(help="The decoder: pyav, decord or torchcodec.")] = "pyav",
    as_json: Annotated[bool, JSON] = False,
) -> None:
    """Verify every checksum, decode every frame and list damaged samples. Exits with 1 if there are any."""
    import json

    from jepa_data.decode import get_backend
    from jepa_data.inspect import check as inspection

    get_backend(backend)
    with _counting("checking") as progress:
        report = inspection.check(
            shards,
            workers=workers,
            timeout_seconds=timeout,
            quarantine_file=quarantine,
            backend=backend,
            progress=progress,
        )
    typer.echo(json.dumps(report.to_json(), indent=2) if as_json else "\n".join(report.lines()))
    if report.findings:
        raise typer.Exit(1)


def bench(
    shards: Annotated[str | None, typer.Argument(help="Folder or URL of shards; optional with --config.")] = None,
    config: Annotated[Path | None, typer.Option(help="A config of `jepa pretrain`; uses its `data`.")] = None,
    split: Annotated[str, typer.Option(help="train, val or test.")] = "train",
    batch_size: Annotated[int | None, typer.Option(min=1, help="Clips per batch.  [default: 8]")] = None,
    clip_frames: Annotated[int | None, typer.Option(min=1, help="Frames per clip.  [default: 16]")] = None,
    fps: Annotated[float | None, typer.Option(help="Frames per second of the clips.  [default: as stored]")] = None,
    image_size: Annotated[
        int | None, typer.Option(min=1, help="Image size in pixels.  [default: 224, or as stored]")
    ] = None,
    clips_per_video: Annotated[int | None, typer.Option(min=1, help="Clips per video.  [default: 1]")] = None,
    workers: Annotated[int | None, WORKERS] = None,
    clips: Annotated[int, typer.Option(min=1, help="Minimum number of clips to read.")] = 64,
    step_ms: Annotated[
        float | None, typer.Option(min=0.1, help="Also measure how long training steps of this length wait for data.")
    ] = None,
    backends: Annotated[str | None, typer.Option(help="Decoders to compare, such as pyav,decord.")] = None,
    as_json: Annotated[bool, JSON] = False,
) -> None:
    """Measure how fast clips are read: the time of each stage, and throughput relative to the decoding limit."""
    import json

    from jepa.cli.show import table
    from jepa_data.inspect import bench as inspection

    given = {
        "shards": shards,
        "batch_size": batch_size,
        "clip_frames": clip_frames,
        "fps": fps,
        "image_size": image_size,
        "clips_per_video": clips_per_video,
        "workers": workers,
    }
    stream = _stream(config, {name: value for name, value in given.items() if value is not None})
    with _counting("measuring") as progress:
        report = inspection.bench(
            stream,
            split,
            clips=clips,
            step_seconds=step_ms and step_ms / 1000,
            backends=backends.split(",") if backends else (),
            progress=progress,
        )
    if as_json:
        typer.echo(json.dumps(report.to_json(), indent=2))
    else:
        typer.echo("\n".join([*report.lines(), table(report.rows())]))


def index(
    folder: Annotated[Path, typer.Argument(help="Folder of WebDataset tars.")],
    split: Annotated[
        str | None, typer.Option(help="Split of all tars: train, val or test.  [default: from their names]")
    ] = None,
    workers: Annotated[int | None, WORKERS] = None,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace an existing manifest.")] = False,
) -> None:
    """Index existing WebDataset tars: write a manifest and index files next to them. The tars are not changed."""
    from jepa_data.inspect import index as inspection

    with _counting("indexing") as progress:
        report = inspection.index(folder, split=split, workers=workers, overwrite=overwrite, progress=progress)
    typer.echo("\n".join(report.lines(folder)))
    typer.echo(f"next: jepa data inspect {folder}")


def doctor(
    folder: Annotated[Path | None, typer.Argument(help="A folder of videos, or of shards.")] = None,
    write: Annotated[Path | None, typer.Option(help="Write the recommended config to this file.")] = None,
    workers: Annotated[int | None, WORKERS] = None,
    recipe: Annotated[
        str | None, typer.Option(help="A V-JEPA config, or the name of a published one: its memory and time instead.")
    ] = None,
    devices: Annotated[int, typer.Option(min=1, help="GPUs, with --recipe.")] = 8,
    gpu_memory: Annotated[float, typer.Option(min=0.1, help="GiB of each.")] = 80.0,
    tflops: Annotated[float, typer.Option(min=0.001, help="That each reaches: about 40 % of its peak.")] = 400.0,
) -> None:
    """Check a folder of videos and this machine, and recommend a config with estimates of memory and time.

    Example: jepa doctor --recipe vjepa2_vitl --devices 8
    """
    from jepa.config import UserError
    from jepa.training.doctor import doctor as run
    from jepa.training.doctor.recipe import recipe_lines
    from jepa_data.writable import check_file

    if (folder is None) == (recipe is None):
        raise UserError("expected either FOLDER, to look at videos, or --recipe CONFIG")
    if recipe is not None:
        typer.echo("\n".join(recipe_lines(recipe, devices, gpu_memory * 2**30, tflops * 1e12)))
        return
    assert folder is not None
    if write is not None and write.exists():
        raise UserError(f"{write}: is there already. Give another file: --write FILE")
    if write is not None:
        check_file(write, "Give another file: --write FILE")
    with _counting("reading") as progress:
        advice = run(folder, workers=workers, progress=progress)
    typer.echo("\n".join(advice.lines()))
    if write is None:
        typer.echo(f"\n{advice.text()}")
        return
    try:
        write.write_text(advice.text(), encoding="utf-8")
    except OSError as error:
        raise UserError(f"{write}: cannot be written ({error.strerror})") from error
    when = "next"
    if advice.survey.shards is None:
        typer.echo(f"next: jepa data pack {folder} {advice.config.data.folder}")
        when = "then"
    typer.echo(f"{when}: jepa pretrain {write}")


def _stream(config: Path | None, given: dict[str, Any]) -> "StreamConfig":
    """The `data` of a config, or defaults, with what was given on the command line."""
    from jepa.config import from_dict, load
    from jepa_data.config import StreamConfig
    from jepa_data.errors import DataError
    from jepa_data.process_pool import cores
    from jepa_data.shards.index import ShardSet

    if config is not None:
        from jepa.training.config import PretrainConfig

        settings = load(config, PretrainConfig).data.model_dump(mode="json")
    elif "shards" in given:
        settings = {"batch_size": 8, "clip_frames": 16, "workers": cores(), "short": "skip"}
        if ShardSet.open(given["shards"]).manifest.image_size is None:
            settings["image_size"] = 224
    else:
        raise DataError("say what to read: SHARDS, or --config run.yaml")
    return from_dict(settings | given, StreamConfig, source="command line")


@contextmanager
def _counting(what: str) -> Iterator[Callable[[int, int], None]]:
    """A progress bar for work that says itself how much there is. Yields a function that takes done and total."""
    from jepa.cli.show import counting_steps

    with counting_steps() as progress:
        yield partial(progress, what)
