"""`jepa probe`."""

from pathlib import Path
from typing import Annotated

import typer

from jepa.cli.resolve_run import config_or_defaults


def probe(
    run: Annotated[Path, typer.Argument(help="A run folder, or a model folder written by `jepa import`.")],
    overrides: Annotated[list[str] | None, typer.Argument(help="KEY=VALUE, such as supervised=false.")] = None,
    config: Annotated[Path | None, typer.Option(help="A YAML file such as configs/probe/demo.yaml.")] = None,
    out: Annotated[Path | None, typer.Option(help="Output folder. [default: RUN]")] = None,
) -> None:
    """Score a frozen encoder on held-out episodes, with baselines: random init, pixels, a supervised encoder.

    Example: jepa probe runs/mine

    Example: jepa probe models/vitl shards=my_shards clip_frames=16 --out scores
    """
    from jepa_probes.probing.config import ProbeConfig

    resolved = config_or_defaults(config, overrides or [], ProbeConfig)
    from jepa_probes.probing.probe import probe as run_verb
    from jepa_probes.probing.probe import state_row

    typer.echo(state_row(run_verb(run, resolved, out=out)))
    typer.echo(f"{(out or run) / 'probe.json'}")
