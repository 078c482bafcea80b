"""The plans that are shipped: each fits the run that it names, in a world where that run can be recorded."""

from pathlib import Path

import numpy as np
import pytest

from jepa.cli.demos import DEMOS
from jepa.config import load
from jepa.planners import PLANNERS
from jepa.planners.mpc import ModelPredictiveControl
from jepa.training.config import PretrainConfig
from jepa_data.worlds import make_goal_batch, world_names
from jepa_probes.planning.config import PlanConfig

CONFIGS = Path(__file__).parents[3] / "configs"
PLANS = sorted((CONFIGS / "plan").rglob("*.yaml"))
WORLDS = {demo.planning: demo.recording.world for demo in DEMOS.values() if demo.planning}


def trained_for(path: Path, plan: PlanConfig) -> PretrainConfig:
    """The training of the same name, or the one that makes the run."""
    same = CONFIGS / "pretrain" / path.relative_to(CONFIGS / "plan")
    if same.is_file():
        return load(same, PretrainConfig)
    every = [load(other, PretrainConfig) for other in (CONFIGS / "pretrain").rglob("*.yaml")]
    return next(training for training in every if training.run == plan.run)


@pytest.mark.parametrize("path", PLANS, ids=lambda path: path.relative_to(CONFIGS / "plan").as_posix())
def test_a_plan_fits_the_run_that_it_names(path: Path) -> None:
    plan, text = load(path, PlanConfig), path.read_text()
    assert path.relative_to(CONFIGS.parent).as_posix() in text.splitlines()[0], "the header names the command"
    training = trained_for(path, plan)
    assert plan.run == training.run
    name = plan.world or WORLDS[path.relative_to(CONFIGS).as_posix()]
    assert name in world_names()
    world = make_goal_batch(name, np.arange(1), image_size=training.data.image_size or 64)
    assert plan.goal_policy in (None, *world.policies)
    assert training.encoder is not None
    frames = training.encoder.tubelet * world.fps / (training.data.fps or world.fps)
    assert frames == int(frames), "the rate of the run divides that of the world"
    control = ModelPredictiveControl(
        PLANNERS.make(plan.planner),
        horizon=plan.horizon,
        replan_every=plan.replan_every,
        action_size=world.action_size,
        frames=int(frames),
        action_repeat=plan.action_repeat,
    )
    assert control.horizon * control.frames <= plan.steps, "no plan goes beyond the end of its task"
    assert plan.tasks >= 200 or path.stem == "demo"


@pytest.mark.parametrize("path", sorted((CONFIGS / "plan" / "published").glob("*.yaml")), ids=lambda path: path.stem)
def test_a_published_plan_says_that_it_was_not_run(path: Path) -> None:
    header = [line for line in path.read_text().splitlines() if line.startswith("#")]
    assert any("not run" in line.lower() for line in header)


def test_push_t_is_planned_as_published() -> None:
    """Goals that were recorded within 25 steps; 300 samples, 30 elites, 30 iterations, 5 steps of 5 actions."""
    for name in ("dino_wm_pusht", "lewm_pusht"):
        plan = load(CONFIGS / "plan" / "published" / f"{name}.yaml", PlanConfig)
        training = load(CONFIGS / "pretrain" / "published" / f"{name}.yaml", PretrainConfig)
        assert (plan.goal_offset, plan.steps, plan.horizon, plan.replan_every, plan.running_cost_weight) == (
            25,
            50,
            5,
            5,
            0,
        )
        assert plan.planner.model_dump()["samples"] == 300 and training.data.fps == 2
    ours = load(CONFIGS / "plan" / "push_t.yaml", PlanConfig)
    assert (ours.goal_offset, ours.goal_policy, ours.steps) == (25, "demonstrations", 50)
