"""Reacher: turn an arm of two links to the pose in a goal image.

The arm is that of DeepMind's control suite (1801.00690), and a test compares the physics of both. The model is defined
here because the suite cannot be installed on Python 3.13 (`labmaze` has no wheels for it). As in DINO-WM (2411.04983),
the goal is the whole pose, not a position of the fingertip, and the red target of the suite is removed.

                 o fingertip      action [2]   torque on shoulder and wrist, for 0.04 s: two steps of the physics
                /                 state [6]    angles of shoulder (-pi to pi) and wrist (160 degrees to each side) in
        wrist  /                               radians, their speeds in radians a second, x and y of the fingertip in m
          ____/  0.12 m           goal [2]     both angles; reached if both are within 0.2 radians, which is our rule:
         /                                     DINO-WM does not tell its own
    ●___/  0.12 m
    shoulder, fixed               The image shows 0.62 m. Nothing is in the way of the arm, not even itself.
"""

from functools import cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from jepa_data.worlds.geometry import unit_vector, wrapped
from jepa_data.worlds.mujoco.base import Physics, Scene
from jepa_data.worlds.packages import needed
from jepa_data.worlds.waypoint_policy import WaypointBatch

NAME = EXTRA = "reacher"
STEPS = 2  # of the physics, 0.02 s each, for an action
LINK = 0.12  # m
SEEN = 0.62  # m of the ground in the image
LIMIT = np.deg2rad(160)  # of the wrist, to each side
NEAR = 0.2  # radians of success
FAR = 0.6  # radians that a goal is away at least
CHOICES = 16  # goals drawn; the first far one is taken
PULL = np.array([3.0, 2.0])  # of the script: torque for a radian
BRAKE = np.array([0.3, 0.0])  # and for a radian a second
MODEL = f"""
<mujoco>
  <option timestep="0.02"><flag contact="disable"/></option>
  <visual>
    <headlight ambient=".4 .4 .4" diffuse=".8 .8 .8" specular=".1 .1 .1"/>
    <map znear=".01"/>
  </visual>
  <asset>
    <texture name="tiles" type="2d" builtin="checker" rgb1=".1 .2 .3" rgb2=".2 .3 .4" width="300" height="300"
             mark="edge" markrgb=".2 .3 .4"/>
    <material name="tiles" texture="tiles" texrepeat="1 1" texuniform="true"/>
  </asset>
  <default>
    <joint type="hinge" axis="0 0 1" damping="0.01"/>
    <motor gear="0.05" ctrlrange="-1 1" ctrllimited="true"/>
    <geom type="capsule" size="0.01" rgba=".7 .5 .3 1"/>
    <default class="border"><geom type="plane" rgba=".3 .5 .7 1"/></default>
  </default>
  <worldbody>
    <light pos="0 0 1"/>
    <geom type="plane" size=".3 .3 10" material="tiles" rgba="1 1 1 1"/>
    <geom class="border" pos="-.3 0 .02" zaxis="1 0 0" size=".02 .3 .02"/>
    <geom class="border" pos=".3 0 .02" zaxis="-1 0 0" size=".02 .3 .02"/>
    <geom class="border" pos="0 -.3 .02" zaxis="0 1 0" size=".3 .02 .02"/>
    <geom class="border" pos="0 .3 .02" zaxis="0 -1 0" size=".3 .02 .02"/>
    <geom type="cylinder" fromto="0 0 0 0 0 .02" size=".011" rgba=".3 .5 .7 1"/>
    <body pos="0 0 .01">
      <joint name="shoulder"/>
      <geom fromto="0 0 0 {LINK} 0 0"/>
      <body pos="{LINK} 0 0">
        <joint name="wrist" limited="true" range="-160 160"/>
        <geom fromto="0 0 0 .1 0 0"/>
        <body pos="{LINK} 0 0"><geom type="sphere" rgba=".7 .4 .2 1"/></body>
      </body>
    </body>
  </worldbody>
  <actuator><motor joint="shoulder"/><motor joint="wrist"/></actuator>
</mujoco>
"""


