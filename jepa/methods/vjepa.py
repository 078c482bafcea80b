"""V-JEPA: predict the latents of hidden parts of a clip from its visible part (1: arXiv 2404.08471, 2: 2506.09985).

    video ──┬─ visible tokens ──→ context encoder ──→ predictor ──→ predicted hidden tokens ──┐
            │                           ┆ moving average                                      L1
            └─ all tokens ──────→ target encoder ──→ LayerNorm ──→ true hidden tokens ────────┘   (no gradient)

for each kind of mask (short-range and long-range blocks), averaged. Only visible tokens enter the context encoder.

                       V-JEPA 1          V-JEPA 2     V-JEPA 2.1                        SALT (arXiv 2509.24317)
    teacher            moving average    the same     the same                          frozen, trained on pixels
    ema                0.998 … 1         0.99925      0.99925
    positions          sincos            rotary       rotary, on a 16-grid              rotary
    levels             the last          the last     four, each normalized by itself   the last
    dense loss         no                no           + λ L1 at the visible tokens, each over the root of its
                                                      distance to the nearest hidden one
    pictures           no                no           as clips of one frame             no

Forward FLOPs of a step on clips of L tokens, of which a mask shows M: target encoder(L), and for each mask
encoder(M) + predictor(L tokens, L - M hidden), as in jepa/encoders/video_vit.py and jepa/predictors/masked.py.
"""

import copy
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.optim.swa_utils import get_ema_multi_avg_fn

from jepa.encoders.video_vit import VideoViT
from jepa.masks.base import Mask
from jepa.masks.multiblock import VJEPA_BLOCKS
from jepa.methods.base import Batch
from jepa.objectives.latent_regression import distance_weights, latent_regression, normalized
from jepa.predictors.masked import MaskedPredictor
from jepa.transformer import Modality, grid_positions


@dataclass(frozen=True)
class Dense:
    """λ of the loss at the visible tokens: 0 up to step `start`, then rising to `weight` at step `end`."""

    weight: float = 0.5
    start: int = 15_000
    end: int = 30_000

    def __post_init__(self) -> None:
        if not (self.weight >= 0 and 0 <= self.start <= self.end):
            raise ValueError(f"dense needs weight >= 0 and 0 <= start <= end, found {self}")

    def at(self, step: Int[Tensor, ""]) -> Float[Tensor, ""]:
        return self.weight * ((step - self.start + 1) / max(1, self.end - self.start)).clamp(0, 1)


