"""DINO-WM: dynamics over the patches of a frozen picture backbone (arXiv 2411.04983); JEPA-WMs' as settings of it.

    frame t ──→ frozen DINOv2, patches ──→ z_t [N, D] ──┐
    actions of the step, states ────────────────────────┴─→ frame-causal ViT, last 3 frames ──→ z'_{t+1}, state'_{t+1}

    loss = mean (P(z_0 … z_t, a_0 … a_t) - z_{t+1})²              one step, from the truth; the target is constant
         + mean (P(z_0 … z_{c-1}, then its own) - z)²             JEPA-WMs: and a rollout of 2 steps, c drawn anew

                       DINO-WM                                 JEPA-WMs ("What drives success …", their best)
    conditioning       concat: action and state stand beside   adaln: they modulate the patches of their frame
                       each patch, in 10 numbers each
    rollout            none                                    2 steps, after a random number of true frames
    detach_rollout     -                                       yes: each step learns by itself

Where the predictor takes states and no rule moves them (`next_state: predicted`) they are predicted along with the
patches, and are a part of x in the loss. Published, what is predicted is a learned embedding of the state; here it is
the state itself, standardized: such a target cannot shrink. Positions are rotary, not learned, so that the memory of
past frames stays exact when it slides.

Forward FLOPs of a step on clips of S steps: the encoder on all frames, a whole pass of the predictor over S-1 steps,
and for a rollout of R steps R-1 more, over c+1 … c+R-1 steps (its first is one of teacher forcing's).
"""

from typing import Literal

from torch import nn

from jepa.methods.frozen_encoder import FrozenEncoderMethod
from jepa.objectives.causal_prediction import Distance
from jepa.predictors.causal import CausalPredictor


class DinoWM(FrozenEncoderMethod):
    """DINO-WM, and JEPA-WMs' variant, as a method.

    Args:
        encoder: each frame on its own, such as `FrameEncoder`; it is frozen.
        dynamics: the predictor that is trained.
        distance: "l2" as published, or "l1".
        rollout_steps: of a rollout; 0 leaves it out.
        rollout_context: true latents that a rollout starts from; "random": drawn for every batch.
        detach_rollout: no gradient through what a prediction of the rollout is made from.
    """

    def __init__(
        self,
        encoder: nn.Module,
        dynamics: CausalPredictor,
        *,
        distance: Distance = "l2",
        rollout_steps: int = 0,
        rollout_context: int | Literal["random"] = "random",
        detach_rollout: bool = True,
    ) -> None:
        super().__init__(
            encoder,
            dynamics,
            distance=distance,
            rollout_steps=rollout_steps,
            rollout_context=rollout_context,
            detach_rollout=detach_rollout,
        )
