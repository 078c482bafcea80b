"""V-JEPA 2-AC: what a frozen video encoder sees next when a robot acts (arXiv 2506.09985).

    frame t, doubled ──→ frozen V-JEPA 2 ──→ LayerNorm ──→ z_t ──┐
    action t, state t ───────────────────────────────────────────┴─→ causal predictor ──→ z'_{t+1}

    loss = mean |P(z_0 … z_t, a_0 … a_t) - z_{t+1}|              teacher forcing, every step at once
         + mean |P(z_0 … z_{c-1}, then its own) - z|             a rollout of 2 steps from the first frame (c = 1)

The predictor (jepa/predictors/causal.py) is V-JEPA 2's in width, with 305 M parameters as published; its states are the
pose of the gripper, which an action moves, so that no prediction is needed of them. Published: L1, two steps, gradients
through the rollout. "L2 beats L1, and detached inputs beat those that are not" is JEPA-WMs' finding (see dino_wm.py).

Forward FLOPs of a step on clips of S steps: the encoder on all frames, a whole pass of the predictor over S-1 steps,
and for a rollout of R steps R-1 more, over c+1 … c+R-1 steps (its first is one of teacher forcing's).
"""

from typing import Annotated, Literal

from pydantic import Field

from jepa.config import DEFAULT, part
from jepa.config.fields import Count
from jepa.methods.frozen_encoder import ROLLOUT_CONTEXT, ROLLOUT_STEPS, FrozenEncoderConfig, FrozenEncoderMethod
from jepa.objectives.causal_prediction import Distance
from jepa.predictors import PREDICTORS
from jepa.predictors.base import PredictorConfig

PREDICTOR = part(PREDICTORS, "causal", layer_norm_out=True)  # as its latents are


class VJEPAAC(FrozenEncoderMethod):
    """V-JEPA 2-AC; the encoder takes each frame on its own, such as `PerFrameEncoder`."""

    class Config(FrozenEncoderConfig):
        """What a frozen video encoder sees next under an action."""

        kind: Literal["vjepa_ac"] = "vjepa_ac"
        predictor: Annotated[PredictorConfig, PREDICTOR] = DEFAULT
        distance: Distance = "l1"
        rollout_steps: int = Field(default=2, ge=0, description=ROLLOUT_STEPS)
        rollout_context: Count = Field(default=1, description=ROLLOUT_CONTEXT)
        detach_rollout: bool = False
