"""`jepa dream`: a controller learns inside a run's model, and is tried in the run's world.

RUN/dream/       the controller: model.safetensors + model.json; `load_controller` opens it
RUN/dream.json   success with its interval, others beside it, what dreams are worth against the world, the protocol
"""

import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from jepa.agents.controller import ActionSpace, Actor, Linear, Senses
from jepa.agents.imagination.actor_critic import ActorCritic, ActorCriticSettings
from jepa.agents.imagination.dream import Dream, Recorded
from jepa.agents.imagination.evolution import EvolutionSettings, evolve
from jepa.agents.imagination.reward import Distance, LinearRead, Reward, Within
from jepa.config import UserError, from_dict
from jepa.config import load as load_config
from jepa.export import checkpoint
from jepa.runs.acting import ActorCriticConfig, ControllerConfig, DreamConfig, StateConfig
from jepa.runs.model import DESCRIBED, load
from jepa.runs.recorded import action_space, recorded
from jepa.runs.schema import PretrainConfig
from jepa.runs.tasks import fitted, protocol_of
from jepa.world_model import LatentWorldModel
from jepa_data.shards.index import ShardSet
from jepa_probes.dreaming import evaluate_controller
from jepa_probes.features import Features
from jepa_probes.results import AGENTS
from jepa_probes.tasks import Tasks

FOLDER = "dream"
PLANNER = "planning in latents (plan.json)"


