"""`jepa plan`."""

from pathlib import Path
from typing import Annotated

import typer


def plan(
    run: Annotated[Path, typer.Argument(help="A run folder written by `jepa pretrain`.")],
    overrides: Annotated[list[str] | None, typer.Argument(help="KEY=VALUE, such as tasks=200.")] = None,
    config: Annotated[Path | None, typer.Option(help="A YAML file such as configs/plan/demo.yaml.")] = None,
) -> None:
    """Plan held-out tasks with the run's model, in the world it was trained on; goals are pictures."""
    from jepa.config import from_dict, load
    from jepa.runs.schema import PlanConfig

    wanted = overrides or ()
    described = load(config, PlanConfig, wanted) if config else from_dict({}, PlanConfig, wanted)
    from jepa.runs.plan import plan as execute

    execute(run, described, say=typer.echo)
    typer.echo(f"{run / 'plan.json'}")
