"""Encoder and planner as a policy: images in, actions out, with goal images.

policy = Policy(jepa.load("runs/demo"), goal)      # goal: uint8 [h, w, 3]
observation, info = env.reset()
while not done:
    observation, reward, terminated, truncated, info = env.step(policy.act(observation))

Models that read several latents start each plan from the last latents and the actions between them:

    latents   z3 ─a3─> z4 ─a4─> z5          history 3; each frame is encoded once
    plan                        z5 ─?─> ─?─> …

A plan that runs into something the model does not see, such as a doorpost, changes nothing, so the next plan is the
same. With `random_action_if_stuck`, the policy takes a random action when the world moved much less than imagined, and
replans after it.
"""

from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import torch
from jaxtyping import Bool, Float, Float32, UInt8
from torch import Tensor

from jepa.agents.controller import Controller
from jepa.agents.observations import LatestFrames, as_action, as_images, check_shape, stride_of
from jepa.agents.proposals import RecordedSegments
from jepa.config import UserError
from jepa.planners.base import Plan, Planner
from jepa.planners.cem import CEM
from jepa.planners.cost import Term, goal_distance
from jepa.planners.futures import Futures, Outlook, standard_normal
from jepa.planners.mpc import ModelPredictiveControl, PlanBounds
from jepa.world_model import LatentWorldModel, State, advance, rollout

SHORT = 0.4  # of the longest way that was imagined between two plans: less is a short one


@dataclass(frozen=True)
class PlanSettings:
    """Settings of a `Policy`; see also ModelPredictiveControl and goal_reached.

    `horizon`, `replan_every`: in latent steps.
    `terms`: costs in addition to the distance to the goal, which has weight 1.
    `keep`: start each plan from the rest of the last one. If the model is wrong, this repeats the same mistake.
    `history`: maximum number of latents that the model reads before a plan; None: see `history_of`.
    `budget`: actions of an episode, from its start; plans are cut to the rest. None: not known.
    `proposals`: number of recorded segments from which each plan also starts, if the policy has recordings.
    `futures`: sampled futures of each plan, for dynamics that predict a distribution; 0: one, without noise.
    `outlook`: which of their costs counts: the mean, the lowest (best) or the highest (worst).
    `random_action_if_stuck`: an episode is stuck if its latent moved less than this share of the imagined distance.
    """

    horizon: int = 6
    replan_every: int = 2
    action_repeat: int = 1
    bounds: PlanBounds = "box"
    running_cost_weight: float = 1.0
    planner: Planner = field(default_factory=lambda: CEM(CEM.Config()))
    terms: tuple[Term, ...] = ()
    keep: bool = True
    history: int | None = None
    random_action_if_stuck: float = 0.0
    budget: int | None = None
    proposals: int = 64
    futures: int = 0
    outlook: Outlook = "mean"

    def __post_init__(self) -> None:
        if not 0 <= self.random_action_if_stuck < 1:
            raise ValueError(
                "random_action_if_stuck is a share of what was imagined, from 0 to below 1; "
                f"found {self.random_action_if_stuck}"
            )
        if self.history is not None and self.history < 1:
            raise ValueError(f"a plan starts from the present latent at least (history 1), found {self.history}")