class ReacherBatch(WaypointBatch):
    """Parallel arms. The state: both angles, then their speeds.

    Raises:
        DataError: MuJoCo is not installed.
    """

    name = NAME
    action_size = 2
    fps = 25.0
    state_names = ("shoulder.angle", "wrist.angle", "shoulder.speed", "wrist.speed", "finger.x", "finger.y")
    goal_names = state_names[:2]
    radius = NEAR
    unit = "radians, of the joint that is further off"
    longest_repeat = 10
    goal_draws = 2 * CHOICES
    waypoint_radius = NEAR
    noise = 0.3

    def __init__(self, episodes: NDArray[np.integer], *, image_size: int = 64, seed: int = 0) -> None:
        self._physics = _physics()
        super().__init__(episodes, image_size=image_size, seed=seed)

    def draw(self, rng: np.random.Generator) -> NDArray[np.float64]:
        return np.concatenate([_poses(rng.uniform(size=2)), np.zeros(2)])

    def states(self) -> NDArray[np.float32]:
        pose = self.goal_state()
        finger = LINK * (unit_vector(pose[:, 0]) + unit_vector(pose.sum(1)))
        return np.column_stack([pose, self.state[:, 2:], finger]).astype(np.float32)

    def step(self, actions: NDArray[np.floating]) -> None:
        """Advance 0.04 s with actions [E, 2], clipped to -1..1."""
        torque = np.asarray(actions, dtype=np.float64).clip(-1, 1)
        self.state = self._physics.step(self.state, torque, STEPS)

    def render(self) -> NDArray[np.uint8]:
        """RGB images [E, size, size, 3]: the arm is brown, on blue tiles."""
        return _scene(self.image_size).draw(self.state[:, :2])

    def goal_state(self) -> NDArray[np.float64]:
        """The pose [E, 2]; the angle of the shoulder, which turns freely, is wrapped to -pi..pi."""
        return np.column_stack([wrapped(self.state[:, 0]), self.state[:, 1]])

    def distance(self, goal: NDArray[np.floating]) -> NDArray[np.float64]:
        """The larger angle error [E] of the two joints to `goal` [E, 2], in radians."""
        return np.abs(self._left(goal)).max(1)

    def distance_to_goal(self, goal: NDArray[np.floating]) -> NDArray[np.float64]:
        """The sum [E] of the angles that both joints must turn to `goal` [E, 2], in radians."""
        return np.abs(self._left(goal)).sum(1)

    def speed(self) -> NDArray[np.float64]:
        """Speed of the faster joint [E], in radians per second."""
        return np.abs(self.state[:, 2:]).max(1)

    def expert(self, goal: NDArray[np.floating]) -> NDArray[np.float64]:
        """Damped torques [E, 2] that turn both joints the short way to `goal` [E, 2]."""
        return (PULL * self._left(goal) - BRAKE * self.state[:, 2:]).clip(-1, 1)

    def _left(self, goal: NDArray[np.floating]) -> NDArray[np.float64]:
        """How the joints have to turn [E, 2]: the shoulder the short way, the wrist not through its stop."""
        left = np.asarray(goal, dtype=np.float64) - self.goal_state()
        return np.column_stack([wrapped(left[:, 0]), left[:, 1]])

    def goals_from(self, unit: NDArray[np.float64]) -> NDArray[np.float64]:
        """Poses [E, 2], drawn as starts are: of CHOICES the first at which a joint is 0.6 radians off."""
        poses = np.stack([_poses(unit[:, i : i + 2]) for i in range(0, unit.shape[1], 2)])
        far = np.stack([self.distance(pose) for pose in poses]) >= FAR
        return poses[far.argmax(0), np.arange(len(self))]


def _poses(unit: NDArray[np.float64]) -> NDArray[np.float64]:
    """Numbers in 0..1 [..., 2] as poses, the suite's way: evenly, the wrist within its stops."""
    return (2 * unit - 1) * [np.pi, LIMIT]


def _model() -> Any:
    return needed(NAME, "mujoco", EXTRA).MjModel.from_xml_string(MODEL)


@cache
def _physics() -> Physics:
    return Physics(NAME, _model(), EXTRA)


@cache
def _scene(size: int) -> Scene:
    return Scene(NAME, _model(), EXTRA, size, SEEN)
