"""Plans to start from: what was done in the recordings between two moments much like the present and the goal.

    recorded clip    z_0 ─a_0─> z_1 ─a_1─> z_2 ─a_2─> z_3 …
    segments         (z_t, a_t … a_{t+k-1}, z_{t+k})       any t, any k up to the horizon
    nearest          |z_t - z|² + |z_{t+k} - goal|²        as plans are judged; the best segment of a clip, of P clips

A Gaussian about "do nothing" seldom finds "walk round it, then push"; somebody did it in the recordings. Nothing is
trained: the distances to all recorded latents are two matrix products a plan. After k steps, a proposal stands still.
"""

from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor

AT_ONCE = 2**26  # distances kept at a time, over all episodes


@dataclass(frozen=True)
class _Nearest:
    """Segments: their clip, first step and number of steps."""

    clip: Int[Tensor, "B P"]
    first: Int[Tensor, "B P"]
    length: Int[Tensor, "B P"]


class RecordedSegments:
    """All segments of V recorded clips.

    Args:
        latents: of the clips' S steps.
        goals: the same moments as a goal image shows them.
        blocks: actions that led from each step to the next, in the units of the data.

    Raises:
        ValueError: there are fewer than two steps, or shapes do not fit.
    """

    def __init__(
        self, latents: Float[Tensor, "V S N D"], goals: Float[Tensor, "V G N D"], blocks: Float[Tensor, "V Q E"]
    ) -> None:
        steps = latents.shape[1]
        if steps < 2:
            raise ValueError(f"segments need clips of two latent steps at least, found {steps}")
        if goals.shape != latents.shape or blocks.shape[:2] != (len(latents), steps - 1):
            raise ValueError(
                f"expected goals {list(latents.shape)} and actions {[len(latents), steps - 1]}, found "
                f"{list(goals.shape)} and {list(blocks.shape)}"
            )
        self._latents = latents.flatten(0, 1).flatten(1)
        self._goals = goals.flatten(0, 1).flatten(1)
        self._blocks = blocks

    def propose(
        self, z: Float[Tensor, "B N D"], goal: Float[Tensor, "B N D"], horizon: int, count: int
    ) -> Float[Tensor, "B P H E"]:
        """The nearest segments of `count` clips, or of all if there are fewer.

        Args:
            z: the present, of each episode.
            goal: where to get.
            horizon: H, latent steps; segments are at most so long, and filled up with action 0.
        """
        clips, steps = self._blocks.shape[:2]
        chunk = max(1, AT_ONCE // (len(self._latents) * 4))
        parts = zip(z.split(chunk), goal.split(chunk), strict=True)
        filled = torch.cat([self._blocks, torch.zeros_like(self._blocks[:, :1]).expand(-1, horizon, -1)], 1)
        plans = []
        for now, then in parts:
            near = self._nearest(now, then, min(horizon, steps), min(count, clips))
            ahead = torch.arange(horizon, device=filled.device)
            blocks = filled[near.clip[..., None], near.first[..., None] + ahead]
            plans.append(torch.where((ahead < near.length[..., None])[..., None], blocks, 0.0))
        return torch.cat(plans)

    def _nearest(self, z: Float[Tensor, "B N D"], goal: Float[Tensor, "B N D"], longest: int, count: int) -> "_Nearest":
        """P segments of different clips."""
        clips = len(self._blocks)
        before = self._distances(z, self._latents).unflatten(1, (clips, -1))  # [B, V, S]
        after = self._distances(goal, self._goals).unflatten(1, (clips, -1))
        steps = before.shape[2]
        nearest = torch.full_like(before[..., 0], torch.inf)
        length = torch.zeros_like(nearest, dtype=torch.long)
        first = torch.zeros_like(length)
        for k in range(1, longest + 1):
            distance, start = (before[..., : steps - k] + after[..., k:]).min(-1)
            closer = distance < nearest
            nearest = torch.where(closer, distance, nearest)
            length = torch.where(closer, k, length)
            first = torch.where(closer, start, first)
        clip = nearest.topk(count, largest=False).indices
        return _Nearest(clip, first.gather(1, clip), length.gather(1, clip))

    def _distances(self, z: Float[Tensor, "B N D"], rows: Float[Tensor, "M X"]) -> Float[Tensor, "B M"]:
        return torch.cdist(z.flatten(1), rows).square()
