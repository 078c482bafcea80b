"""The world's own reward, by a head that is fitted to recorded rewards; and a head for ends, where there are any.

For worlds that set no tasks (gym:ID, take-cover): the controller sees no goal, and is scored by its return. With
`memory`, it and the heads read the LSTM of the dynamics beside the latent: [z, h, c], as in World Models.
"""

from functools import partial
from pathlib import Path
from typing import Literal

from pydantic import Field

from jepa.agents.imagination.dream import Dream
from jepa.agents.imagination.heads import HeadSettings
from jepa.agents.imagination.mdn_memory import Memory
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
        memory: bool = Field(
            default=False, description="controller and heads also read the memory of the dynamics (mdn_rnn), [z, h, c]"
        )

    def stage(self, run: Path, config: DreamConfig, model: LatentWorldModel, data: StreamConfig) -> Stage:
        config = recorded_in(run, config, ShardSet.open(data.folder).manifest, model)
        space = action_space(model, str(config.world), config.action_repeat, config.bounds)
        play = play_of(config)
        spec = model.spec
        memory = Memory(model.dynamics, spec.tokens, spec.width) if self.config.memory else None
        heads = heads_of(model, data, self.config.heads, config.seed, config.clips, memory)
        dynamics = memory or model.dynamics
        assert dynamics is not None
        dreams = Dream(dynamics, space.block_size, heads.reward, config.drawn_at, heads.continues)
        evaluate = partial(evaluate_return, model, play)
        return Stage(config, space, heads.starts, dreams, "memory" if memory else "latent", evaluate, heads.metrics)
