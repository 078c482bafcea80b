"""`jepa demo`."""

import sys
from pathlib import Path
from typing import Annotated

import typer


def demo(
    run: Annotated[
        Path | None,
        typer.Option(help="Output folder.  [default: runs/demo; runs/demo-METHOD for other methods]"),
    ] = None,
    seeds: Annotated[str, typer.Option(help="Comma-separated seeds; one run for each.")] = "0",
    methods: Annotated[
        str,
        typer.Option(
            help="lewm, vjepa, vjepa21, levjepa, salt, flicker-vjepa, flicker-levjepa, lewm-30min, two-rooms, "
            "two-rooms-random-wall, point-maze, push-t, doom-rooms, world-models; comma-separated."
        ),
    ] = "lewm",
    supervised: Annotated[
        bool, typer.Option(help="Also train and probe a supervised encoder; takes as long as the pretraining.")
    ] = True,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace an existing demo.")] = False,
) -> None:
    """Record a world, pretrain, probe, plan and write an HTML report, in five minutes on two cores.

    lewm-30min records three times as many episodes and trains a wider model for longer. On one core, two-rooms takes
    ten minutes, and the other methods with planning up to half an hour; --supervised adds half of that. With several
    seeds or methods, each run is written to RUN-METHOD-SEED, and mean and standard deviation are printed.
    """
    from jepa.cli.show import table
    from jepa.config import UserError

    try:
        numbers = [int(seed) for seed in seeds.split(",")]
    except ValueError:
        raise UserError(f"--seeds takes whole numbers with commas, such as 0,1,2; found {seeds!r}") from None
    from jepa.cli.demos import check_free, check_method, folder_of
    from jepa.cli.demos import demo as run_demo
    from jepa_probes.reporting.results import seeds_table, summary_table

    wanted = [(method, seed) for method in methods.split(",") for seed in numbers]
    folders = []
    for method, seed in wanted:
        check_method(method)
        folders.append(folder_of(method, seed, run, several=len(wanted) > 1))
        check_free(folders[-1], overwrite=overwrite)  # of all, before the first one begins
    bar = sys.stdout.isatty()
    results = []
    for folder, (method, seed) in zip(folders, wanted, strict=True):
        results.append(run_demo(folder, seed=seed, method=method, supervised=supervised, overwrite=overwrite, bar=bar))
        typer.echo("\n" + table(summary_table(results[-1])))
    if len(results) > 1:
        typer.echo("\n" + table(seeds_table(results)))
