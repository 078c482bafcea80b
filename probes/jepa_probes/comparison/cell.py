"""One cell of a comparison: a model is trained, or taken, and measured. It may run in a process or a job of its own.

CELL/cell.yaml      what it is
CELL/               the folder of its run, if it is trained
CELL/cell.json      what was measured; a cell that has one is finished
CELL/latents/       of all frames, if others train on them
CELL/error.txt      why it failed
"""

import logging
import shutil
import traceback
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import nn

from jepa.config import UserError, errors_of, first_line, load
from jepa.models.model import open_model
from jepa.training.run_state.run_folder import run_config
from jepa.training.tokenize import tokenize
from jepa.world_model import LatentWorldModel
from jepa_data.stream.latents import LATENTS
from jepa_probes.comparison import measure
from jepa_probes.comparison.baselines import Identity, ShuffledActions
from jepa_probes.comparison.budget import cost_of_run, cpu_seconds, train
from jepa_probes.comparison.config import Budget, CellConfig
from jepa_probes.comparison.expand import LATENTS_FOLDER
from jepa_probes.comparison.result import CellResult, TrainingCost
from jepa_probes.diagnosis.cost_quality import measure_cost
from jepa_probes.diagnosis.result import CostQuality
from jepa_probes.imagination.dream import dream
from jepa_probes.imagination.result import DreamResult, Score
from jepa_probes.planning.evaluate import evaluate
from jepa_probes.planning.prepare import prepare
from jepa_probes.planning.result import PlanResult, Success

logger = logging.getLogger(__name__)
DESCRIPTION = "cell.yaml"
ERROR = "error.txt"


def run_cell(folder: Path) -> CellResult:
    """Train and measure what CELL/cell.yaml describes, from where an earlier start was stopped.

    Raises:
        UserError: parts do not fit together, or as `pretrain`, `plan` and `dream`.
    """
    cell = load(folder / DESCRIPTION, CellConfig)
    torch.set_num_threads(cell.threads)
    training = None
    if cell.training is not None:
        assert cell.budget is not None
        budget = cell.budget if cell.steps_of is None else Budget(steps=TrainingCost.read(Path(cell.steps_of)).steps)
        training = train(cell.training, budget, folder)
    elif cell.baseline is None:
        training = cost_of_run(Path(str(cell.run)))
    began = cpu_seconds()
    run = folder if cell.run is None else Path(cell.run)
    opened = open_model(run)
    model = _with_dynamics(opened.world, cell)
    if model.dynamics is None and not cell.shared:
        raise UserError(
            f"{run}: {opened.config.method} has no dynamics; a comparison is of methods that learn what actions do, "
            "such as lewm, pldm, dino_wm and latent_dynamics"
        )
    data = run_config(run).data.model_copy(update={"shards": cell.shards})
    with errors_of(run):
        logger.info(f"{run}: measuring latents and what is imagined")
        recorded = measure.encode_recordings(model, data, cell.measure)
        r2 = measure.state_r2(recorded)
        known = {} if model.dynamics is None else _of_dynamics(model, recorded, run, cell, folder)
        if cell.tokenize:
            _write_latents(cell.shards, folder / LATENTS_FOLDER, run)
    result = CellResult(
        model=cell.model,
        seed=cell.seed,
        baseline=cell.baseline,
        method=opened.config.method,
        predictor=getattr(opened.config.dynamics, "kind", "none"),
        encoder=_encoder_origin(run),
        parameters=0 if model.dynamics is None else _count(model.dynamics),
        encoder_parameters=_count(model.encoder),
        training=training,
        state_r2=r2,
        **known,
        cpu_seconds=round(cpu_seconds() - began, 2),
    )
    result.write(folder)
    return result


def run_or_explain(folder: str) -> bool:
    """`run_cell`; what goes wrong is written to CELL/error.txt in one line. Returns whether all went well."""
    path = Path(folder)
    (path / ERROR).unlink(missing_ok=True)
    try:
        run_cell(path)
    except Exception as error:  # noqa: BLE001  the other cells go on, and this one is named
        message = str(error) if isinstance(error, UserError) else f"{type(error).__name__}: {first_line(error)}"
        (path / ERROR).write_text(" ".join(message.split()) + "\n")
        logger.error(traceback.format_exc())
        return False
    return True


def _with_dynamics(model: LatentWorldModel, cell: CellConfig) -> LatentWorldModel:
    """The model, or the baseline that is made of it."""
    if cell.baseline not in ("identity", "shuffled_actions") or model.dynamics is None:
        return model
    dynamics = Identity() if cell.baseline == "identity" else ShuffledActions(model.dynamics)
    return LatentWorldModel(model.encoder, dynamics.eval(), model.spec, model.preprocessing)


def _of_dynamics(
    model: LatentWorldModel, recorded: measure.Recorded, run: Path, cell: CellConfig, folder: Path
) -> dict[str, Any]:
    """What is imagined, planned and dreamt: fields of the result."""
    known: dict[str, Any] = {
        "forecast": measure.forecast(model, recorded, cell.measure),
        "frames_per_second": measure.frames_per_second(model, recorded),
        "calls_per_step": measure.calls_per_step(model, recorded),
    }
    plan, known["cost"] = _plan(model, run, cell, folder)
    if plan is not None:
        known["plan"] = Success.model_validate(plan.model_dump(include=set(Success.model_fields)))
        known |= {"agents": plan.baselines, "seconds_per_plan": plan.seconds_per_plan}
    if cell.dream is not None and cell.baseline in (None, "random_encoder"):
        dreamt = DreamResult.find([folder]) or dream(run, cell.dream, out=None if run == folder else folder)
        known["dream"] = Score.model_validate(dreamt.model_dump(include=set(Score.model_fields)))
        known["dream_agents"] = dreamt.baselines
    return known


def _write_latents(shards: str, out: Path, run: Path) -> None:
    """What models on this encoder train on; a part of them, of a start that was stopped, is written again."""
    if (out / LATENTS).is_file():
        return
    shutil.rmtree(out, ignore_errors=True)
    logger.info(f"{run}: writing latents of all frames")
    tokenize(shards, out, str(run))


def _plan(
    model: LatentWorldModel, run: Path, cell: CellConfig, folder: Path
) -> tuple[PlanResult | None, CostQuality | None]:
    """The tasks, and whether the latent cost ranks plans from other starts of theirs as the true one does."""
    if cell.plan is None:
        return None, None
    agent = prepare(run, cell.plan, None if run == folder else folder)
    result = PlanResult.find([folder])
    if result is None:
        logger.info(f"{run}: planning {agent.tasks.protocol.tasks} tasks")
        done = evaluate(
            model,
            agent.tasks,
            agent.settings,
            costs=agent.costs,
            inverse=agent.inverse,
            guide=agent.guide,
            simulator_tasks=cell.plan.simulator_tasks,
            keep=1,
        )
        result = done.result
        result.write(folder)
    settings = replace(agent.settings, terms=agent.costs.terms)
    policy = agent.config.goal_policy or agent.tasks.start(1).policies[0]
    m = cell.measure
    return result, measure_cost(model, agent.tasks.protocol, settings, policy, m.starts, m.candidates)


def _encoder_origin(run: Path) -> str:
    """Whose latents these are: the run itself, or the one whose encoder it froze."""
    return run_config(run).method.encoder_source() or str(run)


def _count(module: object) -> int:
    assert isinstance(module, nn.Module)
    return sum(parameter.numel() for parameter in module.parameters())
