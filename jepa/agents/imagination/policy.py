"""Encoder and controller as a policy: images in, actions out, without planning.

controller = load_controller("runs/two-rooms")                              # of jepa_probes.imagination.dream
policy = ImaginationPolicy(jepa.load("runs/two-rooms"), controller, goal)   # goal: uint8 [h, w, 3]
action = policy.act(observation)
"""

from typing import Any

import numpy as np
import torch
from jaxtyping import Float, Float32
from torch import Tensor

from jepa.agents.controller import Actor, Controller, Linear
from jepa.agents.imagination.mdn_memory import Memory
from jepa.agents.observations import LatestFrames, as_action, as_images, check_shape, stride_of
from jepa.config import UserError
from jepa.world_model import LatentWorldModel


class ImaginationPolicy:
    """Acts in one environment (images [h, w, 3]) or in B at once (images [B, h, w, 3]), as `jepa.agents.Policy`.

    Args:
        model: the world model that the controller was trained in.
        controller: called once per latent step.
        goal: goal images, uint8 RGB, of the same shape as the observations; None: the controller has no goal.
        fps: observations per second; None: the frame rate of the model.

    Attributes:
        latent: the latest input of the controller: a latent, or [z, h, c] if the controller reads memory.
        decisions: number of calls of the controller.

    Raises:
        UserError: goal and observations differ in shape, the rates do not divide, or the controller needs a goal.
    """

    def __init__(
        self, model: LatentWorldModel, controller: Controller, goal: Any = None, fps: float | None = None
    ) -> None:
        inputs = controller.normalizer.actor_inputs if isinstance(controller, Actor | Linear) else "latent"
        if goal is None and inputs == "goal":
            raise UserError("this controller also reads the goal: give an image of it")
        spec = model.spec
        self._memory = Memory(model.dynamics, spec.tokens, spec.width) if inputs == "memory" else None
        self.model, self.controller = model, controller
        self.stride = stride_of(fps or model.preprocessing.fps, model)
        self.goal = self.goal_shape = None
        if goal is not None:
            self.goal = model.encode_image(as_images(goal))
            self.goal_shape = goal.shape
        self.reset()

    def reset(self) -> None:
        """Start a new episode: clear the observations."""
        self.latent: Float[Tensor, "B N D"] | None = None
        self._block: Float[Tensor, "B E"] | None = None
        self.decisions = 0
        self._frames = LatestFrames(self.model.spec.frames_per_step, self.stride)
        self._queue: list[Tensor] = []

    @torch.no_grad()
    def act(self, observation: Any) -> Float32[np.ndarray, "*B A"]:
        """The action for an observation. Calls the controller once per latent step."""
        check_shape(observation, self.goal_shape)
        self._frames.add(as_images(observation))
        if not self._queue:
            z = self.model.encode(self._frames.clip())[:, -1]
            self.latent = z if self._memory is None else self._memory.observed(self.latent, self._block, z)
            self._block = self.controller.act(self.latent, self.latent if self.goal is None else self.goal)
            self._queue = list(self._block.cpu().unflatten(-1, (self._frames.period, -1)).unbind(1))
            self.decisions += 1
        return as_action(self._queue.pop(0), observation)
