"""Base class of methods that learn dynamics on the latents of a frozen encoder (V-JEPA 2-AC, DINO-WM).

video ──→ frozen encoder ──→ z [B, S, N, D]          no gradient, evaluation mode, weights bit-identical
                             x = z, or z and states  [B, S, N, D + X] if the predictor also predicts states
loss  = teacher forcing at every step + a rollout from its own predictions      jepa/objectives/causal_prediction.py
"""

from typing import Annotated, Any, Literal, Self

import torch
from jaxtyping import Float
from pydantic import AfterValidator, Field, model_validator
from torch import Tensor
from torch.nn import functional as F

from jepa.config.fields import Count
from jepa.encoders.module import Encoder
from jepa.methods.base import Batch, ClipShape, Method, MethodConfig, block_size, history
from jepa.objectives.causal_prediction import Distance, Predict, forced_and_rolled
from jepa.predictors import PREDICTORS, reading_patches
from jepa.predictors.base import Predictor, PredictorConfig, token_grid
from jepa.predictors.causal import CausalPredictor


def _not_one(steps: int) -> int:
    if steps == 1:
        raise ValueError("a rollout of 1 step is teacher forcing itself; expected 0 (none) or 2 up")
    return steps


RolloutSteps = Annotated[
    int,
    Field(ge=0, description="latent steps of the rollout loss, from the model's own predictions; 0: none"),
    AfterValidator(_not_one),
]
ROLLOUT_CONTEXT = "number of true latents before a rollout; random: drawn for every batch"


class FrozenEncoderConfig(MethodConfig):
    """Settings of methods with a frozen encoder."""

    collapses = False
    encoder_from: str | None = Field(
        default=None, description="run, model folder or hub id of the encoder; none: `encoder`"
    )
    latents_from: str | None = Field(
        default=None, description="folder of the encoder's latents (jepa data tokenize), read in place of video"
    )
    states: tuple[str, ...] = Field(default=(), description="recorded states that the predictor reads: agent.x, …")
    predictor: PredictorConfig
    distance: Distance
    rollout_steps: RolloutSteps
    rollout_context: Count | Literal["random"] = Field(description=ROLLOUT_CONTEXT)
    detach_rollout: bool = Field(description="no gradient through the inputs of rollout predictions")

    def latents_source(self) -> str | None:
        return self.latents_from

    def encoder_source(self) -> str | None:
        return self.encoder_from

    def state_names(self) -> tuple[str, ...]:
        return self.states

    @model_validator(mode="after")
    def _states_once(self) -> Self:
        if len(set(self.states)) < len(self.states):
            raise ValueError(f"states: each once, found {', '.join(self.states)}")
        return self


