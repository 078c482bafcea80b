"""How far paths are from recorded ones: absolute and relative trajectory errors, as in NWM (2412.03572).

    ATE   root mean square over the steps of the distance between the two positions; paths begin together
    RPE   the same of the difference of their moves, each seen from its own pose: what one step adds to the error

A path is poses [B, T, 3]: x, y and heading in radians. Errors are in the world's units of length.
"""

from dataclasses import dataclass, field

import numpy as np
from jaxtyping import Float
from numpy.typing import NDArray

from jepa_data.worlds.base import GoalBatch
from jepa_data.worlds.geometry import rotated
from jepa_probes.planning.result import TrajectoryErrors
from jepa_probes.planning.tasks import Act, Episodes, Tasks, random_actions


@dataclass
class Walk:
    """An agent, and the poses that it has been at."""

    act: Act
    poses: list[Float[np.ndarray, "B 3"]] = field(default_factory=list)

    def __call__(self, world: GoalBatch) -> NDArray[np.floating]:
        self.poses.append(world.goal_state())
        return self.act(world)

    def play(self, tasks: Tasks) -> Episodes:
        episodes = tasks.run(self)
        self.poses.append(episodes.world.goal_state())
        return episodes


def trajectory_errors(tasks: Tasks, planned: Walk, frames: int) -> dict[str, TrajectoryErrors] | None:
    """Of a planner that has played, of random actions, each held for `frames`, and of standing still.

    None where goals were not recorded, or are no poses.
    """
    if tasks.recorded is None or not tasks.start(1).has_pose:
        return None
    queue = list(tasks.recorded.swapaxes(0, 1))[: tasks.protocol.steps]
    walks = {"planning": planned, "random": Walk(random_actions(tasks.protocol.seed, frames))}
    recorded = Walk(lambda world: queue.pop(0) if queue else np.zeros((len(world), world.action_size)))
    for walk in (walks["random"], recorded):
        walk.play(tasks)
    poses = 1 + min(tasks.protocol.steps, tasks.recorded.shape[1])
    truth = np.stack(recorded.poses[:poses], 1)
    paths = {name: np.stack(walk.poses[:poses], 1) for name, walk in walks.items()}
    paths["still"] = np.broadcast_to(truth[:, :1], truth.shape)
    return {name: errors(path, truth) for name, path in paths.items()}


def errors(path: Float[np.ndarray, "B T 3"], recorded: Float[np.ndarray, "B T 3"]) -> TrajectoryErrors:
    """Means over tasks."""
    apart = (path - recorded)[:, 1:, :2]
    return TrajectoryErrors(ate=_root_mean_square(apart), rpe=_root_mean_square(_moves(path) - _moves(recorded)))


def _moves(path: Float[np.ndarray, "B T 3"]) -> Float[np.ndarray, "B U 2"]:
    return rotated(np.diff(path[..., :2], axis=1), -path[:, :-1, 2])


def _root_mean_square(vectors: Float[np.ndarray, "B U 2"]) -> float:
    return float(np.sqrt(np.square(vectors).sum(-1).mean(1)).mean())
