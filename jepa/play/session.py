"""One run that is played: imagined latents, the true world beside them, drift, goals, recordings. No networking.

true frames ──encoder──→ z, z, …  ──→ state          ground: a state of the dynamics from the last true frames
action ──→ dynamics ──→ state, z ──decoder──→ picture   step: one imagined latent
   └─────→ true world ──→ frames ──encoder──→ z*        drift: how far z is from z*
"""

from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, Float32, UInt8
from torch import Tensor

from jepa.config import UserError
from jepa.play.config import PlayConfig
from jepa.play.goal import Goal, GoalPlanner, encode_goal
from jepa.play.ground import Ground, HeldOutClip, TrueWorld, as_block
from jepa.play.readout import Readout
from jepa.play.record import Recorder
from jepa.world_model import LatentWorldModel, advance
from jepa_data.worlds.base import GoalBatch

Decode = Callable[[Float[Tensor, "B S N D"]], UInt8[Tensor, "B S 3 h w"]]
Picture = UInt8[np.ndarray, "h w 3"]

# Where a key moves to: an axis (0: right, 1: down, 2: E, third) and its sign, by the name of what +1 of an action does.
DIRECTIONS = {
    "right": (0, 1),
    "left": (0, -1),
    "turn left": (0, -1),
    "turn right": (0, 1),
    "down": (1, 1),
    "up": (1, -1),
    "forward": (1, -1),
    "step left": (2, -1),
    "step right": (2, 1),
}
AXES = 3
STRAYED = 2.0  # times as far from the mean latent as the farthest of video: nothing like it was ever seen


@dataclass(frozen=True)
class Drift:
    """How far what is imagined is from the truth.

    Attributes:
        latent: squared error of the latent; 1: as of two unrelated moments of the world.
        still: that of the latent when it was grounded last, as if nothing had moved since.
        pixel: root mean square error of the picture, in shares of the range of a pixel.
    """

    latent: float
    still: float
    pixel: float


@dataclass(frozen=True)
class Latents:
    """What latents of video are like.

    Attributes:
        mean: of all.
        unrelated: mean squared difference of two moments that have nothing to do with each other.
        farthest: largest mean squared difference of one from the mean.
    """

    mean: Float[Tensor, "N D"]
    unrelated: float
    farthest: float

    @classmethod
    def of(cls, z: Float[Tensor, "M N D"]) -> "Latents":
        """Of M moments of video."""
        mean = z.mean(0)
        distances = (z - mean).square().mean((1, 2)).clamp_min(1e-12)
        return cls(mean, 2 * float(distances.mean()), float(distances.max()))

    def strayed(self, z: Float[Tensor, "N D"]) -> float:
        """How many times as far from the mean a latent is as the farthest of video."""
        return (float((z - self.mean).square().mean()) / self.farthest) ** 0.5


