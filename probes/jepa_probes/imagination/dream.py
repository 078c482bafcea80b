"""`jepa dream`: a controller learns inside a run's model, and is tried in the run's world.

RUN/dream/       the controller: model.safetensors + model.json; `load_controller` opens it
RUN/dream.json   how it did in held-out tasks with its interval (in a world without tasks: what it earned), others
                 beside it, what dreams are worth against the world, at each temperature, the protocol

With `--out FOLDER` they go there.
"""

import logging
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from jepa.agents.controller import ActionSpace, Actor, Linear, ObservationNormalizer
from jepa.agents.imagination import CONTROLLERS
from jepa.agents.imagination.dream import Dream
from jepa.agents.imagination.learner import History, Learner
from jepa.config import UserError, errors_of, from_dict
from jepa.models import checkpoint
from jepa.models.model import FILE_KEYS, load
from jepa.training.run_state.run_folder import run_config
from jepa_probes.imagination.config import ControllerConfig, DreamConfig
from jepa_probes.imagination.result import DreamResult, DreamScore, Returns
from jepa_probes.imagination.rewards import REWARDS
from jepa_probes.imagination.rewards.base import DreamReward, Stage
from jepa_probes.output import folders, output_folder
from jepa_probes.planning.resolve import score_table
from jepa_probes.planning.result import PlanResult, Success
from jepa_probes.reporting.results import AGENTS

logger = logging.getLogger(__name__)

FOLDER = "dream"
PLANNER = "planning in latents (plan.json)"
LEARNED = "learned in dreams"


def dream(run: Path, config: DreamConfig, *, out: Path | None = None) -> DreamResult:
    """Train a controller in the run's model, save it, try it in the world and write the result.

    Args:
        out: folder for what is written; None: the run's.

    Raises:
        UserError: the run has no model with dynamics, its data come from no simulated world or from another than the
            config names, settings do not fit together, or nothing can be written.
    """
    model, training = load(run), run_config(run)
    if model.dynamics is None:
        raise UserError(
            f"{run}: its method has no dynamics, so it cannot dream. Pretrain one with `method: {{kind: lewm}}`"
        )
    if model.spec.states:
        raise UserError(
            f"{run}: its dynamics read {', '.join(model.spec.states)}, and dreams start from latents alone. "
            "Pretrain one without method.states"
        )
    out = output_folder(run, out)
    with errors_of(run):
        reward: DreamReward = REWARDS.make(config.reward)
        stage = reward.stage(run, config, model, training.data)
        if config.sampled and not stage.dream.varies(stage.recorded.z[:8]):
            logger.info("this model predicts one outcome, which sampling does not change, at whatever temperature")
        trained = _trained(stage, stage.dream)
        at: dict[str, dict[str, Returns]] = {}
        if config.sampled:
            at[f"{config.temperature:g}"] = trained.score.returns
        for temperature in dict.fromkeys(config.temperatures):
            if temperature != config.temperature:
                logger.info(f"temperature {temperature:g}:")
                other = replace(stage.dream, temperature=temperature)
                at[f"{temperature:g}"] = _trained(stage, other).score.returns
    _save(out / FOLDER, trained, stage)
    result = DreamResult(
        **dict(trained.score),
        history=[*trained.history],
        training_seconds=trained.seconds,
        training_cpu_seconds=trained.cpu_seconds,
        planner=_planned(folders(run, out), trained.score),
        temperatures=at,
        heads=stage.heads,
        settings=stage.config.model_dump(mode="json", exclude={"run"}),
    )
    result.write(out)
    return result


def load_controller(run: Path | str, out: Path | None = None) -> Actor | Linear:
    """The controller that `jepa dream` left in a run, for `ImaginationPolicy`; or in `out`, which goes first.

    Raises:
        UserError: there is none.
    """
    places = [path / FOLDER for path in folders(Path(run), out)]
    folder = next((path for path in places if path.is_dir()), None)
    if folder is None:
        raise UserError(f"{run}: no controller here; run `jepa dream {run}` first")
    stored = {k: v for k, v in checkpoint.read_description(folder).items() if k not in FILE_KEYS}
    config = from_dict(stored, ControllerConfig, source=str(folder / checkpoint.DESCRIPTION))
    normalizer = ObservationNormalizer(config.tokens, config.width, config.actor_inputs)
    space = ActionSpace(config.action_size, config.frames, config.action_repeat, config.bounds, config.actions)
    network = config.model_dump(include={"hidden", "layers"}, exclude_none=True)
    learner: type[Learner] = CONTROLLERS[config.kind]
    controller = learner.build(normalizer, space, **network)
    checkpoint.load_into(controller, folder)
    return controller.eval().requires_grad_(False)