def dream(run: Path, config: DreamConfig, *, say: Callable[[str], None] = print) -> dict[str, Any]:
    """Train a controller in the run's model, save it, play the tasks with it and write the result.

    Raises:
        UserError: the run has no model with dynamics, its data come from no simulated world or from another than the
            config names, or settings do not fit together.
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
    config = fitted(run, config, ShardSet.open(training.data.folder).manifest.world, model)
    try:
        tasks = Tasks(protocol_of(config, model))  # before the training: a mistake shall not cost that
        space = action_space(config, model, config.bounds)
        found, stills = recorded(model, training.data, config.seed, config.clips, config.clips_per_video)
        moments = Recorded(found.latents, found.keys, stills)
        dreams = Dream(model.dynamics, model.spec.block_size, _reward(config, found), config.sampled)
        began, cpu = time.perf_counter(), time.process_time()
        controller, history = _learn(dreams, moments, space, config, say)
        spent = {"training_seconds": time.perf_counter() - began, "training_cpu_seconds": time.process_time() - cpu}
        result = evaluate_controller(model, controller, tasks, dreams, config.controller.horizon)
    except ValueError as error:
        raise UserError(f"{run}: {error}") from error
    _save(run / FOLDER, controller, model, space, config)
    result |= {"planner": _planned(run, result), "history": history, **spent}
    result["settings"] = config.model_dump(mode="json", exclude={"run"})
    (run / "dream.json").write_text(json.dumps(result, indent=2) + "\n")
    for line in table(result):
        say(line)
    return result


def load_controller(run: Path | str) -> Actor | Linear:
    """The controller that `jepa dream` left in a run, for `ImaginationPolicy`. Raises UserError if there is none."""
    folder = Path(run) / FOLDER
    if not folder.is_dir():
        raise UserError(f"{run}: no controller here; run `jepa dream {run}` first")
    described = {k: v for k, v in checkpoint.read_description(folder).items() if k not in DESCRIBED}
    config = from_dict(described, ControllerConfig, source=str(folder / checkpoint.DESCRIPTION))
    senses = Senses(config.tokens, config.width)
    space = ActionSpace(config.action_size, config.frames, config.hold, config.bounds)
    if config.kind == "evolution":
        controller = Linear(senses, space)
    else:
        controller = Actor(senses, space, hidden=config.hidden or 1, layers=config.layers or 0)
    checkpoint.load_into(controller, folder)
    return controller.eval().requires_grad_(False)


def table(result: dict[str, Any]) -> list[str]:
    """The result as lines of two tables: who solves the tasks, and what dreams are worth."""
    rows = [("learned in dreams", result)]
    rows += [(PLANNER, result["planner"])] if result["planner"] else []
    rows += [(AGENTS[name], score) for name, score in result["beside"].items()]
    width = max(len(label) for label, _ in rows)
    lines = [f"{'':{width}}  solved   95 % interval   tasks"]
    for label, score in rows:
        interval = f"{100 * score['low']:5.1f} … {100 * score['high']:5.1f} %"
        lines.append(f"{label:{width}}  {100 * score['success']:5.1f} %  {interval}  {score['tasks']:5d}")
    lines.append(f"{'return of':{width}}  in the dream  in the world       gap  correlation")
    for found in result["returns"].values():
        correlation = "" if found["correlation"] is None else f"{found['correlation']:.2f}"
        label = f"{found['steps']} latent steps"
        numbers = f"{found['dream']:12.3f}  {found['world']:12.3f}  {found['gap']:+8.3f}  {correlation:>11}"
        lines.append(f"{label:{width}}  {numbers}")
    return [*lines, f"trained in {result['training_cpu_seconds']:.0f} s of CPU, played in {result['seconds']:.0f} s"]


def _reward(config: DreamConfig, found: Features) -> Reward:
    wanted = config.reward
    if isinstance(wanted, StateConfig):
        unknown = [name for name in wanted.names if name not in found.state_names]
        if unknown:
            known = ", ".join(found.state_names) or "none"
            raise UserError(f"reward.names: no state {unknown[0]!r} was recorded; there are: {known}")
        columns = [found.state_names.index(name) for name in wanted.names]
        return Distance(wanted.measure, LinearRead(found.latents.flatten(0, 1), found.states.flatten(0, 1)[:, columns]))
    distance = Distance(wanted.measure)
    if not wanted.bonus:
        return distance
    if (near := wanted.near) is None:
        if found.latents.shape[1] < 2:
            raise UserError("reward.near: clips of one latent step have no neighbours in time; say how near")
        pairs = (found.latents[:, 1:].flatten(0, 1), found.latents[:, :-1].flatten(0, 1))
        near = -distance(*pairs).median().item()
    return Within(distance, near, wanted.bonus)


def _learn(
    dreams: Dream, recorded: Recorded, space: ActionSpace, config: DreamConfig, say: Callable[[str], None]
) -> tuple[Actor | Linear, list[float]]:
    settings: dict[str, Any] = config.controller.model_dump(exclude={"kind"}) | {"goals": config.goals}
    if isinstance(config.controller, ActorCriticConfig):
        learner = ActorCritic(dreams, recorded, space, ActorCriticSettings(**settings), config.seed)
        history = learner.train(say)
        return learner.actor, history
    return evolve(dreams, recorded, space, EvolutionSettings(**settings), config.seed, say)


def _save(
    folder: Path, controller: Actor | Linear, model: LatentWorldModel, space: ActionSpace, config: DreamConfig
) -> None:
    described = ControllerConfig(
        kind=config.controller.kind,
        tokens=model.spec.tokens,
        width=model.spec.width,
        action_size=space.width,
        frames=space.frames,
        hold=space.hold,
        bounds=space.bounds,
        hidden=config.controller.hidden if isinstance(config.controller, ActorCriticConfig) else None,
        layers=config.controller.layers if isinstance(config.controller, ActorCriticConfig) else None,
    )
    checkpoint.save(folder, controller, described.model_dump(mode="json"))


def _planned(run: Path, result: dict[str, Any]) -> dict[str, Any] | None:
    """The score of `jepa plan` on the same tasks, if there is one."""
    path = run / "plan.json"
    planned = json.loads(path.read_text()) if path.is_file() else {}
    if planned.get("protocol") != result["protocol"]:
        return None
    return {key: planned[key] for key in ("success", "low", "high", "tasks")}
