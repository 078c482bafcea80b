"""V-JEPA 2-AC: action-conditioned prediction of the latents of a frozen video encoder (arXiv 2506.09985).

    frame t, doubled ──→ frozen V-JEPA 2 ──→ LayerNorm ──→ z_t ──┐
    action t, state t ───────────────────────────────────────────┴─→ causal predictor ──→ z'_{t+1}

    loss = mean |P(z_0 … z_t, a_0 … a_t) - z_{t+1}|              teacher forcing, every step at once
         + mean |P(z_0 … z_{c-1}, then its own) - z|             a rollout of 2 steps from the first frame (c = 1)

The published predictor (jepa/predictors/causal.py) has 305 M parameters. Its states are gripper poses; actions change
them by a rule, so they need no prediction. The paper uses L1, two rollout steps, and gradients through the rollout.
JEPA-WMs find that L2 is better than L1, and detached inputs better than attached ones (see dino_wm.py).

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

PREDICTOR = part(PREDICTORS, "causal", layer_norm_out=True)  # as its latents are


class VJEPAAC(FrozenEncoderMethod):
    """V-JEPA 2-AC; needs an encoder of single frames, such as `PerFrameEncoder`."""

    class Config(FrozenEncoderConfig):
        """Action-conditioned prediction of frozen latents (V-JEPA 2-AC)."""

        kind: Literal["vjepa_ac"] = "vjepa_ac"
        predictor: Annotated[PredictorConfig, PREDICTOR] = DEFAULT
        distance: Distance = "l1"
        rollout_steps: RolloutSteps = 2
        rollout_context: Count = Field(default=1, description=ROLLOUT_CONTEXT)
        detach_rollout: bool = False
