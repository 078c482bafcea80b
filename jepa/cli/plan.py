"""`jepa plan`."""

from pathlib import Path
from typing import Annotated

import typer

from jepa.cli.resolve_run import Target, run_and_config


def plan(
    target: Target,
    overrides: Annotated[
        list[str] | None,
        typer.Argument(metavar="KEY=VALUE|OTHER", help="What to change, see above; with --compare the other run."),
    ] = None,
    config: Annotated[Path | None, typer.Option(help="A YAML file such as configs/plan/demo.yaml.")] = None,
    out: Annotated[Path | None, typer.Option(help="Folder for all that is written. [default: RUN]")] = None,
    compare: Annotated[bool, typer.Option("--compare", help="Plan nothing: test the results of two runs.")] = False,
) -> None:
    """Plan held-out tasks with the run's model, in the world it was trained on; goals are images.

    Prints how many tasks are solved, with the 95 % interval, beside random actions, inverse dynamics, the world's own
    expert and the same planner on the true simulator. Writes RUN/plan.json, images of some tasks to RUN/figures, and
    RUN/plan.yaml: with --config it gives another run the very same tasks, and --compare then tests which of two runs
    solves more of them.

    \b
    jepa plan RUN tasks=50 planner.kind=mppi
    jepa plan OTHER --config RUN/plan.yaml
    jepa plan --compare RUN OTHER

    \b
    tasks=200 steps=40 seed=0    how many tasks, and the steps of the world for each
    goal_offset=25               goals that a policy of the world reaches so soon
    horizon=6 replan_every=2 action_repeat=1   latent steps looked ahead, and acted on before the
                                 next plan; steps that each action is repeated for
    planner.kind=cem             random, cem, icem, mppi, mixture, gradient, hybrid, grasp
    'costs=[{kind: action_cost}]'  beside the goal: action_cost, keep_out, state, image
    warm_start=previous          plans start from the last one (previous), none,
                                 inverse_dynamics, or `jepa dream` (controller)
    proposals.count=64           and from recorded actions with the nearest start and goal
    random_action_if_stuck=0.2   draw an action where less of a plan than that came true
    """
    from jepa.config import UserError
    from jepa_probes.planning.config import PlanConfig

    wanted = overrides or []
    if compare:
        if len(wanted) != 1 or config or out:
            raise UserError(f"--compare takes two run folders and nothing else, found {1 + len(wanted)} words")
        from jepa_probes.planning.plan import comparison

        typer.echo("\n".join(comparison(target, Path(wanted[0]))))
        return
    run, resolved = run_and_config(target, config, wanted, PlanConfig, "plan")
    from jepa_probes.planning.plan import plan as run_verb
    from jepa_probes.planning.plan import table

    typer.echo("\n".join(table(run_verb(run, resolved, out=out))))
    typer.echo(f"{(out or run) / 'plan.json'}")
