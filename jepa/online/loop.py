"""`jepa online`: collect an episode, learn from the replay buffer, and again; evaluate on the way.

    episode ──→ replay buffer ──→ train_ratio * decisions / (frames of a batch) updates ──→ next episode

RUN/online.yaml         the config with every default filled in
RUN/replay/             the episodes that are learned from
RUN/checkpoints/        last.ckpt, written between episodes: a run that was killed goes on with the very same numbers
RUN/logs/metrics.csv    returns and losses: a row for every episode
RUN/model/              what `jepa.load` reads; in model/actor the controller, see `load_agent`
RUN/online.json         returns of held-out episodes over environment steps, and those of random actions
"""

import csv
import logging
import shutil
import time
from pathlib import Path

import numpy as np
import torch

from jepa.agents.imagination.belief import BeliefPolicy
from jepa.config import UserError, dump, load
from jepa.config.writing import replacing
from jepa.models.model import save
from jepa.online.agent import agent_model, save_actor
from jepa.online.config import OnlineConfig
from jepa.online.environment import Environment
from jepa.online.evaluate import HELD_OUT, Evaluation, expert, play, random_actions
from jepa.online.learner import OnlineLearner
from jepa.online.replay import FOLDER, Episode, Replay
from jepa.online.result import OnlineResult
from jepa.training.run_state.checkpoint_file import read_checkpoint, write_checkpoint
from jepa.training.run_state.checkpoints import LAST
from jepa.training.seeds import seeded
from jepa_data.writable import holding

logger = logging.getLogger(__name__)

DESCRIPTION = "online.yaml"
CHECKPOINT = f"checkpoints/{LAST}"
METRICS = "logs/metrics.csv"
WRITTEN = (DESCRIPTION, FOLDER, "checkpoints", "logs", "model", OnlineResult.FILE)
PARTS = ("learner", "counts", "seconds", "replay", "rows", "evaluations")
MAY_CHANGE = ("run", "device", "checkpoint_every")
ACTING, LEARNING, RANDOM = range(3)  # independent streams of random numbers


def learn_online(config: OnlineConfig, *, resume: bool = False, overwrite: bool = False) -> OnlineResult:
    """Learn in an environment, and write the run folder.

    Args:
        resume: go on from the last checkpoint of the folder.
        overwrite: start again in a folder that already holds a run.

    Raises:
        UserError: the folder and the config do not fit, settings do not fit together, or a loss is not finite.
        DataError: the environment cannot be made, renders no images, or another process writes to the folder.
    """
    run = Path(config.run)
    with holding(run):
        return _started(config, run, resume=resume, overwrite=overwrite).learn()


def _started(config: OnlineConfig, run: Path, *, resume: bool, overwrite: bool) -> "Online":
    """A fresh run, or one that goes on."""
    if resume:
        _check_same(run, config)
    elif not overwrite and any((run / name).exists() for name in WRITTEN):
        raise UserError(f"{run} already holds a run; give another run=FOLDER, or --resume, or --overwrite")
    online = Online(config)
    if resume:
        online.restore()
    else:
        for path in (run / name for name in WRITTEN):
            if path.is_dir():
                shutil.rmtree(path)
            else:
                path.unlink(missing_ok=True)
        (run / DESCRIPTION).write_text(dump(config))
    return online


