"""The world's own reward, by a head that is fitted to recorded rewards; and a head for ends, where there are any.

For worlds that set no tasks (gym:ID): the controller sees no goal, and is scored by its return.
"""

from functools import partial
from pathlib import Path
from typing import Literal

from jepa.agents.imagination.dream import Dream
from jepa.agents.imagination.heads import HeadSettings
from jepa.config import Component
from jepa.world_model import LatentWorldModel
from jepa_data.config import StreamConfig
from jepa_data.shards.index import ShardSet
from jepa_probes.imagination.config import DreamConfig
from jepa_probes.imagination.evaluate import evaluate_return
from jepa_probes.imagination.reward_data import heads_of
from jepa_probes.imagination.rewards.base import DreamReward, Stage
from jepa_probes.planning.recordings import action_space
from jepa_probes.planning.resolve import play_of, recorded_in


class WorldReward(DreamReward):
    """The world's own reward."""

    class Config(Component):
        """How the heads for rewards and ends are fitted."""

        kind: Literal["world"] = "world"
        heads: HeadSettings = HeadSettings()

    def stage(self, run: Path, config: DreamConfig, model: LatentWorldModel, data: StreamConfig) -> Stage:
        config = recorded_in(run, config, ShardSet.open(data.folder).manifest, model)
        space = action_space(model, str(config.world), config.action_repeat, config.bounds)
        play = play_of(config)
        heads = heads_of(model, data, self.config.heads, config.seed, config.clips)
        assert model.dynamics is not None
        dreams = Dream(model.dynamics, space.block_size, heads.reward, config.drawn_at, heads.continues)
        evaluate = partial(evaluate_return, model, play)
        return Stage(config, space, heads.starts, dreams, "latent", evaluate, heads.metrics)