class VJEPA(nn.Module):
    """V-JEPA 1, 2, 2.1 and SALT as a method (see the table above).

    Args:
        ema: how much of the target encoder each step keeps, at the first and the last step (linear in between).
        masks: each is one pass of encoder and predictor, with a mask token of its own.
        teacher: "ema", "frozen" or "none": the targets come from the context encoder itself (still without gradient).
            That collapses to constant latents; it is there to show what the moving average is for.
        frozen: the teacher, if it is frozen. It may be of another size, but must see the same grid of tokens.
        dense: V-JEPA 2.1's loss at the visible tokens; the predictor needs a context head.
    """

    dynamics = None
    step: Tensor

    def __init__(
        self,
        encoder: VideoViT,
        predictor: MaskedPredictor,
        *,
        ema: tuple[float, float] = (0.99925, 0.99925),
        masks: Sequence[Mask] = VJEPA_BLOCKS,
        teacher: Literal["ema", "frozen", "none"] = "ema",
        frozen: VideoViT | None = None,
        dense: Dense | None = None,
    ):
        super().__init__()
        if not all(0 <= decay <= 1 for decay in ema):
            raise ValueError(f"ema is (first, last), each from 0 to 1, found {ema}")
        predictor.check_kinds(len(masks))
        if (teacher == "frozen") != (frozen is not None):
            raise ValueError("a frozen teacher is an encoder that was trained before: give both, or neither")
        if dense is not None and predictor.predictor_proj_context is None:
            raise ValueError("the dense loss needs a predictor with a context head")
        self.encoder, self.predictor, self.teacher = encoder, predictor, teacher
        self.ema, self.masks, self.dense = ema, tuple(masks), dense
        source = {"ema": encoder, "frozen": frozen, "none": None}[teacher]
        self.target_encoder = None
        if source is not None:  # in the same mode as the rest: it has nothing that modes change
            self.target_encoder = copy.deepcopy(source).train(encoder.training).requires_grad_(False)
        self.register_buffer("step", torch.zeros((), dtype=torch.long))
        self._check_widths()

    def loss(self, batch: Batch, generator: torch.Generator) -> dict[str, Tensor]:
        """Scalars: loss; cosine of prediction and target; with the dense loss also its part before λ, and λ."""
        still = batch.is_image if self.encoder.images else None
        if still is None or not still.any():
            return self._loss(batch.video, "video", generator)
        pictures = self._loss(batch.video[still][:, :1], "image", generator)
        if still.all():
            return pictures
        share, clips = still.float().mean(), self._loss(batch.video[~still], "video", generator)
        return {name: share * pictures[name] + (1 - share) * clips[name] for name in clips}

    def _loss(
        self, video: Float[Tensor, "B T C h w"], modality: Modality, generator: torch.Generator
    ) -> dict[str, Tensor]:
        grid, truth = self.encoder.grid(video), self._targets(video)
        terms = list[dict[str, Tensor]]()
        for kind, mask in enumerate(self.masks):
            seen, hidden = (x.to(video.device) for x in mask(grid, len(video), generator))
            features = self.encoder.forward_features(video, seen)
            context = features.levels if self.predictor.levels_in > 1 else features.tokens
            expected = _take(truth, hidden)
            if self.dense is None:
                prediction = self.predictor(context, seen, hidden, grid, kind, modality)
                found = {"loss": latent_regression(prediction, expected)}
            else:
                prediction, known = self.predictor.forward_dense(context, seen, hidden, grid, kind, modality)
                weights = distance_weights(grid_positions(seen, grid), grid_positions(hidden, grid))
                visible, factor = latent_regression(known, _take(truth, seen), weights), self.dense.at(self.step)
                found = {"loss": latent_regression(prediction, expected) + factor * visible}
                found |= {"dense": visible, "dense_weight": factor}
            terms.append(found | {"cosine": F.cosine_similarity(prediction.detach().float(), expected, dim=-1).mean()})
        return {name: torch.stack([term[name] for term in terms]).mean() for name in terms[0]}

    @torch.no_grad()
    def _targets(self, video: Float[Tensor, "B T C h w"]) -> Float[Tensor, "B L E"]:
        """Every level normalized by itself."""
        features = (self.encoder if self.target_encoder is None else self.target_encoder).forward_features(video)
        if self.predictor.levels_out == 1:
            return normalized(features.tokens)
        return normalized(features.levels.unflatten(-1, (self.predictor.levels_out, -1))).flatten(-2)

    @torch.no_grad()
    def after_step(self, step: int, total_steps: int) -> None:
        """Move a teacher that is a moving average towards the context encoder: θ' ← m θ' + (1 - m) θ."""
        self.step.fill_(step)
        if self.teacher != "ema" or self.target_encoder is None:
            return
        first, last = self.ema
        momentum = first + (last - first) * min(step / max(total_steps, 1), 1.0)
        move = get_ema_multi_avg_fn(momentum)
        move(list(self.target_encoder.parameters()), list(self.encoder.parameters()), step)

    def evaluation_encoder(self) -> VideoViT:
        """The moving average, if there is one: V-JEPA's probes read it."""
        return self.target_encoder if self.teacher == "ema" and self.target_encoder is not None else self.encoder

    def _check_widths(self) -> None:
        teacher = self.encoder if self.target_encoder is None else self.target_encoder
        if self.predictor.levels_in not in (1, self.encoder.level_count):
            raise ValueError(
                f"the predictor reads {self.predictor.levels_in} levels, the encoder gives {self.encoder.level_count}"
            )
        if self.predictor.levels_out not in (1, teacher.level_count):
            raise ValueError(
                f"the predictor gives {self.predictor.levels_out} levels, its teacher has {teacher.level_count}"
            )
        found, expected = self.predictor.predictor_proj.out_features, self.predictor.levels_out * teacher.width
        if found != expected:
            raise ValueError(f"the predictor gives {found} numbers a token, its teacher {expected}")
        if (teacher.patch, teacher.tubelet) != (self.encoder.patch, self.encoder.tubelet):
            raise ValueError(
                f"the teacher has patches of {teacher.patch} and tubelets of {teacher.tubelet}, the encoder of "
                f"{self.encoder.patch} and {self.encoder.tubelet}: they must see the same tokens"
            )


def _take(tokens: Float[Tensor, "B L D"], index: Int[Tensor, "B M"]) -> Float[Tensor, "B M D"]:
    return tokens.take_along_dim(index[..., None], 1)
