"""How an action moves a gripper: the state of V-JEPA 2-AC's robots (DROID, arXiv 2403.12945).

    state, action  | x y z | three angles | closed |       metres · radians · 0 open … 1 closed

An action is the difference of two states: positions add, and the rotation of the action is applied after that of the
state. Angles are about the fixed axes x, y and z, in this order: R = Rz Ry Rx. V-JEPA 2-AC uses this rule in planning.
"""

import torch
from jaxtyping import Float
from torch import Tensor


def apply_delta_pose(state: Float[Tensor, "B 7"], action: Float[Tensor, "B 7"]) -> Float[Tensor, "B 7"]:
    """The state after an action; the closing of the gripper is clipped to 0..1."""
    turned = rotation(action[:, 3:6]) @ rotation(state[:, 3:6])
    closed = (state[:, 6:] + action[:, 6:]).clamp(0, 1)
    return torch.cat((state[:, :3] + action[:, :3], angles(turned), closed), -1)


def rotation(angles: Float[Tensor, "B 3"]) -> Float[Tensor, "B 3 3"]:
    """Rz Ry Rx of angles in radians."""
    sx, sy, sz = angles.sin().unbind(-1)
    cx, cy, cz = angles.cos().unbind(-1)
    rows = (
        (cz * cy, cz * sy * sx - sz * cx, cz * sy * cx + sz * sx),
        (sz * cy, sz * sy * sx + cz * cx, sz * sy * cx - cz * sx),
        (-sy, cy * sx, cy * cx),
    )
    return torch.stack([torch.stack(row, -1) for row in rows], -2)


def angles(rotation: Float[Tensor, "B 3 3"]) -> Float[Tensor, "B 3"]:
    """The inverse of `rotation`: the middle angle within a quarter turn, the others within a half."""
    # From two numbers each: an arc sine would have no gradient near a quarter turn.
    level = (rotation[:, 2, 1] ** 2 + rotation[:, 2, 2] ** 2).clamp_min(1e-12).sqrt()
    sines = torch.stack((rotation[:, 2, 1], -rotation[:, 2, 0], rotation[:, 1, 0]), -1)
    return torch.atan2(sines, torch.stack((rotation[:, 2, 2], level, rotation[:, 0, 0]), -1))
