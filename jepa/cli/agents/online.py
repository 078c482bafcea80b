"""`jepa online`."""

from pathlib import Path
from typing import Annotated

import typer


def online(
    config: Annotated[Path, typer.Argument(help="A YAML file such as configs/online/pendulum.yaml.")],
    overrides: Annotated[list[str] | None, typer.Argument(metavar="KEY=VALUE", help="Such as seed=1.")] = None,
    resume: Annotated[bool, typer.Option("--resume", help="Continue from the last checkpoint of the run.")] = False,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Delete an existing run and start again.")] = False,
) -> None:
    """Learn in an environment: collect episodes, learn a world model, and a controller in its dreams (DreamerV3).

    Works in any Gymnasium environment that renders (environment.world=gym:ID), from its images. Prints the return of
    held-out episodes, without exploration, every evaluate_every environment steps, and beside that of random actions
    in the end. Writes the model, the controller and online.json to the run folder; `jepa curves` plots the returns.

    --resume continues an interrupted run from its last checkpoint; it ends with the same numbers as an uninterrupted
    run.
    """
    from jepa.config import load
    from jepa.online.config import OnlineConfig

    resolved = load(config, OnlineConfig, overrides or ())
    from jepa.online.loop import learn_online
    from jepa.online.result import table

    result = learn_online(resolved, resume=resume, overwrite=overwrite)
    typer.echo("\n".join(table(result)))
    typer.echo(f"{Path(resolved.run) / result.FILE}")
