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

from typing import Literal

from torch import nn

from jepa.methods.frozen_encoder import FrozenEncoderMethod
from jepa.objectives.causal_prediction import Distance
from jepa.predictors.causal import CausalPredictor


class VJEPAAC(FrozenEncoderMethod):
    """V-JEPA 2-AC as a method.

    Args:
        encoder: each frame on its own, such as `PerFrameEncoder`; it is frozen.
        dynamics: the predictor that is trained; `layer_norm_out` where the latents are LayerNormed.
        distance: "l1" as published, or "l2".
        rollout_steps: of the second term; 0 leaves it out.
        rollout_context: true latents that a rollout starts from; "random": drawn for every batch.
        detach_rollout: no gradient through what a prediction of the rollout is made from.
    """

    def __init__(
        self,
        encoder: nn.Module,
        dynamics: CausalPredictor,
        *,
        distance: Distance = "l1",
        rollout_steps: int = 2,
        rollout_context: int | Literal["random"] = 1,
        detach_rollout: bool = False,
    ) -> None:
        super().__init__(
            encoder,
            dynamics,
            distance=distance,
            rollout_steps=rollout_steps,
            rollout_context=rollout_context,
            detach_rollout=detach_rollout,
        )
