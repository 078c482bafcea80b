"""An encoder followed by reductions of its tokens: fewer or narrower ones, to store and to train dynamics on.

    video ──→ encoder ──→ [B, S, N, D] ──→ reduction ──→ … ──→ [B, S, M, E]

`jepa compress` fits the reductions to the latents of a frozen encoder and writes a model folder with both, so all that
takes a model takes it: probes, `jepa data tokenize`, `method.encoder_from`. A config of `jepa pretrain` may describe
one too; its reductions are then fitted to clips before training.

Like every frozen encoder here, it makes single latent steps: a video encoder is given one frame at a time, as by
`method.encoder_from`.
"""

from typing import Annotated, Any, Literal, Self

import torch
from jaxtyping import Float
from pydantic import Field, WithJsonSchema, field_validator
from torch import Tensor

from jepa.config import part
from jepa.encoders import ENCODERS
from jepa.encoders.base import EncoderConfig
from jepa.encoders.module import CLIPS_TO_FIT, Encoder
from jepa.encoders.reductions import REDUCTIONS
from jepa.encoders.reductions.base import ReductionConfig, TokenLayout
from jepa.encoders.reductions.chain import Chain, fit

CLIPS_AT_ONCE = 16


class CompressedEncoder(Encoder):
    """Video [B, T, 3, h, w] to the reduced tokens of another encoder.

    Args:
        encoder: described by `config.of`; None: a new one. Its weights are stored under "encoder.".

    Raises:
        ValueError: as that encoder; a reduction does not fit its tokens.
    """

    class Config(EncoderConfig):
        """An encoder, and reductions of its tokens."""

        kind: Literal["compressed"] = "compressed"
        # Its schema is cut short here: an encoder that may hold an encoder would never end.
        of: Annotated[EncoderConfig, part(ENCODERS), WithJsonSchema({"type": "object"})] = Field(
            description="the encoder: one of the kinds of `encoder`, but for this"
        )
        reductions: tuple[Annotated[ReductionConfig, part(REDUCTIONS)], ...] = Field(
            min_length=1, description="of its tokens, one after the other"
        )
        encoder_sha256: str | None = Field(
            default=None, description="of the tensors of the encoder that the reductions were fitted to"
        )

        @field_validator("of")
        @classmethod
        def _single_steps(cls, of: EncoderConfig) -> EncoderConfig:
            if of.kind == "compressed":
                raise ValueError("expected an encoder of another kind than compressed; list all reductions in one")
            return of.per_frame()

        @property
        def tubelet(self) -> int:  # pyright: ignore[reportIncompatibleVariableOverride]
            """Frames per latent step, those of the encoder."""
            return self.of.tubelet

        @property
        def has_weights(self) -> bool:
            return self.of.has_weights

        @property
        def may_skip_parameters(self) -> bool:
            return self.of.may_skip_parameters

        def without_weights(self) -> Self:
            """The same config with random weights."""
            return self.model_copy(update={"of": self.of.without_weights()})

        def weights_key(self) -> dict[str, Any]:
            """Those of the encoder, and the reductions."""
            return {"of": self.of.weights_key(), "reductions": [each.model_dump() for each in self.reductions]}

        def summary(self) -> str:
            reduced = " then ".join(each.short for each in self.reductions)
            return ", ".join(filter(None, (self.of.summary(), f"reduced by {reduced}")))

    config: Config

    def __init__(self, config: Config, image_size: int, frames: int, *, encoder: Encoder | None = None) -> None:
        super().__init__()
        self.config = config
        self.encoder: Encoder = encoder or ENCODERS.make(config.of, image_size, frames)
        self.image_size = self.encoder.image_size
        self.tubelet = self.encoder.tubelet
        self.encoder_layout = TokenLayout.square(self.encoder.tokens, self.encoder.width)
        self.chain = Chain(config.reductions, self.encoder_layout)
        self.tokens, self.width = self.chain.layout.tokens, self.chain.layout.width
        fitted = any(reduction.from_data for reduction in self.chain.reductions)
        self.clips_to_fit = max(self.encoder.clips_to_fit, CLIPS_TO_FIT if fitted else 0)

    @classmethod
    def around(cls, encoder: Encoder, chain: Chain, encoder_sha256: str) -> "CompressedEncoder":
        """An encoder with fitted reductions of its tokens; one that is compressed already gets them after its own."""
        added = tuple(reduction.config for reduction in chain.reductions)
        fitted = chain.reductions
        if isinstance(encoder, CompressedEncoder):
            added = (*encoder.config.reductions, *added)
            fitted = [*encoder.chain.reductions, *fitted]
            encoder_sha256 = encoder.config.encoder_sha256 or encoder_sha256
            encoder = encoder.encoder
        values = {"of": encoder.config, "reductions": added, "encoder_sha256": encoder_sha256}
        config = cls.Config.model_validate(values)
        made = cls(config, encoder.image_size, encoder.tubelet, encoder=encoder)
        for ours, theirs in zip(made.chain.reductions, fitted, strict=True):
            ours.load_state_dict(theirs.state_dict())
        return made

    def forward(self, video: Float[Tensor, "B T C h w"]) -> Float[Tensor, "B S M E"]:
        """Raises ValueError as the encoder."""
        return self.chain(self.encoder(video))

    def feature_map(self, video: Float[Tensor, "B T C h w"]) -> Float[Tensor, "B S hh ww D"]:
        """What the reductions left of the encoder's tokens, where these lie in the image; for visualization."""
        grid = self.encoder_layout.grid or (1, self.encoder_layout.tokens)
        return self.chain.expand(self(video)).unflatten(2, grid)

    @torch.no_grad()
    def fit(self, video: Float[Tensor, "B T C h w"]) -> None:
        """Compute the reductions from clips. Raises ValueError if these are too few."""
        if self.encoder.clips_to_fit:
            self.encoder.fit(video)
        training = self.training
        self.eval()
        fit([self.chain], lambda: (self.encoder(part).flatten(0, 1) for part in video.split(CLIPS_AT_ONCE)))
        self.train(training)
