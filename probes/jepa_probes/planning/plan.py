"""`jepa plan`: tasks in the world that a run was recorded in.

RUN/plan.json            success with its interval, the same of others, the protocol, how every task ended
RUN/plan.yaml            the protocol as a config: `jepa plan OTHER --config RUN/plan.yaml` gives OTHER the same tasks
RUN/figures/plan_0.gif   start, goal, the first plan as it was imagined, and what happened; one for each of some tasks

With `--out FOLDER` they go there.
"""

from collections.abc import Callable
from functools import cache, partial
from pathlib import Path

import numpy as np
import yaml

from jepa.config import UserError, errors_of
from jepa.decoders.pixels import PixelDecoder
from jepa.models.model import load
from jepa.training.run_folder import run_config
from jepa_data.shards.index import ShardSet
from jepa_probes.imagination.dream import load_controller
from jepa_probes.output import output_folder
from jepa_probes.planning.config import PlanConfig
from jepa_probes.planning.costs.base import build_costs
from jepa_probes.planning.evaluate import Evaluation, evaluate
from jepa_probes.planning.paired_test import compare
from jepa_probes.planning.recordings import action_space, inverse_dynamics, recorded_segments
from jepa_probes.planning.resolve import fitted, protocol_of, score_table
from jepa_probes.planning.result import PlanResult
from jepa_probes.planning.settings import plan_settings
from jepa_probes.planning.tasks import Tasks
from jepa_probes.reporting.gallery import draw_plans
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
    settings = plan_settings(config)
    model = load(run)
    if model.dynamics is None:
        raise UserError(
            f"{run}: its method has no dynamics, so it cannot plan. Pretrain one with `method: {{kind: lewm}}`"
        )
    training = run_config(run)
    data = training.data
    out = output_folder(run, out)
    config = fitted(run, config, ShardSet.open(data.folder).manifest, model)
    protocol = protocol_of(config)
    with errors_of(run):
        tasks = Tasks(protocol)
        costs = build_costs(config.costs, model, data, config.seed)
        space = action_space(model, protocol.world)
        inverse = config.inverse and cache(partial(inverse_dynamics, model, data, config.inverse, space, config.seed))
        goal_names = tasks.start(1).goal_names
        segments = config.proposals and recorded_segments(model, data, config.proposals, goal_names, config.seed)
        guide = {"inverse_dynamics": inverse, "controller": partial(load_controller, run, out)}.get(config.warm_start)
        done = evaluate(
            model,
            tasks,
            settings,
            costs=costs,
            inverse=inverse,
            guide=guide and guide(),
            segments=segments,
            simulator_tasks=config.simulator_tasks,
        )
    done.result.write(out)
    settings = config.model_dump(mode="json", exclude_none=True, exclude={"run"})
    (out / "plan.yaml").write_text(f"# jepa plan RUN --config {out / 'plan.yaml'}\n" + yaml.safe_dump(settings))
    _draw(out, done, lambda: pixel_decoder(run, model, training, out=out), config.gifs)
    return done.result


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
    return lines


def _draw(out: Path, done: Evaluation, decoder: Callable[[], PixelDecoder | None], count: int) -> None:
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
