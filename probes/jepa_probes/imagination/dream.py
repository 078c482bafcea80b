"""`jepa dream`: a controller learns inside a run's model, and is tried in the run's world.

RUN/dream/       the controller: model.safetensors + model.json; `load_controller` opens it
RUN/dream.json   how it did in held-out tasks with its interval (in a world without tasks: what it earned), others
                 beside it, what dreams are worth against the world, at each temperature, the protocol

With `--out FOLDER` they go there.
"""

import logging
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

from jepa.agents.controller import ActionSpace, Actor, ActorInputs, Linear, ObservationNormalizer
from jepa.agents.imagination.actor_critic import ActorCritic, ActorCriticSettings
from jepa.agents.imagination.dream import Dream, Recorded
from jepa.agents.imagination.evolution import EvolutionSettings, evolve
from jepa.agents.imagination.reward import Distance, Reward, Within
from jepa.config import UserError, from_dict
from jepa.config import load as load_config
from jepa.decoders.state import LinearRead
from jepa.models import checkpoint
from jepa.models.model import FILE_KEYS, load
from jepa.training.config import PretrainConfig
from jepa.world_model import Dynamics, LatentWorldModel
from jepa_data.config import StreamConfig
from jepa_data.shards.index import ShardSet
from jepa_data.shards.manifest import Manifest
from jepa_data.worlds.gym import PREFIX
from jepa_probes.imagination.config import (
    ActorCriticConfig,
    ControllerConfig,
    DistanceConfig,
    DreamConfig,
    StateConfig,
    WorldRewardConfig,
)
from jepa_probes.imagination.evaluate import evaluate_controller, evaluate_return
from jepa_probes.imagination.result import DreamResult, DreamScore
from jepa_probes.imagination.reward_data import heads_of
from jepa_probes.output import folders, output_folder
from jepa_probes.planning.recordings import action_space, recorded
from jepa_probes.planning.resolve import fitted, play_of, protocol_of, recorded_in, score_table
from jepa_probes.planning.result import PlanResult, Success
from jepa_probes.planning.tasks import Tasks
from jepa_probes.probing.features import Features
from jepa_probes.reporting.results import AGENTS

logger = logging.getLogger(__name__)

FOLDER = "dream"
PLANNER = "planning in latents (plan.json)"
LEARNED = "learned in dreams"


@dataclass(frozen=True)
class Stage:
    """Where controllers of a run learn, and how they are tried.

    Attributes:
        config: with all that it leaves to the world.
        space: of the actions.
        recorded: where dreams start, and their goals.
        dream: at the temperature of the config.
        actor_inputs: whether controllers are shown a goal.
        evaluate: a controller that was trained for so many latent steps, in the world and in a dream.
        heads: how well rewards and ends are known, in words of `heads_of`; empty where they are not learned.
    """

    config: DreamConfig
    space: ActionSpace
    recorded: Recorded
    dream: Dream
    actor_inputs: ActorInputs
    evaluate: Callable[[Actor | Linear, Dream, int], DreamScore]
    heads: dict[str, float]


