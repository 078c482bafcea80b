"""`jepa diagnose`."""

from pathlib import Path
from typing import Annotated

import typer


def diagnose(
    run: Annotated[Path, typer.Argument(help="A run folder with dynamics, recorded in a simulated world.")],
    overrides: Annotated[
        list[str] | None, typer.Argument(metavar="KEY=VALUE", help="What to change, such as tasks=100.")
    ] = None,
    config: Annotated[
        Path | None, typer.Option(help="A config of `jepa plan`. [default: RUN/plan.yaml, if it is there]")
    ] = None,
    out: Annotated[Path | None, typer.Option(help="Folder for the result. [default: RUN]")] = None,
) -> None:
    """What keeps the run's planner from solving more tasks? Replaces its links by the truth, one at a time.

    Plays the same held-out tasks with more search, with costs on true states, with dynamics learned on true states, and
    in the true world. Prints how well the encoder holds each quantity, how fast imagination loses it, and whether the
    latent cost ranks plans as the true one does; then a paragraph that names what binds. Writes RUN/diagnosis.json.

    \b
    jepa diagnose RUN
    jepa diagnose RUN --config configs/plan/demo.yaml tasks=100 plan.horizon=8

    \b
    tasks=50 seed=1000        other tasks than those of `jepa plan`
    more_search=10            times as many plans imagined, where more search is tried
    search_tasks=12           try that on the first tasks only: it takes longest
    clips=1000                recorded clips to learn from
    supervised=true           also read an encoder that was trained on true states
    plan.KEY=VALUE            changes the planner that is diagnosed, see `jepa plan --help`
    """
    from jepa_probes.diagnosis.config import diagnose_config

    resolved = diagnose_config(run, config, overrides or ())
    from jepa_probes.diagnosis.diagnose import diagnose as run_verb
    from jepa_probes.diagnosis.table import report

    typer.echo("\n".join(report(run_verb(run, resolved, out=out))))
    typer.echo(f"\n{(out or run) / 'diagnosis.json'}")
