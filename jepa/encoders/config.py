"""What a config says of an encoder. Imports no torch."""

from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from jepa.config import Config
from jepa.config.fields import Count, Positive
from jepa.encoders.sizes import SIZES


class ConvConfig(Config):
    """jepa/encoders/conv.py: one vector per latent step."""

    kind: Literal["conv"] = "conv"
    width: Count = 64
    tubelet: Count = 2
    channels: Count = 32
    hidden: Count = 256


class ImpalaConfig(Config):
    """jepa/encoders/impala.py: one vector per latent step, as EB-JEPA and PLDM have it."""

    kind: Literal["impala"] = "impala"
    width: Count = 512
    tubelet: Count = 1
    channels: Annotated[tuple[Count, ...], Field(min_length=1)] = (16, 32, 32)
    blocks: Count = 2


class VideoViTConfig(Config):
    """jepa/encoders/video_vit.py: h/patch x w/patch tokens per latent step."""

    kind: Literal["video_vit"] = "video_vit"
    size: Literal["tiny", "small", "base", "large", "huge", "giant", "gigantic"] | None = Field(
        default=None, description="a published size, in place of width, depth, heads and mlp_ratio"
    )
    patch: Count = 16
    tubelet: Count = 2
    width: Count = 192
    depth: Count = 12
    heads: Count = 3
    mlp_ratio: Positive = 4.0
    cls_token: bool = False
    attention: Literal["bidirectional", "causal", "block_causal"] = "bidirectional"
    positions: Literal["rotary", "rotary_tiled", "sincos"] = "rotary"
    levels: tuple[int, ...] = Field(default=(), description="blocks given out, from 0; (): the last alone")
    position_grid: Count | None = None
    images: bool = False
    checkpoint_every: int = Field(default=0, ge=0, description="recompute every n-th block in the backward pass")

    @model_validator(mode="after")
    def _fill_size(self) -> Self:
        """`size: base` says width, depth, heads and mlp_ratio."""
        for name, value in vars(SIZES[self.size]).items() if self.size else ():
            if name in self.model_fields_set and (given := getattr(self, name)) != value:
                raise ValueError(f"size {self.size} has {name} {value:.6g}, found {given}; leave out one of the two")
            object.__setattr__(self, name, value)  # frozen, but nobody has seen it yet
        return self


class FrameConfig(Config):
    """jepa/encoders/frame.py: a timm model applied to each frame."""

    kind: Literal["frame"] = "frame"
    model: str = Field(description="a name of timm's, such as vit_tiny_patch16_224 or resnet18")
    pretrained: bool = Field(default=False, description="start from timm's weights, which are downloaded once")
    output: Literal["tokens", "pooled"] = "tokens"
    patch: Count | None = Field(default=None, description="of a transformer, in pixels; none: what its name says")
    projection: Count | None = Field(
        default=None, description="with pooled: hidden units of an MLP with BatchNorm behind it, as LeWM has"
    )
    tubelet: Literal[1] = 1

    @property
    def width(self) -> int:
        """D of the latents. Only timm knows it, so asking imports torch."""
        from jepa.encoders.frame import latent_width

        return latent_width(self.model, self.output)


class PerFrameConfig(Config):
    """jepa/encoders/per_frame.py: a video encoder that is shown one frame at a time."""

    kind: Literal["per_frame"] = "per_frame"
    of: VideoViTConfig
    layer_norm: bool = True
    tubelet: Literal[1] = 1

    @property
    def width(self) -> int:
        """D of the latents."""
        return self.of.width


Encoder = Annotated[
    ConvConfig | ImpalaConfig | VideoViTConfig | FrameConfig | PerFrameConfig, Field(discriminator="kind")
]
