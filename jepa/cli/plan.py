"""`jepa plan`."""

from pathlib import Path
from typing import Annotated

import typer


def plan(
    target: Annotated[
        Path, typer.Argument(metavar="RUN|CONFIG", help="A run folder, or a YAML file that names one (run: …).")
    ],
    overrides: Annotated[
        list[str] | None, typer.Argument(help="KEY=VALUE, such as tasks=200; with --compare the other run.")
    ] = None,
    config: Annotated[Path | None, typer.Option(help="A YAML file such as configs/plan/demo.yaml.")] = None,
    compare: Annotated[bool, typer.Option("--compare", help="Plan nothing: test the results of two runs.")] = False,
) -> None:
    """Plan held-out tasks with the run's model, in the world it was trained on; goals are pictures.

    jepa plan --compare A B tests whether A solves more of the same tasks than B.
    """
    from jepa.config import UserError, from_dict, load
    from jepa.runs.acting import PlanConfig

    wanted = overrides or []
    if compare:
        if len(wanted) != 1 or config:
            raise UserError(f"--compare takes two run folders and nothing else, found {1 + len(wanted)} words")
        from jepa.runs.plan import comparison

        for line in comparison(target, Path(wanted[0])):
            typer.echo(line)
        return
    if target.is_file() and config:
        raise UserError(f"{target} is a config already; leave out --config, or give a run folder")
    path = target if target.is_file() else config
    described = load(path, PlanConfig, wanted) if path else from_dict({}, PlanConfig, wanted)
    if target.is_file() and described.run is None:
        raise UserError(f"{target} names no run: give one as run=FOLDER, or jepa plan RUN --config {target}")
    run = Path(str(described.run)) if target.is_file() else target
    from jepa.runs.plan import plan as execute

    execute(run, described, say=typer.echo)
    typer.echo(f"{run / 'plan.json'}")
