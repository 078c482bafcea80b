"""`jepa plan`: tasks in the world that a run was recorded in.

RUN/plan.json            success with its interval, the same of others, the protocol, how every task ended
RUN/plan.yaml            the protocol as a config: `jepa plan OTHER --config RUN/plan.yaml` gives OTHER the same tasks
RUN/figures/plan_0.gif   start, goal, the first plan as it was imagined, and what happened; one for each of some tasks

With `--out FOLDER` they go there.
"""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np

from jepa.config import dump, errors_of
from jepa.config.writing import write_text
from jepa.decoders.base import Decoder
from jepa_probes.planning.config import PlanConfig, PlannersConfig
from jepa_probes.planning.evaluate import Evaluation, evaluate
from jepa_probes.planning.paired_test import compare
from jepa_probes.planning.planner_comparison import PlannerComparison, compare_planners
from jepa_probes.planning.prepare import prepare
from jepa_probes.planning.resolve import score_table
from jepa_probes.planning.result import PlanResult
from jepa_probes.reporting.gallery import draw_plans
from jepa_probes.reporting.planner_figure import draw_planners
from jepa_probes.reporting.results import AGENTS, number, percent
from jepa_probes.reporting.run_decoder import pixel_decoder


def plan(run: Path, config: PlanConfig, *, out: Path | None = None) -> PlanResult:
    """Plan the tasks with the run's model and write the result.

    Args:
        out: folder for what is written; None: the run's.

    Raises:
        UserError: the run has no model with dynamics, its data come from no simulated world, or from another than the
            config names; or nothing can be written.
    """
    agent = prepare(run, config, out)
    with errors_of(run):
        done = evaluate(
            agent.model,
            agent.tasks,
            agent.settings,
            costs=agent.costs,
            inverse=agent.inverse,
            guide=agent.guide,
            segments=agent.segments,
            simulator_tasks=config.simulator_tasks,
        )
    done.result.write(agent.out)
    header = f"# jepa plan RUN --config {agent.out / 'plan.yaml'}\n"
    write_text(agent.out / "plan.yaml", header + dump(agent.config, without=["run"]))
    _draw(agent.out, done, lambda: pixel_decoder(run, agent.model, agent.training, out=agent.out), config.gifs)
    return done.result


def plan_with_each(
    run: Path, config: PlanConfig, planners: PlannersConfig, *, out: Path | None = None
) -> PlannerComparison:
    """Play the tasks with each of the planners, time them, and write and draw what each solves and takes.

    Args:
        config: tasks and how they are planned; its planner is replaced by each of `planners`.

    Raises:
        UserError: as `plan`.
    """
    agent = prepare(run, config, out)
    settings = replace(agent.settings, terms=agent.costs.terms)
    segments = agent.segments and agent.segments.latent
    with errors_of(run):
        result = compare_planners(agent.model, agent.tasks, settings, planners, agent.guide, segments)
    result.write(agent.out)
    draw_planners([result], agent.out / "figures" / "planners.svg")
    return result


def comparison(a: Path, b: Path) -> list[str]:
    """What `jepa plan --compare A B` tells. Raises UserError if the two were not given the same tasks."""
    first, second = PlanResult.read(a), PlanResult.read(b)
    test = compare(first, second)
    return [
        f"A {a}: {percent(first.success)} of {test.tasks} tasks",
        f"B {b}: {percent(second.success)} of the same tasks",
        f"both {test.both}, only A {test.only_a}, only B {test.only_b}, neither {test.neither}",
        f"A - B: {test.difference:+.3f} (95 % interval {test.low:+.3f} to {test.high:+.3f}), "
        f"McNemar's exact test p = {test.p_value:.2g}",
    ]


def table(result: PlanResult) -> list[str]:
    """The result as lines of a table, and what a plan took."""
    rows = [("planning in latents", result), *((AGENTS[name], score) for name, score in result.baselines.items())]
    lines = score_table(rows)
    calls = f"{result.model_calls_per_plan} imagined steps"
    if result.differentiated_calls_per_plan:
        calls += f" ({result.differentiated_calls_per_plan} followed back)"
    alone = f"{1000 * result.seconds_per_plan_alone:.1f} ms for one alone"
    lines.append(
        f"{1000 * result.seconds_per_plan:.1f} ms and {calls} a plan ({alone}), {result.plans_per_task} plans a "
        f"task, {result.seconds:.0f} s"
    )
    for term in result.settings["terms"]:
        if r2 := term.get("r2"):
            lines.append(f"{term['kind']}: R² of " + ", ".join(f"{name} {number(x, 2)}" for name, x in r2.items()))
    if entered := result.entered:
        share = "none" if entered.share is None else f"{100 * entered.share:.1f} %"
        lines.append(f"keep_out: entered in {share} of the {entered.tasks} tasks that neither begin nor end there")
    if rules := result.rules:
        broken = {"entered the region": rules.entered, "cost too much": rules.over_action_cost}
        parts = [f"{what} {percent(share)}" for what, share in broken.items() if share is not None]
        lines.append(f"planning: ended at the goal {percent(result.reached_at_end)}, " + ", ".join(parts))
    if result.trajectory:
        parts = [f"{name} {number(e.ate)} and {number(e.rpe)}" for name, e in result.trajectory.items()]
        lines.append("trajectory errors, absolute and relative (ATE and RPE): " + ", ".join(parts))
    return lines


def _draw(out: Path, done: Evaluation, decoder: Callable[[], Decoder | None], count: int) -> None:
    """GIFs of the first tasks, in place of those of an earlier plan."""
    for old in (out / "figures").glob("plan_*.gif"):
        old.unlink()
    if not count:
        return
    shown = _chosen(done.solved[: done.images.shape[1]], count)
    draw_plans(
        decoder(),
        done.images[:, shown].swapaxes(0, 1),
        done.tasks.goal_images[shown],
        done.imagined[shown].numpy(),
        done.solved[shown],
        out / "figures",
        frames_per_step=done.frames_per_step,
        fps=done.tasks.start(1).fps,
        distances=[f"{number(done.result.distances[i], 2)} {done.result.unit}" for i in shown],
    )


def _chosen(solved: np.ndarray, count: int) -> np.ndarray:
    """The first tasks, with at least one failure among them if there is one: a page must not only show luck."""
    first = np.arange(min(count, len(solved)))
    failures = np.flatnonzero(~solved)
    if solved[first].all() and failures.size:
        first[-1] = failures[0]
    return first
