"""Teacher forcing and rollout losses for causal predictors: V-JEPA 2-AC, DINO-WM, JEPA-WMs.

    truth             x0    x1    x2    x3    x4
    teacher forcing      p1    p2    p3    p4       p_{s+1} = predict(x0 … x_s): every step at once, from the truth
    rollout              q1    q2                   q1 = predict(x0), q2 = predict(x0, q1): two steps, a context of one
                                     q3    q4       the same after a context of three: q3 = predict(x0, x1, x2), …

The predict function is causal: its row s depends only on rows 0 … s. It contains all other inputs (actions, states).
Targets have no gradient.

Shapes: B clips · S latent steps · N tokens · D width.
"""

from collections.abc import Callable
from typing import Literal

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

Distance = Literal["l1", "l2"]
# The first S latents of the clips -> what follows each of them, for any S.
Predict = Callable[[Float[Tensor, "B S N D"]], Float[Tensor, "B S N D"]]


def forced_and_rolled(
    predict: Predict,
    x: Float[Tensor, "B S N D"],
    *,
    distance: Distance,
    rollout_steps: int,
    context: int = 1,
    detach: bool = False,
) -> tuple[dict[str, Tensor], Float[Tensor, "B S-1 N D"]]:
    """The teacher-forcing loss, the rollout loss if `rollout_steps` > 0, and the predictions.

    Args:
        distance: L1 (mean absolute) or L2 (mean squared) of prediction and target.
        rollout_steps, context, detach: see `rolled_out`; 0 steps: no rollout.

    Returns:
        Terms "forced" and, with a rollout, "rollout" (the mean over its steps); their sum is the loss. And the
        teacher-forced predictions of latents 1 … S-1.

    Raises:
        ValueError: there is nothing to predict, or the clips are too short for the rollout.
    """
    if x.shape[1] < 2:
        raise ValueError(f"the next latent of a clip is predicted: expected 2 latent steps or more, found {x.shape[1]}")
    forced = predict(x[:, :-1])
    terms = {"forced": apart(forced, x[:, 1:], distance)}
    if rollout_steps:
        rolled = rolled_out(predict, x, forced, rollout_steps, context, detach)
        terms["rollout"] = apart(rolled, x[:, context : context + rollout_steps], distance)
    return terms, forced


def rolled_out(
    predict: Predict,
    x: Float[Tensor, "B S N D"],
    forced: Float[Tensor, "B P N D"],
    steps: int,
    context: int = 1,
    detach: bool = False,
) -> Float[Tensor, "B R N D"]:
    """Predictions of latents `context` … `context + steps - 1`, from the first `context` true latents and the earlier
    predictions.

    Args:
        forced: the P = S-1 teacher-forced predictions, which include the first step of the rollout.
        detach: no gradient through the inputs of a prediction; each step learns separately.

    Raises:
        ValueError: the clips are too short, or there is no context.
    """
    if context < 1 or steps < 1 or context + steps > x.shape[1]:
        raise ValueError(
            f"a rollout of {steps} steps after {context} latents takes clips of {max(1, context) + max(1, steps)} "
            f"latent steps, found {x.shape[1]}: make the clips longer (data.clip_frames), or lower rollout_steps"
        )
    next_latent = forced[:, context - 1 : context]
    seen = x[:, :context]
    rolled = [next_latent]
    for _ in range(steps - 1):
        seen = torch.cat((seen, next_latent.to(seen.dtype)), 1)
        next_latent = predict(seen.detach() if detach else seen)[:, -1:]
        rolled.append(next_latent)
    return torch.cat(rolled, 1)


def apart(predicted: Float[Tensor, "*B D"], target: Float[Tensor, "*B D"], distance: Distance) -> Float[Tensor, ""]:
    """Mean distance to a constant target, in fp32."""
    return {"l1": F.l1_loss, "l2": F.mse_loss}[distance](predicted.float(), target.float().detach())
