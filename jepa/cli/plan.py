"""`jepa plan`."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from jepa.cli.resolve_run import Target, run_and_config

if TYPE_CHECKING:
    from jepa_probes.planning.config import PlanConfig


def plan(
    target: Target,
    overrides: Annotated[
        list[str] | None,
        typer.Argument(metavar="KEY=VALUE|OTHER", help="Settings, see above; with --compare, the other run."),
    ] = None,
    config: Annotated[Path | None, typer.Option(help="A YAML file such as configs/plan/demo.yaml.")] = None,
    out: Annotated[Path | None, typer.Option(help="Output folder. [default: RUN]")] = None,
    planners: Annotated[
        Path | None, typer.Option(help="Compare the planners of this file on the tasks: success and CPU time.")
    ] = None,
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
    jepa plan RUN --config configs/plan/demo.yaml --planners configs/planners/all.yaml

    \b
    tasks=200 steps=40 seed=0      number of tasks; environment steps for each
    goal_offset=25                 goals that a scripted policy reaches within 25 steps
    horizon=6 replan_every=2       latent steps of a plan; latent steps taken before replanning
    action_repeat=1                environment steps for which each action is repeated
    planner.kind=cem               random, cem, icem, mppi, mixture, gradient, hybrid, grasp
    keep_out_radius=0.12           a region on the way of each task that must not be entered
    'costs=[{kind: action_cost}]'  additional costs: action_cost, keep_out, state, image
    warm_start=previous            initial plan: previous (plan), none, inverse_dynamics,
                                   controller (of `jepa dream`)
    proposals.count=64             more initial plans: recorded actions with similar start and goal
    random_action_if_stuck=0.2     random action if the world moved less than this share
                                   of what the last plan imagined
    """
    from jepa.config import UserError
    from jepa_probes.planning.config import PlanConfig

    wanted = overrides or []
    if compare:
        if len(wanted) != 1 or config or out or planners:
            raise UserError(f"--compare takes two run folders and nothing else, found {1 + len(wanted)} words")
        from jepa_probes.planning.plan import comparison

        typer.echo("\n".join(comparison(target, Path(wanted[0]))))
        return
    run, resolved = run_and_config(target, config, wanted, PlanConfig, "plan")
    if planners:
        _compare_planners(run, resolved, planners, out)
        return
    from jepa_probes.planning.plan import plan as run_verb
    from jepa_probes.planning.plan import table

    typer.echo("\n".join(table(run_verb(run, resolved, out=out))))
    typer.echo(f"{(out or run) / 'plan.json'}")


def _compare_planners(run: Path, config: "PlanConfig", planners: Path, out: Path | None) -> None:
    from jepa.config import load
    from jepa_probes.planning.config import PlannersConfig
    from jepa_probes.planning.plan import plan_with_each
    from jepa_probes.planning.planner_comparison import table

    result = plan_with_each(run, config, load(planners, PlannersConfig), out=out)
    typer.echo("\n".join(table(result)))
    typer.echo(f"{(out or run) / result.FILE}")
