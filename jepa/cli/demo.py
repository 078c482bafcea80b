"""`jepa demo`."""

import sys
from pathlib import Path
from typing import Annotated

import typer


def demo(
    run: Annotated[Path, typer.Option(help="Folder for all it writes; a demo that is there is replaced.")] = Path(
        "runs/demo"
    ),
    seeds: Annotated[str, typer.Option(help="One seed, or several with commas: a run each, and a table.")] = "0",
    methods: Annotated[
        str,
        typer.Option(
            help="lewm, vjepa, vjepa21, levjepa, salt, lewm-30min, two-rooms, two-rooms-random-wall, point-maze, "
            "push-t; several with commas."
        ),
    ] = "lewm",
    supervised: Annotated[
        bool, typer.Option(help="Probe an encoder trained on the true states, too: as long as the pretraining.")
    ] = True,
) -> None:
    """Record a world, pretrain, probe, plan, and write a page about it, in five minutes on two cores.

    lewm-30min records three times as much and trains a wider model for longer.
    two-rooms takes ten minutes of one core, the others that plan up to half an hour, and half as much again with
    --supervised.
    With several seeds or methods each run goes to RUN-METHOD-SEED, and mean and spread are printed.
    """
    from jepa.cli.show import table
    from jepa.config import UserError

    try:
        numbers = [int(seed) for seed in seeds.split(",")]
    except ValueError:
        raise UserError(f"--seeds takes whole numbers with commas, such as 0,1,2; found {seeds!r}") from None
    from jepa.runs.demo import check_method
    from jepa.runs.demo import demo as run_demo
    from jepa_probes.results import seeds_table, summary_table

    wanted = [(method, seed) for method in methods.split(",") for seed in numbers]
    for method, _ in wanted:
        check_method(method)
    bar = sys.stdout.isatty()
    results = []
    for method, seed in wanted:
        folder = run if len(wanted) == 1 else run.with_name(f"{run.name}-{method}-{seed}")
        results.append(run_demo(folder, seed=seed, method=method, supervised=supervised, say=typer.echo, bar=bar))
        typer.echo("\n" + table(summary_table(results[-1])))
    if len(results) > 1:
        typer.echo("\n" + table(seeds_table(results)))
