"""V-JEPA: predict the latents of masked tokens from the visible tokens (1: arXiv 2404.08471, 2: 2506.09985).

    video ──┬─ visible tokens ──→ context encoder ──→ predictor ──→ predicted hidden tokens ──┐
            │                           ┆ moving average                                      L1
            └─ all tokens ──────→ target encoder ──→ LayerNorm ──→ true hidden tokens ────────┘   (no gradient)

averaged over the kinds of masks (short-range and long-range blocks). The context encoder reads only visible tokens.

                       V-JEPA 1          V-JEPA 2     V-JEPA 2.1                        SALT (arXiv 2509.24317)
    teacher            moving average    the same     the same                          frozen, trained on pixels
    ema                0.998 … 1         0.99925      0.99925
    positions          sincos            rotary       rotary, on a 16-grid              rotary
    levels             the last          the last     four, normalized separately       the last
    dense loss         no                no           + λ L1 at the visible tokens, each over the root of its
                                                      distance to the nearest hidden one
    images             no                no           as clips of one frame             no

Forward FLOPs of a step on clips of L tokens where a mask shows M: target encoder(L), and for each mask
encoder(M) + predictor(L tokens, L - M hidden), as in jepa/encoders/video_vit.py and jepa/predictors/masked.py.
"""

import copy
from typing import Literal, Self

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int
from pydantic import Field, model_validator
from torch import Tensor
from torch.optim.swa_utils import get_ema_multi_avg_fn

from jepa.config import Config
from jepa.config.fields import Share
from jepa.encoders.video_vit import VideoViT
from jepa.masks import MASKS, VJEPA_MASKS, Masks
from jepa.methods.base import Batch, ClipShape, Method, MethodConfig, check_video_vit
from jepa.objectives.latent_regression import distance_weights, latent_regression, normalized, standardized
from jepa.predictors.masked import MaskedPredictor
from jepa.ranks import rank_count
from jepa.transformer import Modality, grid_positions


class Dense(Config):
    """V-JEPA 2.1's loss at the visible tokens: its λ is 0 up to step `start`, then rises to `weight` at step `end`."""

    weight: float = Field(default=0.5, ge=0)
    start: int = Field(default=15_000, ge=0)
    end: int = Field(default=30_000, ge=0)

    @model_validator(mode="after")
    def _rises(self) -> Self:
        if self.start > self.end:
            raise ValueError(f"dense needs start <= end, found {self.start} and {self.end}")
        return self

    def at(self, step: Int[Tensor, ""]) -> Float[Tensor, ""]:
        return self.weight * ((step - self.start + 1) / max(1, self.end - self.start)).clamp(0, 1)


