"""What learns online: a world model from replayed sequences, and a controller in dreams that start from them.

replay ──sequences──→ Dreamer.learn ──→ loss, optimizer step
                               └─→ [h, s] of all their frames ──starts──→ dreams ──→ ActorCritic.update
"""

from typing import Any

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from jepa.agents.controller import ActionSpace, Actor, ObservationNormalizer
from jepa.agents.imagination.actor_critic import ActorCritic
from jepa.agents.imagination.belief import Belief
from jepa.agents.imagination.dream import Dream, Recorded
from jepa.config import UserError, errors_of
from jepa.methods import METHODS
from jepa.methods.base import Batch, ClipShape
from jepa.methods.dreamer import Dreamer
from jepa.models.build import build_encoder
from jepa.online.config import OnlineConfig
from jepa.online.environment import Environment
from jepa.training.optim import check_state, clip_gradients, optimizer_of
from jepa.training.schedules import SCHEDULES


class OnlineLearner:
    """A world model and a controller on its states, that learn together.

    Args:
        environment: tells the actions.
        updates: of the whole run, for the schedule.

    Attributes:
        updates: done so far. All random numbers of one follow from the seed and its number, and from what the
            controller has drawn before.

    Raises:
        UserError: settings do not fit together.
    """

    def __init__(self, config: OnlineConfig, environment: Environment, updates: int, device: torch.device) -> None:
        self.config, self.device = config, device
        self.updates = 0
        space = ActionSpace(environment.action_size, bounds="choice" if environment.discrete else "box")
        with torch.random.fork_rng(devices=[]), errors_of("method"):
            torch.manual_seed(config.seed)
            frames = config.replay.sequence_frames
            encoder = build_encoder(config.encoder, config.environment.image_size, frames)
            method = METHODS.make(config.method, encoder, ClipShape(frames, environment.action_size))
        assert isinstance(method, Dreamer)
        self.method = method.to(device)
        self.optimizer = optimizer_of(config.optimizer)(method)
        with errors_of("schedule"):
            self.schedule = SCHEDULES.make(config.schedule, config.optimizer.lr, updates)
        dream = Dream(
            Belief(method.dynamics),
            environment.action_size,
            lambda z, goal: method.reward(z[:, 0]),
            temperature=1.0,
            continues=lambda z: method.continues(z[:, 0]),
        )
        size = method.dynamics.feature_size
        start = Recorded(torch.zeros(1, 2, 1, size, device=device), ["none yet"])
        normalizer = ObservationNormalizer(1, size, "latent").to(device)  # h and s are within -1..1 by design
        self.controller = ActorCritic(
            config.controller, dream, start, space, actor_inputs="latent", seed=config.seed, normalizer=normalizer
        )

    @property
    def actor(self) -> Actor:
        return self.controller.actor

    def update(self, batch: Batch, generator: torch.Generator) -> dict[str, float]:
        """One step of the world model on a batch of replayed sequences, and one of the controller.

        Raises:
            UserError: a loss or a gradient is not finite.
        """
        batch = _moved(batch, self.device)
        for group in self.optimizer.param_groups:
            group["lr"] = self.config.optimizer.lr * self.schedule(self.updates)
        self.method.train()
        terms, features = self.method.learn(batch, generator)
        if not terms["loss"].isfinite():
            raise UserError(f"the loss is {terms['loss'].item()} at update {self.updates}; lower optimizer.lr")
        self.optimizer.zero_grad()
        terms["loss"].backward()
        clip_gradients(
            self.method, self.optimizer, self.config.clip_norm, self.updates, self.config.optimizer.adaptive_clip
        )
        self.optimizer.step()
        self.updates += 1
        assert batch.targets is not None
        learned = self._imagine(features, batch.targets[..., 1] > 0)
        return {name: value.item() for name, value in terms.items()} | learned

    def _imagine(self, features: Float[Tensor, "B S F"], terminated: Bool[Tensor, "B S"]) -> dict[str, float]:
        """An update of the controller in dreams from states in which episodes go on; the world model is frozen."""
        starts = features[~terminated][:, None, None]
        self.controller.recorded = Recorded(starts, [str(row) for row in range(len(starts))])
        self.method.requires_grad_(False)
        learned = self.controller.update()
        self.method.requires_grad_(True)
        return {f"controller_{name}": value for name, value in learned.items()}

    def state(self) -> dict[str, Any]:
        """For a checkpoint. Raises UserError if a weight is not finite."""
        tensors = self.method.state_dict()
        check_state(tensors, [self.optimizer.state_dict()], f"the checkpoint of update {self.updates}")
        return {
            "method": tensors,
            "optimizer": self.optimizer.state_dict(),
            "controller": self.controller.state(),
            "updates": self.updates,
        }

    def restore(self, state: dict[str, Any]) -> None:
        self.method.load_state_dict(state["method"])
        self.optimizer.load_state_dict(state["optimizer"])
        self.controller.restore(state["controller"])
        self.updates = state["updates"]


def _moved(batch: Batch, device: torch.device) -> Batch:
    moved: dict[str, Any] = {name: None if x is None else x.to(device) for name, x in vars(batch).items()}
    return Batch(**moved)
