"""A goal image, and the plans that lead to it: one step of a plan is taken, then the rest is planned again."""

from dataclasses import dataclass, field

import numpy as np
import torch
from jaxtyping import Float, UInt8
from torch import Tensor

from jepa.config import errors_of
from jepa.planners import PLANNERS
from jepa.planners.cost import goal_distance
from jepa.planners.mpc import ModelPredictiveControl
from jepa.play.config import PlayConfig
from jepa.play.readout import Readout
from jepa.world_model import LatentSpec, LatentWorldModel, State, rollout

CLOSE = 0.06  # widths of the image from the goal at which the object that is read off latents has arrived
SHARE = 0.1  # of the first squared distance in latent space, where no place can be read off
STAYS = 3  # latent steps in a row that it must be there


@dataclass
class Goal:
    """A goal under way.

    Attributes:
        image: what is to be seen.
        point: where it was clicked, in widths of the image; None: the goal was drawn.
        state: of the world, [1, G]; None without a world.
        status: "planning", "reached", "given up" or "stopped".
        path: places that the last plan leads through; empty where none can be read off.
        distance: in the imagined world, in widths of the image, or as a share of the first distance in latent space.
    """

    image: UInt8[np.ndarray, "h w 3"]
    z: Float[Tensor, "1 N D"]
    point: tuple[float, float] | None = None
    state: Float[np.ndarray, "1 G"] | None = None
    status: str = "planning"
    steps: int = 0
    near: int = 0
    first: float | None = None
    distance: float = 0.0
    path: list[tuple[float, float]] = field(default_factory=list)

    @property
    def is_pursued(self) -> bool:
        return self.status == "planning"


class GoalPlanner:
    """Plans from an imagined state to a goal.

    Args:
        period: actions of a latent step.
        readout: of places; None: none.

    Raises:
        UserError: settings of the planner do not fit together.
    """

    def __init__(self, model: LatentWorldModel, period: int, config: PlayConfig, readout: Readout | None) -> None:
        assert model.dynamics is not None
        self._dynamics = model.dynamics
        self._readout = readout
        self._max_steps = config.max_goal_steps
        self._control = _control(model.spec, period, config)

    def begin(self) -> None:
        """Forget the plan for another goal."""
        self._control.reset()

    def next_block(self, goal: Goal, state: State, z: Float[Tensor, "1 N D"]) -> Float[Tensor, "1 B"] | None:
        """The actions of the next latent step, in the units of the data; None: the goal is reached or given up."""
        self._judge(goal, z)
        if not goal.is_pursued:
            return None
        plan = self._control.plan(goal_distance(self._dynamics, state, goal.z), 1)
        actions = plan.actions.to(z)
        goal.path = self._path(rollout(self._dynamics, state, actions[:, None])[0, 0])
        goal.steps += 1
        return actions[:, 0]

    def _judge(self, goal: Goal, z: Float[Tensor, "1 N D"]) -> None:
        away = float((z - goal.z).square().mean())
        goal.first = goal.first or max(away, 1e-12)
        goal.distance = away / goal.first
        near = goal.distance < SHARE
        if self._readout is not None:
            goal.distance = float((self._readout(z) - self._readout(goal.z)).norm())
            near = goal.distance < CLOSE
        goal.near = goal.near + 1 if near else 0
        if goal.near >= STAYS:
            goal.status = "reached"
        elif goal.steps >= self._max_steps:
            goal.status = "given up"

    def _path(self, latents: Float[Tensor, "H N D"]) -> list[tuple[float, float]]:
        if self._readout is None:
            return []
        return [(round(x, 4), round(y, 4)) for x, y in self._readout(latents).tolist()]


def _control(spec: LatentSpec, period: int, config: PlayConfig) -> ModelPredictiveControl:
    with errors_of("planner"):
        planner = PLANNERS.make(config.planner)
        return ModelPredictiveControl(
            planner,
            horizon=config.horizon,
            replan_every=1,
            action_size=spec.block_size // period,
            frames=period,
            action_repeat=period,
            seed=config.seed,
            actions=spec.actions,
        )


def encode_goal(model: LatentWorldModel, image: UInt8[np.ndarray, "h w 3"]) -> Float[Tensor, "1 N D"]:
    """The latent of a goal image, at rest."""
    with torch.no_grad():
        return model.encode_image(image)