class FrozenEncoderMethod(Method):
    """A frozen encoder and a predictor over its latents, `causal` or `hybrid`.

    Args:
        encoder: video -> [B, S, N, D], each latent only from its own frames; it is frozen here.

    Raises:
        ValueError: the predictor is for other latents, or clips are shorter than a rollout.
    """

    needs_actions = True
    frozen = ("encoder",)
    config: FrozenEncoderConfig
    dynamics: Predictor

    def __init__(self, config: FrozenEncoderConfig, encoder: Encoder, clips: ClipShape) -> None:
        super().__init__(config, encoder.eval().requires_grad_(False))
        chosen = PREDICTORS[config.predictor.kind]
        if chosen.distribution or not chosen.reads_patches:
            raise ValueError(
                f"{config.kind} needs a predictor that reads patches ({reading_patches(distributions=False)}), "
                f"found {config.predictor.kind}"
            )
        width = block_size(encoder, clips)
        predictor = _with_states(config, clips.action_size * encoder.tubelet)
        _check_length(config, clips.frames, encoder.tubelet)
        self.dynamics = PREDICTORS.make(predictor, encoder.width, width, token_grid(encoder))
        self.history = history(self.dynamics, encoder, clips)

    def loss(self, batch: Batch, generator: torch.Generator) -> dict[str, Tensor]:
        """Scalars: loss, its terms, and the cosine of prediction and target.

        Raises:
            ValueError: the clips have no actions, no or other states than the predictor, or are shorter than a rollout.
        """
        x, predict = self.sequence(batch)
        terms, forced = forced_and_rolled(
            predict,
            x,
            distance=self.config.distance,
            rollout_steps=self.config.rollout_steps,
            context=self._context(x.shape[1], generator),
            detach=self.config.detach_rollout,
        )
        cosine = F.cosine_similarity(forced.detach().float(), x[:, 1:], dim=-1).mean()
        return {"loss": sum(terms.values(), x.new_zeros(())), **terms, "cosine": cosine}

    def _context(self, steps: int, generator: torch.Generator) -> int:
        """True latents before a rollout of `rollout_steps` that ends within the clip."""
        if self.config.rollout_context != "random":
            return self.config.rollout_context
        max_offset = steps - self.config.rollout_steps
        return 1 if max_offset < 2 else int(torch.randint(1, max_offset + 1, (), generator=generator))

    def train(self, mode: bool = True) -> Self:
        """Set the mode of all modules but the encoder, which stays in evaluation mode."""
        super().train(mode)
        self.encoder.eval()
        return self

    def sequence(self, batch: Batch) -> tuple[Float[Tensor, "B S N E"], Predict]:
        """The latents x of the clips, and the predictor as a function of them, with actions and states bound.

        Raises:
            ValueError: the clips have no actions, or not the states that the predictor takes.
        """
        actions = self.actions_of(batch)
        states = None
        z = self.frozen_latents(batch)
        if (size := 0 if batch.states is None else batch.states.shape[-1]) != self.dynamics.state_size:
            raise ValueError(f"the predictor takes states {self.dynamics.state_size} wide, the clips have {size}")
        if batch.states is not None and self.dynamics.state_size:
            per_step = self.encoder.tubelet
            states = batch.states[:, per_step - 1 :: per_step]  # at the last frame of each step
        dynamics = self.dynamics
        if states is None or not isinstance(dynamics, CausalPredictor) or not dynamics.predicts_states:
            return z, lambda seen: dynamics.parallel(seen, *_first(seen.shape[1], actions, states))
        proprioception = dynamics.scale_states(states)[:, :, None].expand(-1, -1, z.shape[2], -1)
        return torch.cat((z, proprioception), -1), lambda seen: _predict_both(dynamics, seen, actions)


def _predict_both(
    dynamics: CausalPredictor, seen: Float[Tensor, "B S N E"], actions: Float[Tensor, "B Q A"]
) -> Float[Tensor, "B S N E"]:
    """Latents and states of the next step: every patch predicts both, and the state predictions are averaged."""
    z, proprioception = seen.split((dynamics.width, dynamics.state_size), -1)
    states = dynamics.scale_states.inverse(proprioception.mean(2))
    return torch.cat(dynamics.joint(z, *_first(seen.shape[1], actions, states)), -1)  # pyright: ignore[reportArgumentType, reportCallIssue] - it predicts both


def _with_states(config: FrozenEncoderConfig, action_size: int) -> PredictorConfig:
    """The settings of the predictor with the states of the method."""
    predictor: Any = config.predictor
    size = len(config.states)
    if not issubclass(PREDICTORS[predictor.kind], CausalPredictor):
        if size:
            raise ValueError(f"method.states: a predictor of kind causal reads states, found {predictor.kind}")
        return predictor
    if predictor.state_size not in (0, size):
        raise ValueError(
            f"method.predictor.state_size is {predictor.state_size}, and method.states names {size}: name "
            f"{predictor.state_size}, or leave state_size out"
        )
    if predictor.camera_size:
        raise ValueError("cameras' poses are not in the clips: the predictor takes none in training (camera_size 0)")
    moved = {"add_action": action_size, "apply_delta_pose": 7}.get(predictor.next_state)
    if size and moved not in (None, size):
        raise ValueError(
            f"method.predictor.next_state: {predictor.next_state} moves states {moved} wide, found {size} in "
            "method.states; let them be predicted (next_state: predicted)"
        )
    return type(predictor).model_validate(predictor.model_dump() | {"state_size": size})


def _check_length(config: FrozenEncoderConfig, frames: int, tubelet: int) -> None:
    """Raises ValueError for clips shorter than context and rollout."""
    context = 1 if config.rollout_context == "random" else config.rollout_context
    steps = frames // tubelet
    minimum = max(2, config.rollout_steps and config.rollout_steps + context)
    if steps < minimum:
        raise ValueError(
            f"data.clip_frames is {frames}, {steps} latent step(s); expected {minimum * tubelet} or more: a clip holds "
            "what a rollout starts from (method.rollout_context) and what it predicts (method.rollout_steps)"
        )


def _first(steps: int, actions: Tensor, states: Tensor | None) -> tuple[Tensor, Tensor | None]:
    """The part for the first latents."""
    return actions[:, :steps], None if states is None else states[:, :steps]
