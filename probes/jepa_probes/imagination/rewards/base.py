"""What a reward of dreams is: it decides where controllers learn, and how they are tried."""

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from jepa.agents.controller import ActionSpace, Actor, ActorInputs, Linear
from jepa.agents.imagination.dream import Dream, Recorded
from jepa.agents.imagination.reward import Reward
from jepa.config import UserError
from jepa.world_model import LatentWorldModel
from jepa_data.config import StreamConfig
from jepa_data.shards.index import ShardSet
from jepa_data.shards.manifest import Manifest
from jepa_data.worlds.gym import REWARD
from jepa_probes.imagination.config import DreamConfig
from jepa_probes.imagination.evaluate import evaluate_controller
from jepa_probes.imagination.result import DreamScore
from jepa_probes.planning.recordings import action_space, recorded
from jepa_probes.planning.resolve import fitted, protocol_of
from jepa_probes.planning.tasks import Tasks
from jepa_probes.probing.features import Features


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


class DreamReward(ABC):
    """Made from its `Config`."""

    def __init__(self, config: Any) -> None:
        self.config = config

    @abstractmethod
    def stage(self, run: Path, config: DreamConfig, model: LatentWorldModel, data: StreamConfig) -> Stage:
        """What a controller needs. Recordings are read last: errors in the tasks come before that.

        Raises:
            UserError: the run's data come from no world with such rewards, or from another than the config names.
        """


class GoalReward(DreamReward):
    """Rewards a controller for coming nearer to goals."""

    @abstractmethod
    def reward(self, features: Features) -> Reward:
        """Fitted to what was recorded."""

    def check(self, about: Manifest) -> None:
        """Raises UserError if what the reward needs was not recorded."""

    def stage(self, run: Path, config: DreamConfig, model: LatentWorldModel, data: StreamConfig) -> Stage:
        about = ShardSet.open(data.folder).manifest
        if REWARD in about.state_names:
            raise UserError(f"{run}: {about.world} sets no goals; learn from its own reward: 'reward={{kind: world}}'")
        self.check(about)
        config = fitted(run, config, about, model)
        space = action_space(model, str(config.world), config.action_repeat, config.bounds)
        tasks = Tasks(protocol_of(config))
        features, goals = recorded(model, data, config.seed, config.clips, config.clips_per_video)
        assert model.dynamics is not None
        dreams = Dream(model.dynamics, space.block_size, self.reward(features), config.drawn_at)
        starts = Recorded(features.latents, features.keys, goals)
        return Stage(config, space, starts, dreams, "goal", partial(evaluate_controller, model, tasks), {})