class VJEPA(Method):
    """V-JEPA 1, 2, 2.1 and SALT (see the table above).

    Args:
        trained: with `teacher: frozen`, the teacher. It may have another size, but must have the same token grid.
    """

    class Config(MethodConfig):
        """Masked latent prediction: V-JEPA 1, 2, 2.1 and SALT."""

        kind: Literal["vjepa"] = "vjepa"
        predictor: MaskedPredictor.Config = MaskedPredictor.Config()
        masks: Masks = VJEPA_MASKS
        ema: tuple[Share, Share] = Field(
            default=(0.99925, 0.99925),
            description="momentum of the target encoder, at the first and the last step",
        )
        teacher: Literal["ema", "frozen", "none"] = Field(
            default="ema",
            description="none: targets from the context encoder itself, which collapses; for comparison",
        )
        teacher_from: str | None = Field(default=None, description="run whose encoder is the frozen teacher (SALT)")
        target_norm: Literal["token", "channel"] = Field(
            default="token",
            description="targets are normalized token by token, as published, or channel by channel over the batch: "
            "small models then learn in minutes, as what all tokens have in common is no target",
        )
        evaluate: Literal["target", "context"] = Field(
            default="target",
            description="the encoder that is probed and saved: the moving average, as published, or the one that is "
            "trained, which is ahead of a slow average in a short run",
        )
        dense: Dense | None = Field(default=None, description="V-JEPA 2.1's loss at the visible tokens")

        def teacher_source(self) -> str | None:
            return self.teacher_from

        @model_validator(mode="after")
        def _teacher_is_somewhere(self) -> Self:
            if (self.teacher == "frozen") != (self.teacher_from is not None):
                raise ValueError("teacher: frozen and teacher_from: RUN go together; give both, or neither")
            return self

    step: Tensor
    encoder: VideoViT

    def __init__(self, config: Config, encoder: VideoViT, clips: ClipShape, trained: VideoViT | None = None) -> None:
        super().__init__(config, encoder)
        check_video_vit(config.kind, encoder)
        if (config.teacher == "frozen") != (trained is not None):
            raise ValueError("a frozen teacher is an encoder that was trained before: give both, or neither")
        if trained is not None:
            _check_teacher(trained, encoder)
        source = trained or encoder
        self.predictor = MaskedPredictor(
            config.predictor,
            encoder.width,
            mask_kinds=len(config.masks),
            levels_in=encoder.level_count,
            # A student of other levels than its teacher predicts the last one.
            levels_out=source.level_count if source.level_count == encoder.level_count else 1,
            target_width=source.width,
            context_head=config.dense is not None,
            images=encoder.images,
            position_grid=encoder.position_grid,
        )
        self.masks = tuple(MASKS.make(mask) for mask in config.masks)
        self.target_encoder = None
        if config.teacher != "none":  # in the same mode as the rest: it has nothing that modes change
            self.target_encoder = copy.deepcopy(source).train(encoder.training).requires_grad_(False)
        self.register_buffer("step", torch.zeros((), dtype=torch.long))

    def loss(self, batch: Batch, generator: torch.Generator) -> dict[str, Tensor]:
        """Scalars: loss; cosine of prediction and target; with the dense loss also its part before λ, and λ."""
        is_image = batch.is_image
        if self.encoder.images and self.config.target_norm == "channel" and rank_count() > 1:
            raise ValueError(
                "target_norm: channel is over the batches of all processes, and with images they differ in what they "
                "hold; use target_norm: token, or one process"
            )
        if is_image is None or not self.encoder.images or not is_image.any():
            return self._loss(batch.video, "video", generator)
        if is_image.all():
            for mask in self.masks:  # what other ranks draw for video
                mask.of(batch.video, self.encoder.grid(batch.video), generator)
            return self._loss(batch.video[:, :1], "image", generator)
        clips = self._loss(batch.video, "video", generator, ~is_image)
        images = self._loss(batch.video[:, :1], "image", generator, is_image)
        share = is_image.float().mean()
        return {name: share * images[name] + (1 - share) * clips[name] for name in clips}

    def _loss(
        self,
        batch: Float[Tensor, "B T C h w"],
        modality: Modality,
        generator: torch.Generator,
        rows: Bool[Tensor, " B"] | None = None,
    ) -> dict[str, Tensor]:
        """Of these rows of a batch; masks are drawn for all of it."""
        grid = self.encoder.grid(batch)
        video = batch if rows is None else batch[rows]
        truth = self._targets(video)
        terms = list[dict[str, Tensor]]()
        for kind, mask in enumerate(self.masks):
            seen, hidden = mask.of(batch, grid, generator)
            if rows is not None:
                seen, hidden = seen[rows], hidden[rows]
            context = self.encoder.forward_features(video, seen).levels
            expected = _take(truth, hidden)
            if self.config.dense is None:
                prediction = self.predictor(context, seen, hidden, grid, kind, modality)
                losses = {"loss": latent_regression(prediction, expected)}
            else:
                prediction, known = self.predictor.forward_dense(context, seen, hidden, grid, kind, modality)
                weights = distance_weights(grid_positions(seen, grid), grid_positions(hidden, grid))
                visible = latent_regression(known, _take(truth, seen), weights)
                factor = self.config.dense.at(self.step)
                losses = {"loss": latent_regression(prediction, expected) + factor * visible}
                losses |= {"dense": visible, "dense_weight": factor}
            terms.append(losses | {"cosine": F.cosine_similarity(prediction.detach().float(), expected, dim=-1).mean()})
        return {name: torch.stack([term[name] for term in terms]).mean() for name in terms[0]}

    @torch.no_grad()
    def _targets(self, video: Float[Tensor, "B T C h w"]) -> Float[Tensor, "B L E"]:
        """Targets, with each level normalized separately."""
        features = (self.target_encoder or self.encoder).forward_features(video)
        if self.config.target_norm == "channel":
            return standardized(features.tokens if self.predictor.levels_out == 1 else features.levels)
        if self.predictor.levels_out == 1:
            return normalized(features.tokens)
        return normalized(features.levels.unflatten(-1, (self.predictor.levels_out, -1))).flatten(-2)

    @torch.no_grad()
    def after_step(self, step: int, total_steps: int) -> None:
        """Move a teacher that is a moving average towards the context encoder: θ' ← m θ' + (1 - m) θ."""
        self.step.fill_(step)
        if self.config.teacher != "ema" or self.target_encoder is None:
            return
        first, last = self.config.ema
        momentum = first + (last - first) * min(step / max(total_steps, 1), 1.0)
        move = get_ema_multi_avg_fn(momentum)
        move(list(self.target_encoder.parameters()), list(self.encoder.parameters()), step)

    def evaluation_encoder(self) -> VideoViT:
        """The moving average, if there is one and `evaluate` does not choose the encoder that is trained."""
        if self.config.teacher == "frozen" or self.config.evaluate == "context":
            return self.encoder
        return self.target_encoder or self.encoder

    def masked_predictor(self) -> MaskedPredictor:
        return self.predictor


def _check_teacher(teacher: VideoViT, encoder: VideoViT) -> None:
    """Raises ValueError if the teacher has another token grid."""
    if not isinstance(teacher, VideoViT):
        raise ValueError("method.teacher_from: it holds no encoder of kind video_vit")
    if (teacher.patch, teacher.tubelet) != (encoder.patch, encoder.tubelet):
        raise ValueError(
            f"the teacher has patches of {teacher.patch} and tubelets of {teacher.tubelet}, the encoder of "
            f"{encoder.patch} and {encoder.tubelet}: they must see the same tokens"
        )


def _take(tokens: Float[Tensor, "B L D"], index: Int[Tensor, "B M"]) -> Float[Tensor, "B M D"]:
    return tokens.take_along_dim(index[..., None], 1)
