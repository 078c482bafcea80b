"""DINO-WM: dynamics on the patches of a frozen image backbone (arXiv 2411.04983), and JEPA-WMs as settings.

    frame t ──→ frozen DINOv2, patches ──→ z_t [N, D] ──┐
    actions of the step, states ────────────────────────┴─→ frame-causal ViT, last 3 frames ──→ z'_{t+1}, state'_{t+1}

    loss = mean (P(z_0 … z_t, a_0 … a_t) - z_{t+1})²              one step, teacher-forced; constant target
         + mean (P(z_0 … z_{c-1}, then its own) - z)²             JEPA-WMs: a rollout of 2 steps, random c

                       DINO-WM                                 JEPA-WMs ("What drives success …", their best)
    conditioning       concat: 10 numbers each for action      adaln: they modulate the patches of their frame
                       and state, at every patch
    rollout            none                                    2 steps, after a random number of true frames
    detach_rollout     -                                       yes: each step learns separately

With `next_state: predicted`, the predictor also predicts the next states, as part of x in the loss. The paper predicts
a learned embedding of the state. Here the target is the standardized state itself, which cannot shrink. Positions are
rotary, not learned, so that cached frames stay valid as the window moves.

Forward FLOPs of a step on clips of S steps: the encoder on all frames, a pass of the predictor over S-1 steps, and for
a rollout of R steps R-1 more passes, over c+1 … c+R-1 steps (teacher forcing computes its first step).
"""

from typing import Annotated, Literal

from pydantic import Field

from jepa.config import DEFAULT, part
from jepa.config.fields import Count
from jepa.methods.frozen_encoder import ROLLOUT_CONTEXT, FrozenEncoderConfig, FrozenEncoderMethod, RolloutSteps
from jepa.objectives.causal_prediction import Distance
from jepa.predictors import PREDICTORS
from jepa.predictors.base import PredictorConfig

# 6 blocks, 16 heads of 64, a window of 3 frames, actions beside each patch.
PREDICTOR = part(
    PREDICTORS,
    "causal",
    hidden=384,
    depth=6,
    mlp_ratio=2048 / 384,
    head_dim=64,
    conditioning="concat",
    window=3,
    next_state="predicted",
)


class DinoWM(FrozenEncoderMethod):
    """DINO-WM and JEPA-WMs; needs an encoder of single frames, such as `FrameEncoder`."""

    class Config(FrozenEncoderConfig):
        """Dynamics on the patches of a frozen backbone: DINO-WM, JEPA-WMs."""

        kind: Literal["dino_wm"] = "dino_wm"
        predictor: Annotated[PredictorConfig, PREDICTOR] = DEFAULT
        distance: Distance = "l2"
        rollout_steps: RolloutSteps = 0
        rollout_context: Count | Literal["random"] = Field(default="random", description=ROLLOUT_CONTEXT)
        detach_rollout: bool = True