def table(result: DreamResult) -> list[str]:
    """The result as lines: who solves the tasks or what was earned, and what dreams are worth."""
    lines = _returns(result) if result.tasks is None else _successes(result)
    sampled = bool(result.temperatures)
    lines.append("")
    lines.append(f"{'return of':15}{'  temperature' * sampled}  in the dream  in the world       gap  correlation")
    at = result.temperatures or {"": result.returns}
    for temperature, returns in sorted(at.items(), key=lambda item: float(item[0] or 0)):
        for row in returns.values():
            correlation = "" if row.correlation is None else f"{row.correlation:.2f}"
            label = f"{row.steps} latent steps"
            numbers = f"{row.dream or 0:12.3f}  {row.world or 0:12.3f}  {row.gap or 0:+8.3f}  {correlation:>11}"
            lines.append(f"{label:15}" + f"  {temperature:>11}" * sampled + f"  {numbers}")
    lines += [f"{name.replace('_', ' ')}: {value:.3f}" for name, value in result.heads.items()]
    return [*lines, f"trained in {result.training_cpu_seconds:.0f} s of CPU, played in {result.seconds:.0f} s"]


def _successes(result: DreamResult) -> list[str]:
    rows = [(LEARNED, result.as_success())]
    if result.planner:
        rows.append((PLANNER, result.planner))
    return score_table(rows + [(AGENTS[name], score.as_success()) for name, score in result.baselines.items()])


def _returns(result: DreamResult) -> list[str]:
    rows = [(LEARNED, result), *((AGENTS[name], score) for name, score in result.baselines.items())]
    width = max(len(label) for label, _ in rows)
    lines = [f"{'':{width}}    return      95 % interval    steps  episodes"]
    for label, score in rows:
        interval = f"{score.low:9.1f} … {score.high:.1f}"
        counted = f"{score.length:7.1f}  {score.episodes:8d}"
        lines.append(f"{label:{width}}  {score.mean_return:8.1f}  {interval:19}{counted}")
    return lines


@dataclass(frozen=True)
class Trained:
    """A controller that learned in dreams: its network, its score, how it learned, and how long that took."""

    controller: Actor | Linear
    network: dict[str, int]
    score: DreamScore
    history: History
    seconds: float
    cpu_seconds: float


def _trained(stage: Stage, dreams: Dream) -> Trained:
    config = stage.config
    began = time.perf_counter()
    cpu = time.process_time()
    learner: Learner = CONTROLLERS.make(
        config.controller,
        dreams,
        stage.recorded,
        stage.space,
        goals=config.goals,
        actor_inputs=stage.actor_inputs,
        seed=config.seed,
    )
    controller, history = learner.train()
    seconds = time.perf_counter() - began
    cpu_seconds = time.process_time() - cpu
    score = stage.evaluate(controller, dreams, learner.horizon)
    return Trained(controller, learner.network, score, history, seconds, cpu_seconds)


def _save(folder: Path, trained: Trained, stage: Stage) -> None:
    space = stage.space
    tokens, width = stage.recorded.z.shape[1:]
    controller_config = ControllerConfig(
        kind=stage.config.controller.kind,
        tokens=tokens,
        width=width,
        action_size=space.width,
        frames=space.frames,
        action_repeat=space.action_repeat,
        actions=space.actions,
        bounds=space.bounds,
        actor_inputs=stage.actor_inputs,
        **trained.network,
    )
    checkpoint.save(folder, trained.controller, controller_config.model_dump(mode="json"))


def _planned(places: Sequence[Path], score: DreamScore) -> Success | None:
    """The score of `jepa plan` on the same tasks, if there is one."""
    planned = PlanResult.find(places)
    if planned is None or planned.protocol != score.protocol:
        return None
    return Success.model_validate(planned.model_dump(include=set(Success.model_fields)))