class Session:
    """A run that is played.

    Args:
        name: of the run, for people.
        model: with dynamics.
        decode: latents to pictures, one a step.
        ground: where it starts, and what is true.
        readout: of places in the image; None: goals cannot be shown as places.
        latents: what those of video are like.
        recorder: for what is played.
    """

    def __init__(
        self,
        name: str,
        model: LatentWorldModel,
        decode: Decode,
        ground: Ground,
        config: PlayConfig,
        *,
        readout: Readout | None = None,
        latents: Latents,
        recorder: Recorder,
    ) -> None:
        assert model.dynamics is not None
        self.name, self.model, self.decode, self.ground = name, model, decode, ground
        self.readout, self.latents = readout, latents
        self.recorder = recorder
        self.planner = GoalPlanner(model, ground.period, config, readout)
        self.goal: Goal | None = None
        self.is_stochastic = bool(getattr(model.dynamics, "distribution", False))
        self._dynamics = model.dynamics
        self._noise = torch.Generator().manual_seed(config.seed)
        self._rng = np.random.default_rng(config.seed)
        self._range = _action_range(model, ground)
        self._axes = _axes(ground)
        self.reground()

    def about(self) -> dict[str, Any]:
        """What the page says and offers, JSON-serializable."""
        world = self._world
        spec = self.model.spec
        return {
            "name": self.name,
            "world": world.name if world is not None else "held-out clips",
            "step_seconds": spec.step_seconds,
            "has_truth": self.ground.has_truth,
            "clickable": isinstance(world, GoalBatch) and world.goal_at(np.full((1, 2), 0.5)) is not None,
            "has_goals": isinstance(world, GoalBatch) or isinstance(self.ground, HeldOutClip),
            "actions": [*getattr(world, "action_names", ())] or [f"action {i}" for i in range(self.ground.action_size)],
            "axes": self._axes,
            "events": [{"name": name, "known": name in spec.events} for name in self.events],
            "stochastic": self.is_stochastic,
            "readout_r2": None if self.readout is None else round(self.readout.r2, 3),
        }

    def reset(self) -> None:
        """Start another episode."""
        self.goal = None
        self.ground.reset()
        self.reground()

    @torch.no_grad()
    def reground(self) -> None:
        """Imagine from the last true frames on."""
        past = self.ground.past()
        self.state = self._dynamics.initial_state(past.z, past.blocks, past.states)
        self.z = past.z[:, -1]
        self._grounded = self.z
        self._has_strayed = False
        self.steps = 0

    @torch.no_grad()
    def step(
        self, axes: tuple[float, ...], *, event: int = 0, temperature: float = 1.0, keep_grounded: bool = False
    ) -> str | None:
        """One imagined latent step, and the true ones beside it; what a person is to know of it, once.

        Args:
            axes: in -1..1, to the right, downwards and the third; any but 0 takes over from a goal that is pursued.
            event: the number of one of the world's events that happens right before the step; 0: none.

        Raises:
            UserError: what is imagined is no longer finite; it is grounded again.
        """
        if keep_grounded and self.steps and self.ground.has_truth:
            self.reground()
        planned = None
        if self.goal is not None and self.goal.is_pursued:
            if any(axes):
                self.stop()
            else:
                planned = self.planner.next_block(self.goal, self.state, self.z)
        actions = np.tile(self.action(axes), (1, self.ground.period, 1))
        if planned is not None:
            actions = planned.cpu().numpy().reshape(actions.shape)
        event = event if event <= len(self.events) else 0
        block = as_block(self.model, actions, self.events[event - 1] if event else None).to(self.z)
        noise = None
        if self.is_stochastic and temperature > 0:
            noise = torch.randn(self.z.shape, generator=self._noise).to(self.z)
        self.state, self.z = advance(self._dynamics, self.state, block, noise, temperature)
        self.ground.step(actions, event)
        self.steps += 1
        if not torch.isfinite(self.z).all():
            self.reground()
            raise UserError(f"{self.name}: what was imagined is no longer finite, so it starts from the truth again")
        if not self._has_strayed and (times := self.latents.strayed(self.z[0])) > STRAYED:
            self._has_strayed = True
            return (
                f"{self.name}: after {self.steps} steps, the imagined latent is {times:.0f} times as far out as any of "
                "video: what is shown is no longer a picture of the world. R (re-ground) starts from the truth again"
            )
        return None

    def action(self, axes: tuple[float, ...]) -> Float32[np.ndarray, " A"]:
        """The action in the units of the data. Directions beyond the third axis stay 0."""
        values = np.array([sign * axes[axis] if axis < len(axes) else 0.0 for axis, sign in self._axes])
        low, high = self._range
        raw = np.where(values >= 0, values * high.clip(0), values * (-low).clip(0))
        return raw.clip(low, high).astype(np.float32)

    def set_goal(self, point: tuple[float, float] | None) -> None:
        """Pursue a goal: the place in the image that was clicked, or, with None, one that the world or a clip has.

        Raises:
            UserError: there are no goals, or none at places in the image.
            DataError: the world has no room there.
        """
        world = self._world
        if isinstance(self.ground, HeldOutClip) and point is None:
            image, state = self.ground.last_frame(), None
        elif isinstance(world, GoalBatch):
            state = world.draw_goals(self._rng) if point is None else world.goal_at(np.array([point]))
            if state is None:
                raise UserError(f"{world.name}: a place in the image is no goal; take a drawn one")
            there = world.take(np.zeros(1, np.intp))
            there.set_goal_state(state)
            image = there.render()[0]
        else:
            raise UserError(f"{self.name}: nothing is known of goals here")
        self.planner.begin()
        self.goal = Goal(image, encode_goal(self.model, image), point, state)

    def stop(self) -> None:
        """No longer pursue the goal."""
        if self.goal is not None and self.goal.is_pursued:
            self.goal.status = "stopped"

    def record(self, is_wanted: bool) -> str | None:
        """Start or stop a recording; what was written, if it was. Raises DataError if nothing can be."""
        ground = self.ground
        if not is_wanted:
            if isinstance(ground, TrueWorld):
                ground.on_frame = None
            return self.recorder.stop()
        if self.recorder.frames is not None:
            return None
        if isinstance(ground, TrueWorld):
            self.recorder.start(ground.world, ground.episode, ground.picture())
            ground.on_frame = self.recorder.add_step
        else:
            self.recorder.start(None, 0, ground.picture())
        return None

    @torch.no_grad()
    def picture(self) -> Picture:
        """What is imagined now."""
        return self.decode(self.z[:, None])[0, 0].permute(1, 2, 0).cpu().numpy()

    @torch.no_grad()
    def drift(self, picture: Picture) -> Drift | None:
        """Of the picture and its latent; None without a truth."""
        if not self.ground.has_truth:
            return None
        true = self.ground.latent()
        frame = torch.from_numpy(self.ground.picture().copy()).permute(2, 0, 1)[None, None]
        fitted = self.model.preprocessing.fitted(frame)[0, 0].permute(1, 2, 0).float().numpy()
        return Drift(
            latent=float((self.z - true).square().mean()) / self.latents.unrelated,
            still=float((self._grounded - true).square().mean()) / self.latents.unrelated,
            pixel=float(np.sqrt(np.square(picture - fitted).mean())) / 255,
        )

    def goal_info(self) -> dict[str, Any] | None:
        """The goal for the page. `true_distance`: in radii of the world's own criterion; 1: reached."""
        goal, world = self.goal, self._world
        if goal is None:
            return None
        info: dict[str, Any] = {
            name: x for name, x in asdict(goal).items() if name in ("point", "status", "steps", "path", "distance")
        }
        info["true_distance"] = None
        if goal.state is not None and isinstance(world, GoalBatch):
            info["true_distance"] = float(world.distance(goal.state)[0] / world.radius)
        return info

    @property
    def events(self) -> tuple[str, ...]:
        """Names of what can happen in the true world."""
        return () if self._world is None else tuple(self._world.events)

    @property
    def has_ended(self) -> bool:
        """Whether the true episode is over."""
        return isinstance(self.ground, TrueWorld) and self.ground.has_ended

    @property
    def _world(self) -> Any:
        return self.ground.world if isinstance(self.ground, TrueWorld) else None


def _action_range(model: LatentWorldModel, ground: Ground) -> tuple[Float[np.ndarray, " A"], Float[np.ndarray, " A"]]:
    """Lowest and highest number of each direction: -1..1 in simulated worlds, else those of the data."""
    width = ground.action_size
    if isinstance(ground, TrueWorld) or model.spec.actions is None:
        return -np.ones(width), np.ones(width)
    actions = model.spec.actions.resized(width)
    return np.array(actions.low), np.array(actions.high)


def _axes(ground: Ground) -> list[tuple[int, int]]:
    """Axis and sign of each number of an action; by its name, or else one after the other."""
    names = getattr(getattr(ground, "world", None), "action_names", ())
    if len(names) == ground.action_size and all(name in DIRECTIONS for name in names):
        return [DIRECTIONS[name] for name in names]
    return [(axis, 1) for axis in range(ground.action_size)]
