"""`jepa diagnose`."""

from pathlib import Path
from typing import Annotated

import typer


def diagnose(
    run: Annotated[Path, typer.Argument(help="A run folder: a model with dynamics, trained on a simulated world.")],
    overrides: Annotated[
        list[str] | None, typer.Argument(metavar="KEY=VALUE", help="Settings, such as tasks=100.")
    ] = None,
    config: Annotated[
        Path | None, typer.Option(help="A config of `jepa plan`. [default: RUN/plan.yaml, if it exists]")
    ] = None,
    out: Annotated[Path | None, typer.Option(help="Output folder. [default: RUN]")] = None,
) -> None:
    """Find the component that limits planning: encoder, dynamics, cost or search.

    Runs the same held-out tasks with each component replaced by a better one: more search, costs on true states,
    dynamics learned on true states, the true simulator. Prints how well each quantity can be read from the latents, how
    fast the error of imagined rollouts grows, how well the latent cost ranks plans, and a verdict. Writes
    RUN/diagnosis.json.

    \b
    jepa diagnose RUN
    jepa diagnose RUN --config configs/plan/demo.yaml tasks=100 plan.horizon=8

    \b
    tasks=50 seed=1000   number of tasks; the default seed differs from that of `jepa plan`
    more_search=10       factor on the number of plans, in the rows with more search
    search_tasks=12      number of tasks in those rows, which are the slowest
    clips=1000           recorded clips to learn from
    supervised=true      also probe an encoder trained on true states
    plan.KEY=VALUE       a setting of the planner, see `jepa plan --help`
    """
    from jepa_probes.diagnosis.config import diagnose_config

    resolved = diagnose_config(run, config, overrides or ())
    from jepa_probes.diagnosis.diagnose import diagnose as run_verb
    from jepa_probes.diagnosis.table import report

    typer.echo("\n".join(report(run_verb(run, resolved, out=out))))
    typer.echo(f"\n{(out or run) / 'diagnosis.json'}")
