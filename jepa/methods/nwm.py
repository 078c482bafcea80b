"""Navigation World Models: a conditional diffusion transformer that jumps through time (arXiv 2412.03572).

    video ──→ frozen encoder ──→ z_0 … z_t | z_{t+1} … z_{S-1}        t: drawn for each clip
                                 window      goals z_{t+k}            `goals` jumps k, drawn from 1 … `max_jump`
    action   from t to t+k, as one: dx, dy and yaw seen from where the window ends (`turn`), or the sum of the actions
    loss   = denoising of each goal, given window, action and k       jepa/predictors/cdit.py

A window is the last 4 latents (`predictor.context`). The encoder gets no gradient. NWM reads the latents of a
variational autoencoder; V-JEPA 2.1 (2603.14482) plans the same way in its own. NWM's actions are measured motions; here
they are those that were commanded, so at a wall they say more than what happened. Jumps lead forward only. `step` and
planners ask for one latent step at a time.

Forward FLOPs of a step: the encoder on all frames, and `goals` evaluations of the predictor for each clip.
"""

from typing import Literal

import torch
from jaxtyping import Float, Int
from pydantic import Field
from torch import Tensor
from torch.nn import functional as F

from jepa.config.fields import Count, Positive
from jepa.encoders.module import Encoder
from jepa.methods.base import Batch, ClipShape
from jepa.methods.latent_dynamics import LatentDynamics
from jepa.predictors.cdit import CDiT
from jepa.ranks import rank_part
from jepa_data.devices import sent

MOTION = 3  # forward, left, turn


class NWM(LatentDynamics):
    """CDiT on a frozen encoder, trained with jumps.

    Raises:
        ValueError: as `LatentDynamics`, or motions do not fit the actions.
    """

    class Config(LatentDynamics.Config):
        """Navigation World Models: a diffusion transformer on a frozen encoder, with jumps through time."""

        kind: Literal["nwm"] = "nwm"
        predictor: CDiT.Config = CDiT.Config()
        goals: Count = Field(default=4, description="targets of each clip, each after a jump of its own")
        max_jump: Count = Field(default=16, description="latent steps of a jump, at most; no jump leaves the clip")
        turn: Positive | None = Field(
            default=None,
            description="actions are forward, left and turn: radians of a turn of 1; none: other actions, to be summed",
        )

    config: Config
    dynamics: CDiT

    def __init__(self, config: Config, encoder: Encoder, clips: ClipShape) -> None:
        super().__init__(config, encoder, clips)
        size = clips.action_size * encoder.tubelet
        if config.turn is not None and size % MOTION:
            raise ValueError(
                f"method.turn: the actions of a latent step are motions of {MOTION} numbers (forward, left, turn), "
                f"found {size} numbers; leave turn out to sum actions"
            )

    def loss(self, batch: Batch, generator: torch.Generator) -> dict[str, Tensor]:
        """Scalars: loss, the predictor's terms, and the cosine of its estimates and the goals.

        Raises:
            ValueError: the clips have no actions.
        """
        actions = self.actions_of(batch)
        z = self.frozen_latents(batch)
        clips, goals = len(z), self.config.goals
        last = z.shape[1] - 1
        row = torch.arange(clips).repeat_interleave(goals)
        end = rank_part(lambda n: torch.randint(last, (n,), generator=generator), clips)[row]
        farthest = (last - end).clamp_max(self.config.max_jump)
        jump = 1 + (rank_part(lambda n: torch.rand(n, generator=generator), len(row)) * farthest).long()
        row, start, stop = (sent(x, z.device) for x in (row, end, end + jump))
        windows, target = self.dynamics.windows(z)[row, start], z[row, stop]
        motion = self._composed(actions, row, start, stop)
        prediction = self.dynamics.denoising_loss(windows, target, motion, generator, (stop - start).float())
        cosine = F.cosine_similarity(prediction.predicted[:, 0].detach(), target, dim=-1).mean()
        terms = {name: value.detach() for name, value in prediction.terms.items()}
        return {"loss": prediction.terms["prediction"], **terms, "cosine": cosine}

    def _composed(
        self, actions: Float[Tensor, "B Q A"], row: Int[Tensor, " M"], start: Int[Tensor, " M"], stop: Int[Tensor, " M"]
    ) -> Float[Tensor, "M A"]:
        """The actions of each jump as one. The column of an event is the number of times that it happens."""
        events = self.dynamics.events
        if events is None:
            return composed(actions, row, start, stop, self.config.turn)
        plain, columns = events.split(actions)
        motion = composed(plain.flatten(-2), row, start, stop, self.config.turn)
        happened = composed(columns.flatten(-2), row, start, stop, None)
        return events.joined(motion, happened)


def composed(
    actions: Float[Tensor, "B Q A"],
    row: Int[Tensor, " M"],
    start: Int[Tensor, " M"],
    stop: Int[Tensor, " M"],
    turn: float | None,
) -> Float[Tensor, "M A"]:
    """The actions from `start` to `stop` of each row as one.

    Args:
        turn: radians of a turn of 1; actions are forward, left and turn, and the result is the motion seen from the
            pose at `start`. Where a step holds several motions, the first of all steps are composed, the second, and
            so on. None: actions are summed.
    """
    if turn is None:
        total = F.pad(actions.cumsum(1), (0, 0, 1, 0))
        return total[row, stop] - total[row, start]
    motions = actions.unflatten(-1, (-1, MOTION))  # [B, Q, n, 3]
    turned = F.pad(motions[..., 2].cumsum(1), (0, 0, 1, 0))
    facing = torch.polar(torch.ones_like(turned[..., :1]), turn * turned.sum(-1, keepdim=True))  # at every step
    walked = torch.view_as_complex(motions[..., :2].contiguous()) * facing[:, :-1]
    position = F.pad(walked.cumsum(1), (0, 0, 1, 0))
    away = torch.view_as_real((position[row, stop] - position[row, start]) * facing[row, start].conj())
    return torch.cat((away, (turned[row, stop] - turned[row, start])[..., None]), -1).flatten(1)
