"""The base class of methods: the interface that training uses."""

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn
from torch.nn import functional as F

from jepa.encoders.module import Encoder
from jepa.encoders.video_vit import VideoViT
from jepa.methods.config import MethodConfig
from jepa.predictors import PREDICTORS
from jepa.predictors.base import Predictor
from jepa.predictors.masked import MaskedPredictor
from jepa.world_model import Dynamics, block_actions, rollout


@dataclass(frozen=True)
class Batch:
    """Clips on the training device, normalized to about zero mean and unit variance.

    `actions[:, t]` takes frame t to frame t+1, and has a column for each event that the dynamics take (jepa/events.py);
    None for video without actions. `is_image`: clips that repeat one image.
    `states`: raw proprioceptive states at each frame; None for methods that do not read them.
    `latents`: of a frozen encoder, in place of video, which has no pixels then; None: there is video.
    `targets`: recorded states that the method predicts (`MethodConfig.target_names`), NaN where there are none.
    `first`: latent steps with which an episode begins inside a clip; None: no clip spans two episodes.
    """

    video: Float[Tensor, "B T C h w"]
    actions: Float[Tensor, "B T-1 A"] | None
    is_image: Bool[Tensor, " B"] | None = None
    states: Float[Tensor, "B T X"] | None = None
    latents: Float[Tensor, "B S N D"] | None = None
    targets: Float[Tensor, "B T Y"] | None = None
    first: Bool[Tensor, "B S"] | None = None


@dataclass(frozen=True)
class ClipShape:
    """Shape of the clips of a run: `frames`; the width of the action between two frames, 0 without actions; events."""

    frames: int
    action_size: int = 0
    events: tuple[str, ...] = ()


class Method(nn.Module, ABC):
    """A published algorithm: encoder, predictor and loss, in plain torch, without Lightning.

    A method is built as `Method(config, encoder, clips)` and draws its weights from torch's global generator.

    Attributes:
        needs_actions: whether it learns from actions.
        frozen: submodules that never change; training checkpoints leave them out.
        dynamics: the action-conditioned predictor; None if the method has none.
        history: maximum number of consecutive true latents that the dynamics read in training.
    """

    Config: type[MethodConfig] = MethodConfig
    needs_actions: ClassVar[bool] = False
    frozen: ClassVar[tuple[str, ...]] = ()
    dynamics: Predictor | None
    encoder: Any  # jepa.encoders.module.Encoder, or a kind of it
    config: Any  # of its own Config
    history: int = 1

    def __init__(self, config: MethodConfig, encoder: Encoder) -> None:
        super().__init__()
        self.config = config
        self.encoder = encoder
        self.dynamics = None

    @abstractmethod
    def loss(self, batch: Batch, generator: torch.Generator) -> dict[str, Tensor]:
        """Scalars by name; "loss" is minimized, the others are logged. All randomness comes from `generator`."""

    def actions_of(self, batch: Batch) -> Float[Tensor, "B Q E"]:
        """The actions of a batch as blocks, one per latent transition. Raises ValueError if its clips have none."""
        if batch.actions is None:
            raise ValueError(
                f"{type(self).__name__} learns from actions, and these clips have none; use vjepa or levjepa for plain "
                "video"
            )
        return block_actions(batch.actions, self.encoder.tubelet)

    def frozen_latents(self, batch: Batch) -> Float[Tensor, "B S N D"]:
        """Latents of a batch without gradient: those it brings, or its video, encoded."""
        if batch.latents is not None:
            return batch.latents
        with torch.no_grad():
            return self.encoder(batch.video).float()

    def after_step(self, step: int, total_steps: int) -> None:
        """Called after each optimizer step (EMA teachers and the like)."""

    def evaluation_encoder(self) -> Encoder:
        """The encoder to probe, export and plan with."""
        return self.encoder

    @torch.no_grad()
    def encode(self, video: Float[Tensor, "B T C h w"]) -> Float[Tensor, "B S N D"]:
        """Latents of normalized video by the encoder to probe; what is trained is left as it is."""
        encoder = self.evaluation_encoder()
        training = encoder.training
        encoder.eval()
        try:
            return encoder(video)
        finally:
            encoder.train(training)

    def masked_predictor(self) -> MaskedPredictor | None:
        """V-JEPA's predictor, saved with the model; None for other methods."""
        return None


def block_size(encoder: Encoder, clips: ClipShape) -> int:
    """Width of the actions of one latent step, with columns for events."""
    return (clips.action_size + len(clips.events)) * encoder.tubelet


def history(dynamics: Dynamics, encoder: Encoder, clips: ClipShape) -> int:
    """Maximum number of consecutive latents that teacher-forced dynamics read in clips of this shape."""
    inputs = max(1, clips.frames // encoder.tubelet - 1)
    return min(inputs, dynamics.context or inputs)


def check_video_vit(kind: str, encoder: Encoder) -> None:
    """Raises ValueError for encoders that cannot encode a subset of the tokens."""
    if not isinstance(encoder, VideoViT):
        raise ValueError(f"{kind} needs an encoder with tokens (encoder: {{kind: video_vit}})")


class VectorDynamicsMethod(Method):
    """Base class of methods that train encoder and dynamics jointly, with actions and vector latents (N = 1).

    Args:
        encoder: video -> [B, S, 1, D].

    Attributes:
        weights: of the loss terms other than the prediction, by name.
    """

    needs_actions = True
    dynamics: Predictor
    weights: dict[str, float]

    def __init__(self, config: MethodConfig, encoder: Encoder, clips: ClipShape) -> None:
        super().__init__(config, encoder)
        if encoder.tokens != 1:
            raise ValueError(
                f"{config.kind} needs an encoder with one vector per step (encoder: {{kind: conv}}, or output: pooled "
                "of kind frame)"
            )
        settings = self.config.predictor.model_dump()
        if settings.get("state_size") or settings.get("camera_size"):
            raise ValueError(
                f"{config.kind} gives its predictor latents and actions alone: omit state_size and camera_size"
            )
        self.dynamics = PREDICTORS.make(self.config.predictor, encoder.width, block_size(encoder, clips))
        if self.dynamics.distribution:
            self.history = history(self.dynamics, encoder, clips)

    def open_loop(self, z: Float[Tensor, "B S 1 D"], actions: Float[Tensor, "B Q E"]) -> Float[Tensor, "B Q 1 D"]:
        """Open-loop rollout from the first latent with all actions."""
        start = self.dynamics.initial_state(z[:, :1], actions[:, :0])
        return rollout(self.dynamics, start, actions[:, None])[:, 0]

    def weighted_sum(
        self, terms: dict[str, Tensor], predicted: Float[Tensor, "B Q 1 D"], z: Float[Tensor, "B S 1 D"]
    ) -> dict[str, Tensor]:
        """The result of `loss`: the weighted sum, each term, and the cosine of prediction and target."""
        total = terms["prediction"] + sum(weight * terms[name] for name, weight in self.weights.items())
        cosine = F.cosine_similarity(predicted.detach(), z[:, 1:].detach(), dim=-1).mean()
        return {"loss": total, **{name: value.detach() for name, value in terms.items()}, "cosine": cosine}
