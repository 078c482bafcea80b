"""`jepa data curate`: drop what is not worth training on."""

from pathlib import Path
from typing import Annotated

import typer


def curate(
    shards: Annotated[str, typer.Argument(help="Folder or URL of shards.")],
    out: Annotated[Path, typer.Argument(help="Output folder for the remaining shards and the report.")],
    config: Annotated[Path, typer.Option(help="A YAML file such as configs/data/curate.yaml.")],
    overrides: Annotated[list[str] | None, typer.Argument(help="KEY=VALUE, such as stages.1.min_motion=1.")] = None,
    engine: Annotated[str, typer.Option(help="pool: processes on this machine; ray: Ray Data.")] = "pool",
    processes: Annotated[int | None, typer.Option(help="Worker processes.  [default: one per core]")] = None,
    timeout_seconds: Annotated[float, typer.Option(help="Time limit per sample.")] = 60.0,
    examples: Annotated[
        int, typer.Option(help="Dropped samples of each stage to draw on a contact sheet, OUT/examples/*.png.")
    ] = 0,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only measure and report; write no shards.")] = False,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace the shards in OUT.")] = False,
) -> None:
    """Drop short, static, dark, blurred and duplicate videos, balance the rest, and align actions with frames.

    OUT/curation.json lists every dropped sample with the reason. Only with a denoise stage are videos re-encoded.
    """
    from jepa.cli.show import counting_steps, table
    from jepa.config import load
    from jepa_data.curate.config import CurateConfig
    from jepa_data.errors import DataError

    resolved = load(config, CurateConfig, overrides or ())
    if engine not in ("pool", "ray"):
        raise DataError(f"--engine: expected pool or ray, found {engine!r}")
    if processes is not None and processes < 0:
        raise DataError(f"--processes: expected 0 or more, found {processes}")
    from jepa_data.curate.run import curate as run

    with counting_steps() as progress:
        report = run(
            shards,
            out,
            resolved,
            engine=engine,
            processes=processes,
            timeout_seconds=timeout_seconds,
            examples=examples,
            dry_run=dry_run,
            overwrite=overwrite,
            progress=progress,
        )
    typer.echo(table(report.rows()))
    for line in report.lines():
        typer.echo(line)
