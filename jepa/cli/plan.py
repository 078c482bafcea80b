"""`jepa plan`."""

from pathlib import Path
from typing import Annotated

import typer

from jepa.cli.resolve_run import Target, run_and_config


def plan(
    target: Target,
    overrides: Annotated[
        list[str] | None,
        typer.Argument(metavar="KEY=VALUE|OTHER", help="Settings, see above; with --compare, the other run."),
    ] = None,
    config: Annotated[Path | None, typer.Option(help="A YAML file such as configs/plan/demo.yaml.")] = None,
    out: Annotated[Path | None, typer.Option(help="Output folder. [default: RUN]")] = None,
    compare: Annotated[bool, typer.Option("--compare", help="Compare the results of two runs; do not plan.")] = False,
) -> None:
    """Plan held-out tasks with the run's model, in the world it was trained on. Goals are images.

    Prints the success rate with its 95 % interval, and those of the baselines: random actions, inverse dynamics, the
    world's expert policy and the same planner on the true simulator. Writes RUN/plan.json, figures of some tasks to
    RUN/figures, and the protocol to RUN/plan.yaml. --config RUN/plan.yaml plans the same tasks with another run;
    --compare then tests whether one of the two solves more of them.

    \b
    jepa plan RUN tasks=50 planner.kind=mppi
    jepa plan OTHER --config RUN/plan.yaml
    jepa plan --compare RUN OTHER

    \b
    tasks=200 steps=40 seed=0      number of tasks; environment steps for each
    goal_offset=25                 goals that a scripted policy reaches within 25 steps
    horizon=6 replan_every=2       latent steps of a plan; latent steps taken before replanning
    action_repeat=1                environment steps for which each action is repeated
    planner.kind=cem               random, cem, icem, mppi, mixture, gradient, hybrid, grasp
    'costs=[{kind: action_cost}]'  additional costs: action_cost, keep_out, state, image
    warm_start=previous            initial plan: previous (plan), none, inverse_dynamics,
                                   controller (of `jepa dream`)
    proposals.count=64             additional initial plans: recorded actions with similar start and goal
    random_action_if_stuck=0.2     random action if the world moved less than this share
                                   of what the last plan imagined
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
