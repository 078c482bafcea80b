"""`jepa compare`."""

from pathlib import Path
from typing import Annotated

import typer


def compare(
    config: Annotated[Path, typer.Argument(help="A YAML file such as configs/compare/billiards.yaml.")],
    overrides: Annotated[list[str] | None, typer.Argument(metavar="KEY=VALUE", help="Settings, see above.")] = None,
    launcher: Annotated[
        str | None, typer.Option(help="local: processes; slurm: jobs, with submitit; inline: this process.")
    ] = None,
    overwrite: Annotated[
        bool, typer.Option("--overwrite", help="Delete cells that were trained with other settings.")
    ] = False,
) -> None:
    """Train or take several models on the same data, with the same budget, and compare them in one table.

    Prints parameters, training time and memory, what can be read off the latents, errors of imagined rollouts beside
    those of a copy of the last latent, scores of sampled rollouts, whether the latent cost ranks plans as the true one
    does, and planning success. Baselines that must lose are rows of the table. Writes OUT/compare.json,
    OUT/compare.html, and a run folder for each model and seed. Finished cells are not run again.

    \b
    jepa compare configs/compare/billiards.yaml 'seeds=[0, 1, 2]'
    jepa compare FILE budget.cpu_minutes=5 jobs=2
    jepa compare FILE --launcher slurm submitit.slurm_partition=gpu submitit.timeout_min=60

    \b
    seeds=[0]                    each model is trained once for each
    budget.cpu_minutes=1.5       processor time of each training; or budget.steps=400
    jobs=2 threads=1             cells at the same time; threads of each
    plan.tasks=100 plan=none     tasks of `jepa plan`; none: no planning
    'baselines=[identity]'       identity, shuffled_actions, random_encoder
    """
    from jepa.config import UserError, load
    from jepa_probes.comparison.config import CompareConfig

    wanted = [*(overrides or []), *([f"launcher={launcher}"] if launcher else [])]
    resolved = load(config, CompareConfig, wanted)
    from jepa_probes.comparison.compare import compare as run_verb
    from jepa_probes.comparison.table import report

    result = run_verb(resolved, overwrite=overwrite)
    typer.echo("\n".join(report(result)))
    typer.echo(f"\n{Path(resolved.out) / 'compare.html'}")
    if result.failed:
        raise UserError("\n".join(f"{name}: {why}" for name, why in result.failed.items()))