def dream(run: Path, config: DreamConfig, *, out: Path | None = None) -> DreamResult:
    """Train a controller in the run's model, save it, try it in the world and write the result.

    Args:
        out: folder for what is written; None: the run's.

    Raises:
        UserError: the run has no model with dynamics, its data come from no simulated world or from another than the
            config names, settings do not fit together, or nothing can be written.
    """
    model, training = load(run), load_config(run / "config.yaml", PretrainConfig)
    if model.dynamics is None:
        raise UserError(
            f"{run}: its method has no dynamics, so it cannot dream. Pretrain one with `method: {{kind: lewm}}`"
        )
    if model.spec.states:
        raise UserError(
            f"{run}: its dynamics are told {', '.join(model.spec.states)}, and dreams start from latents alone. "
            "Pretrain one without method.states"
        )
    out, about = output_folder(run, out), ShardSet.open(training.data.folder).manifest
    try:
        stage = _stage(run, config, about, model, model.dynamics, training.data)
        if config.sampled and not stage.dream.varies(stage.recorded.z[:8]):
            logger.info("this model predicts one outcome, which sampling does not change, at whatever temperature")
        controller, score, learning = _trained(stage, stage.dream)
        at = {f"{config.temperature:g}": score.returns} if config.sampled else {}
        for temperature in dict.fromkeys(config.temperatures):
            if temperature != config.temperature:
                logger.info(f"temperature {temperature:g}:")
                other = replace(stage.dream, temperature=temperature)
                at[f"{temperature:g}"] = _trained(stage, other)[1].returns
    except UserError:
        raise
    except ValueError as error:
        raise UserError(f"{run}: {error}") from error
    _save(out / FOLDER, controller, model, stage)
    result = DreamResult(
        **dict(score),
        **learning,
        planner=_planned(folders(run, out), score),
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
    places = [place / FOLDER for place in folders(Path(run), out)]
    folder = next((place for place in places if place.is_dir()), None)
    if folder is None:
        raise UserError(f"{run}: no controller here; run `jepa dream {run}` first")
    described = {k: v for k, v in checkpoint.read_description(folder).items() if k not in FILE_KEYS}
    config = from_dict(described, ControllerConfig, source=str(folder / checkpoint.DESCRIPTION))
    senses = ObservationNormalizer(config.tokens, config.width, config.actor_inputs)
    space = ActionSpace(config.action_size, config.frames, config.action_repeat, config.bounds, config.actions)
    if config.kind == "evolution":
        controller = Linear(senses, space)
    else:
        controller = Actor(senses, space, hidden=config.hidden or 1, layers=config.layers or 0)
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
        for found in returns.values():
            correlation = "" if found.correlation is None else f"{found.correlation:.2f}"
            label = f"{found.steps} latent steps"
            numbers = f"{found.dream or 0:12.3f}  {found.world or 0:12.3f}  {found.gap or 0:+8.3f}  {correlation:>11}"
            lines.append(f"{label:15}" + f"  {temperature:>11}" * sampled + f"  {numbers}")
    lines += [f"{name.replace('_', ' ')}: {value:.3f}" for name, value in result.heads.items()]
    return [*lines, f"trained in {result.training_cpu_seconds:.0f} s of CPU, played in {result.seconds:.0f} s"]


def _successes(result: DreamResult) -> list[str]:
    rows = [(LEARNED, result.as_success())]
    rows += [(PLANNER, result.planner)] if result.planner else []
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


def _stage(
    run: Path, config: DreamConfig, about: Manifest, model: LatentWorldModel, dynamics: Dynamics, data: StreamConfig
) -> Stage:
    """What a controller needs. Recordings are read last: a mistake in the tasks shall not cost that."""
    drawn = {"sampled": config.sampled, "temperature": config.temperature}
    wanted = config.reward
    if isinstance(wanted, WorldRewardConfig):
        config = recorded_in(run, config, about, model)
        space, play = action_space(config, model, config.bounds), play_of(config)
        heads = heads_of(model, data, wanted, config.seed, config.clips)
        dreams = Dream(dynamics, space.block_size, heads.reward, continues=heads.continues, **drawn)
        return Stage(config, space, heads.moments, dreams, "latent", partial(evaluate_return, model, play), heads.told)
    if about.world is not None and about.world.startswith(PREFIX):
        raise UserError(f"{run}: {about.world} sets no goals; learn from its own reward: 'reward={{kind: world}}'")
    if isinstance(wanted, StateConfig) and (missing := [n for n in wanted.names if n not in about.state_names]):
        known = ", ".join(about.state_names) or "none"
        raise UserError(f"reward.names: no state {missing[0]!r} was recorded; there are: {known}")
    config = fitted(run, config, about, model)
    space, tasks = action_space(config, model, config.bounds), Tasks(protocol_of(config))
    found, stills = recorded(model, data, config.seed, config.clips, config.clips_per_video)
    dreams = Dream(dynamics, space.block_size, _reward(wanted, found), **drawn)
    moments = Recorded(found.latents, found.keys, stills)
    return Stage(config, space, moments, dreams, "goal", partial(evaluate_controller, model, tasks), {})


def _reward(wanted: DistanceConfig | StateConfig, found: Features) -> Reward:
    if isinstance(wanted, StateConfig):
        columns = [found.state_names.index(name) for name in wanted.names]
        return Distance(wanted.measure, LinearRead(found.latents.flatten(0, 1), found.states.flatten(0, 1)[:, columns]))
    distance = Distance(wanted.measure)
    if not wanted.bonus:
        return distance
    if (near := wanted.near) is None:
        if found.latents.shape[1] < 2:
            raise UserError("reward.near: clips of one latent step have no neighbors in time; say how near")
        pairs = (found.latents[:, 1:].flatten(0, 1), found.latents[:, :-1].flatten(0, 1))
        near = -distance(*pairs).median().item()
    return Within(distance, near, wanted.bonus)


def _trained(stage: Stage, dreams: Dream) -> tuple[Actor | Linear, DreamScore, dict[str, Any]]:
    """A controller that learned in such dreams, and its score, and how it learned: history, seconds."""
    config, began, cpu = stage.config, time.perf_counter(), time.process_time()
    settings: dict[str, Any] = config.controller.model_dump(exclude={"kind"})
    settings |= {"goals": config.goals, "actor_inputs": stage.actor_inputs}
    if isinstance(config.controller, ActorCriticConfig):
        learner = ActorCritic(dreams, stage.recorded, stage.space, ActorCriticSettings(**settings), config.seed)
        history, controller = learner.train(), learner.actor
    else:
        controller, history = evolve(dreams, stage.recorded, stage.space, EvolutionSettings(**settings), config.seed)
    spent = {"training_seconds": time.perf_counter() - began, "training_cpu_seconds": time.process_time() - cpu}
    score = stage.evaluate(controller, dreams, config.controller.horizon)
    return controller, score, {"history": history} | spent


def _save(folder: Path, controller: Actor | Linear, model: LatentWorldModel, stage: Stage) -> None:
    learned, space = stage.config.controller, stage.space
    described = ControllerConfig(
        kind=learned.kind,
        tokens=model.spec.tokens,
        width=model.spec.width,
        action_size=space.width,
        frames=space.frames,
        action_repeat=space.action_repeat,
        actions=space.actions,
        bounds=space.bounds,
        actor_inputs=stage.actor_inputs,
        hidden=learned.hidden if isinstance(learned, ActorCriticConfig) else None,
        layers=learned.layers if isinstance(learned, ActorCriticConfig) else None,
    )
    checkpoint.save(folder, controller, described.model_dump(mode="json"))


def _planned(places: Sequence[Path], score: DreamScore) -> Success | None:
    """The score of `jepa plan` on the same tasks, if there is one."""
    planned = PlanResult.find(places)
    if planned is None or planned.protocol != score.protocol:
        return None
    return Success.model_validate(planned.model_dump(include=set(Success.model_fields)))