class Policy:
    """Acts in one environment (images [h, w, 3]) or in B at once (images [B, h, w, 3]).

    Args:
        model: a world model with dynamics.
        goal: goal images, uint8 RGB, of the same shape as the observations.
        settings: of the planner.
        seed: of the planner's samples.
        fps: observations per second; None: the frame rate of the model. At n times it, the model reads every n-th
            observation, and its action is n concatenated actions.
        guide: a controller whose imagined rollout initializes every plan; None: see `settings`.
        segments: recordings whose segments are additional starts of every plan; None: none.

    Raises:
        UserError: the model has no dynamics, or predicts one future where several are to be sampled; goal and
            observations differ in shape, or the rates do not divide.
    """

    def __init__(
        self,
        model: LatentWorldModel,
        goal: Any,
        settings: PlanSettings | None = None,
        seed: int = 0,
        fps: float | None = None,
        guide: Controller | None = None,
        segments: RecordedSegments | None = None,
    ) -> None:
        if model.dynamics is None:
            raise UserError("this model has no dynamics, so it cannot plan; pretrain one with `method: {kind: lewm}`")
        self.model, self.guide = model, guide
        self.segments = segments
        self.settings = settings = settings or PlanSettings()
        self.stride = stride_of(fps or model.preprocessing.fps, model)
        self.history = settings.history or history_of(model, settings.horizon)
        self.goal = model.encode_image(as_images(goal))
        self.goal_shape = goal.shape
        self.control = ModelPredictiveControl(
            settings.planner,
            horizon=settings.horizon,
            replan_every=settings.replan_every,
            action_size=model.spec.block_size // (model.spec.frames_per_step * self.stride),
            frames=model.spec.frames_per_step * self.stride,
            action_repeat=settings.action_repeat,
            bounds=settings.bounds,
            keep=settings.keep,
            seed=seed,
            actions=model.spec.actions,
            budget=settings.budget,
        )
        self._futures = _futures(model, settings, seed)
        self.reset()

    def reset(self) -> None:
        """Start a new episode: clear observations and plans."""
        self.control.reset()
        self.last_plan: Plan | None = None
        self._state: State | None = None
        self._frames = LatestFrames(self.model.spec.frames_per_step, self.stride)
        self._steps: list[Tensor] = []  # latent steps that are not encoded yet, [B, frames, C, h, w] each
        self._states: list[Tensor] = []  # states at the last `history` latent steps, [B, X] each
        self._latents: list[Tensor] = []  # of the last `history` steps, [B, N, D] each
        self._done: list[Tensor] = []  # blocks that led from each of them to the next, [B, E] each
        self._queue: list[Tensor] = []
        self._expected: tuple[Tensor, Tensor] | None = None  # where the last plan began and was to lead, [B, N, D] each
        self._farthest = torch.zeros(())  # that the acted part of a plan was to lead so far, [B]
        self.plans = self.evaluations = self.differentiated = self.model_calls = 0

    @property
    def is_planning(self) -> bool:
        """Whether the next call of `act` plans."""
        return not self._queue

    def act(self, observation: Any, state: Float[np.ndarray, "*B X"] | None = None) -> Float32[np.ndarray, "*B A"]:
        """The action for an observation, in the units of the data. Replans after `replan_every` latent steps.

        Args:
            state: the current proprioceptive state, raw and in the order of `model.spec.states`; only for models that
                need it.

        Raises:
            UserError: image and goal differ in shape, or the state is missing, not needed, or of the wrong width.
        """
        check_shape(observation, self.goal_shape)
        images = as_images(observation)
        self._observe(images, self._checked(state, len(images)))
        if self.is_planning:
            self._queue = self._plan()
        return as_action(self._queue.pop(0), observation)

    def _observe(self, images: UInt8[Tensor, "B 3 h w"], state: Float[Tensor, "B X"] | None) -> None:
        """Store a frame, and at the beginning of a latent step its frames and state."""
        if self._frames.add(images):
            self._steps = [*self._steps, self._frames.clip()][-self.history :]
            if state is not None:
                self._states = [*self._states, state][-self.history :]

    def _checked(self, state: Float[np.ndarray, "*B X"] | None, batch: int) -> Float[Tensor, "B X"] | None:
        wanted = self.model.spec.states
        given = "none"
        if state is not None:
            rows = np.atleast_2d(state)
            if wanted and rows.shape == (batch, len(wanted)):
                return torch.from_numpy(rows).float()
            given = f"a state {list(rows.shape)}"
        elif not wanted:
            return None
        needed = f"its state as well, [{batch}, {len(wanted)}]: {', '.join(wanted)}" if wanted else "images alone"
        raise UserError(f"this model reads {needed}; found {given}")

    @torch.no_grad()
    def imagine(self) -> Float[Tensor, "B H N D"]:
        """The imagined latents of the last plan."""
        if self.last_plan is None or self._state is None:
            raise ValueError("nothing is planned yet: call act() first")
        assert self.model.dynamics is not None
        return rollout(self.model.dynamics, self._state, self.last_plan.actions[:, None])[:, 0]

    def _plan(self) -> list[Tensor]:
        spec = self.model.spec
        z = self._encoded()
        dynamics = self.model.dynamics
        assert dynamics is not None and spec.action_size is not None
        done = torch.stack(self._done, 1).to(z) if self._done else z.new_zeros(len(z), 0, spec.block_size)
        states = torch.stack(self._states, 1).to(z) if self._states else None
        self._state = dynamics.initial_state(z, done, states)
        cost = goal_distance(dynamics, self._state, self.goal, running_cost_weight=self.settings.running_cost_weight)
        cost = replace(cost, terms=(*cost.terms, *self.settings.terms), futures=self._futures)
        now = z[:, -1]
        horizon = self.control.next_horizon()
        proposals = None
        if self.segments is not None:
            goal = self.goal.expand(len(z), -1, -1)
            proposals = self.segments.propose(now, goal, horizon, self.settings.proposals)
        suggested = self._suggested(now, horizon)
        self.last_plan = self.control.plan(cost, len(z), suggested, self._stuck(now), proposals)
        self.plans += 1
        self.evaluations += self.last_plan.evaluations
        self.model_calls += self.last_plan.evaluations * horizon * max(1, self.settings.futures)
        self.differentiated += self.last_plan.differentiated
        acted = self.last_plan.actions[:, : self.settings.replan_every]
        if self.settings.random_action_if_stuck:
            self._expected = now, rollout(dynamics, self._state, acted[:, None])[:, 0, -1]
        blocks = acted.cpu()
        if self.history > 1:  # the next plan starts before what is done now
            self._done = [*self._done, *blocks.unbind(1)][1 - self.history :]
        raw = spec.action_size // self.stride
        return list(blocks.unflatten(-1, (self._frames.period, raw)).flatten(1, 2).unbind(1))

    def _encoded(self) -> Float[Tensor, "B S N D"]:
        """The last latents; new steps are encoded in one batch."""
        new = torch.stack(self._steps, 1)  # [B, steps, frames, C, h, w]
        z = self.model.encode(new.flatten(0, 1)).unflatten(0, new.shape[:2])[:, :, 0]
        self._latents = [*self._latents, *z.unbind(1)][-self.history :]
        self._steps = []
        return torch.stack(self._latents, 1)

    def _stuck(self, z: Float[Tensor, "B N D"]) -> Bool[Tensor, " B"] | None:
        """Episodes that moved much less than the last plan imagined. Short plans, as at the goal, do not count."""
        if self._expected is None:
            return None
        began, expected = self._expected
        moved, imagined = (torch.stack((z, expected)) - began).flatten(2).norm(dim=-1)
        self._farthest = torch.maximum(self._farthest.to(imagined), imagined)
        return (moved < self.settings.random_action_if_stuck * imagined) & (imagined > SHORT * self._farthest)

    def _suggested(self, z: Float[Tensor, "B N D"], horizon: int) -> Float[Tensor, "B H E"] | None:
        if self.guide is None:
            return None
        dynamics = self.model.dynamics
        state = self._state
        assert dynamics is not None and state is not None
        blocks = []
        for _ in range(horizon):
            blocks.append(self.guide.act(z, self.goal))
            state, z = advance(dynamics, state, blocks[-1])
        return torch.stack(blocks, 1)


def history_of(model: LatentWorldModel, horizon: int) -> int:
    """Number of latents to start plans from: as in training.

    A model without a window reads imagined latents too, so history and horizon together are as long as in training.
    """
    if model.dynamics is None or model.dynamics.context is not None:
        return model.spec.history
    return max(1, model.spec.history + 1 - horizon)


def _futures(model: LatentWorldModel, settings: PlanSettings, seed: int) -> Futures | None:
    if not settings.futures:
        return None
    if not getattr(model.dynamics, "distribution", False):
        raise UserError(
            f"futures is {settings.futures}, and these dynamics predict one future; omit it, or pretrain with a "
            "predictor of distributions (mdn_rnn, rssm, latent_variable)"
        )
    noise = standard_normal(settings.futures, settings.horizon, model.spec.tokens, model.spec.width, seed)
    return Futures(noise, settings.outlook)
