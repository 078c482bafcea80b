"""`jepa dream`."""

from pathlib import Path
from typing import Annotated

import typer


def dream(
    target: Annotated[
        Path, typer.Argument(metavar="RUN|CONFIG", help="A run folder, or a YAML file that names one (run: …).")
    ],
    overrides: Annotated[
        list[str] | None, typer.Argument(metavar="[KEY=VALUE]...", help="Such as controller.kind=evolution.")
    ] = None,
    config: Annotated[Path | None, typer.Option(help="A YAML file such as configs/dream/two_rooms.yaml.")] = None,
) -> None:
    """Train a controller inside the run's model, without planning or simulator; then try it on held-out tasks.

    What its dreams are worth is told beside what the world was worth.
    """
    from jepa.config import UserError, from_dict, load
    from jepa.runs.dream_config import DreamConfig

    if target.is_file() and config:
        raise UserError(f"{target} is a config already; leave out --config, or give a run folder")
    path, wanted = target if target.is_file() else config, overrides or []
    described = load(path, DreamConfig, wanted) if path else from_dict({}, DreamConfig, wanted)
    if target.is_file() and described.run is None:
        raise UserError(f"{target} names no run: give one as run=FOLDER, or jepa dream RUN --config {target}")
    run = Path(str(described.run)) if target.is_file() else target
    from jepa.runs.dream import dream as execute

    execute(run, described, say=typer.echo)
    typer.echo(f"{run / 'dream.json'}")