class Online:
    """A run: its learner, its replay buffer, and how far it is.

    Attributes:
        counts: environment steps, episodes, and decisions of the controller so far.
        seconds, cpu_seconds: of collecting and learning.
        rows: of metrics.csv.
    """

    def __init__(self, config: OnlineConfig) -> None:
        self.config = config
        self.folder = Path(config.run)
        environment = Environment(config.environment, np.arange(1))
        decisions = max(0, config.steps - config.random_steps) // config.environment.action_repeat
        self.learner = OnlineLearner(config, environment, max(1, self._updates(decisions)), _device(config))
        self.model = agent_model(self.learner.method, config, environment)
        self.policy = BeliefPolicy(self.model.world, self.learner.actor)
        self.replay = Replay(self.folder / FOLDER, config.replay.capacity)
        self.counts = {"steps": 0, "episodes": 0, "decisions": 0}
        self.seconds = self.cpu_seconds = 0.0
        self.rows: list[dict[str, float]] = []
        self.evaluations: list[Evaluation] = []

    def learn(self) -> OnlineResult:
        """Collect and learn until all steps are done."""
        while self.counts["steps"] < self.config.steps:
            began = time.perf_counter()
            cpu = time.process_time()
            before = self.counts["steps"]
            collected = self._collect()
            steps = self.counts["steps"]
            row: dict[str, float] = {"step": steps, "collect/return": collected}
            row |= self._learn()
            self.seconds += time.perf_counter() - began
            self.cpu_seconds += time.process_time() - cpu
            done = steps >= self.config.steps
            if done or _passed(before, steps, self.config.evaluate_every):
                row |= self._evaluate()
            self.rows.append(row)
            if done or _passed(before, steps, self.config.checkpoint_every):
                self._save()
        return self._finish()

    def restore(self) -> None:
        """Go on from the last checkpoint. Raises UserError if it is missing or damaged, or an episode is."""
        checkpoint = read_checkpoint(self.folder / CHECKPOINT, parts=PARTS, verb="jepa online")
        self.learner.restore(checkpoint["learner"])
        self.replay.restore(checkpoint["replay"])
        self.counts, self.rows = checkpoint["counts"], checkpoint["rows"]
        self.seconds, self.cpu_seconds = checkpoint["seconds"]
        self.evaluations = [Evaluation(**values) for values in checkpoint["evaluations"]]

    def _collect(self) -> float:
        """Play an episode into the replay buffer: by random actions at first, then by the controller, exploring."""
        number = self.counts["episodes"]
        key = (self.config.seed, number)
        environment = Environment(self.config.environment, np.array([_episode(*key)]))
        at_random = self.counts["steps"] < self.config.random_steps
        self.learner.method.eval()
        self.policy.reset(seeded(ACTING, *key))
        numbers = np.random.default_rng((RANDOM, *key))
        images, actions = [environment.images()[0]], list[np.ndarray]()
        rewards, terminated = [np.nan], [False]
        while not environment.over.all():
            action = environment.random_actions(numbers)[0] if at_random else self.policy.act(images[-1])
            outcome = environment.step(action[None])
            images.append(environment.images()[0])
            actions.append(action)
            rewards.append(outcome.reward[0])
            terminated.append(outcome.terminated[0])
        taken = np.array([*actions, np.zeros_like(actions[0])], np.float32)
        episode = Episode(np.stack(images), taken, np.array(rewards, np.float32), np.array(terminated))
        self.replay.append(number, episode)
        self.counts["episodes"] += 1
        self.counts["steps"] += environment.steps
        self.counts["decisions"] += 0 if at_random else len(actions)
        return float(np.nansum(rewards))

    def _learn(self) -> dict[str, float]:
        """The updates that are due; the mean of what they measured."""
        due = self._updates(self.counts["decisions"]) - self.learner.updates
        size = self.config.replay
        measured: dict[str, list[float]] = {}
        for _ in range(due):
            generator = seeded(LEARNING, self.config.seed, self.learner.updates)
            batch = self.replay.draw(size.batch_size, size.sequence_frames, generator)
            for name, value in self.learner.update(batch, generator).items():
                measured.setdefault(f"train/{name}", []).append(value)
        return {name: float(np.mean(values)) for name, values in measured.items()}

    def _updates(self, decisions: int) -> int:
        """How many are due after so many decisions of the controller."""
        size = self.config.replay
        return int(decisions * self.config.train_ratio / (size.batch_size * size.sequence_frames))

    def _evaluate(self) -> dict[str, float]:
        self.learner.method.eval()
        self.policy.reset()
        score = Evaluation.of(self.counts["steps"], play(self.config, lambda world: self.policy.act(world.images())))
        self.evaluations.append(score)
        logger.info(
            f"{score.step} steps, {self.learner.updates} updates, {self.seconds:.0f} s  "
            f"return {score.mean_return:.1f} ({score.low:.1f} … {score.high:.1f})"
        )
        return {"evaluate/return": score.mean_return, "evaluate/low": score.low, "evaluate/high": score.high}

    def _save(self) -> None:
        """Write a checkpoint and the metrics so far."""
        checkpoint = {
            "learner": self.learner.state(),
            "counts": self.counts,
            "seconds": [self.seconds, self.cpu_seconds],
            "replay": list(self.replay.episodes),
            "rows": self.rows,
            "evaluations": [score.model_dump() for score in self.evaluations],
        }
        write_checkpoint(checkpoint, self.folder / CHECKPOINT)
        self.replay.forget()
        metrics = self.folder / METRICS
        metrics.parent.mkdir(exist_ok=True)
        names = list(dict.fromkeys(name for row in self.rows for name in row))
        with replacing(metrics) as partial, partial.open("w", newline="") as file:
            writer = csv.DictWriter(file, names, restval="")
            writer.writeheader()
            writer.writerows(self.rows)

    def _finish(self) -> OnlineResult:
        """The model, its controller and the result; all are written."""
        save(self.model, self.folder / "model")
        save_actor(self.learner.actor, self.folder / "model", **self.learner.controller.network)
        baselines = {"random": Evaluation.of(0, play(self.config, random_actions(self.config.seed)))}
        if (script := expert(self.config)) is not None:
            baselines["expert"] = Evaluation.of(0, play(self.config, script))
        result = OnlineResult(
            evaluations=self.evaluations,
            baselines=baselines,
            updates=self.learner.updates,
            parameters=sum(p.numel() for p in self.learner.method.parameters()),
            seconds=self.seconds,
            cpu_seconds=self.cpu_seconds,
            steps=self.counts["steps"],
            episodes=self.counts["episodes"],
            decisions=self.counts["decisions"],
        )
        result.write(self.folder)
        return result


def _episode(seed: int, number: int) -> int:
    """The number of an episode to collect: never one of those held out."""
    return int(np.random.SeedSequence((seed, number)).generate_state(1)[0]) % HELD_OUT


def _passed(before: int, after: int, every: int) -> bool:
    return before // every < after // every


def _device(config: OnlineConfig) -> torch.device:
    cuda = torch.cuda.is_available()
    if config.device == "cuda" and not cuda:
        raise UserError("device is cuda, and torch finds no GPU; give device=cpu")
    return torch.device("cuda" if cuda and config.device != "cpu" else "cpu")


def _check_same(run: Path, config: OnlineConfig) -> None:
    """Raises UserError if the run to go on with is not there, or had other settings."""
    if not (run / CHECKPOINT).is_file():
        raise UserError(f"{run}: no {CHECKPOINT} to resume from; start without --resume")
    before = load(run / DESCRIPTION, OnlineConfig)
    changed = [
        name
        for name in OnlineConfig.model_fields
        if name not in MAY_CHANGE and getattr(before, name) != getattr(config, name)
    ]
    if changed:
        raise UserError(f"{run}: cannot be resumed with another {', '.join(changed)}; give that of {run / DESCRIPTION}")
