"""Image backbones on video: any timm model, applied to each frame; one latent step per frame.

    video [B, T, C, h, w] → [B*T, C, h, w] → timm's forward_features
                                              ├ tokens: its patch tokens or last feature map    [B, S=T, N=h'w', D]
                                              └ pooled: the input of its classifier             [B, S=T, 1, D]
                                                        optionally followed by an MLP with BatchNorm (LeWM)

The names are timm's (`timm.list_models()`): vit_tiny_patch16_224, vit_small_patch14_dinov2.lvd142m, resnet18, … A
name cannot refer to a file, a hub or Python code. Frames are normalized by ImageNet's mean and standard deviation, as
in the training of most of these backbones. Encoders of single frames see no motion: the predictor needs a history.
"""

from typing import Any, Literal, Self

import timm
import torch
from jaxtyping import Float
from pydantic import Field
from timm.layers.helpers import to_2tuple
from torch import Tensor, nn

from jepa.config import first_line
from jepa.config.errors import did_you_mean
from jepa.config.fields import Count
from jepa.encoders.base import EncoderConfig
from jepa.encoders.module import Encoder
from jepa.transformer import Grid

Output = Literal["tokens", "pooled"]


class FrameEncoder(Encoder):
    """A timm backbone applied to each frame.

    Attributes: tubelet (1), width D, tokens N at `image_size`.

    Args:
        config: with `pretrained`, timm's weights are downloaded.
        image_size: height and width in pixels; sets the position embedding of transformers.
        frames: of the clips; any number.

    Raises:
        ValueError: timm has no such model, its weights cannot be downloaded, or it does not support this image size.
    """

    tubelet = 1

    class Config(EncoderConfig):
        """A timm model applied to each frame."""

        kind: Literal["frame"] = "frame"
        model: str = Field(
            description="a timm model, such as vit_tiny_patch16_224 or resnet18; after a dot, the tag of the "
            "weights if there are several"
        )
        pretrained: bool = Field(default=False, description="download timm's weights and start from them")
        output: Output = Field(
            default="tokens",
            description="what a frame becomes: its patch tokens (without CLS and registers) or last feature map, or "
            "pooled, the one vector that the model's classifier would read",
        )
        patch: Count | None = Field(
            default=None, description="patch size of a transformer, in pixels; none: that of the model name"
        )
        projection: Count | None = Field(
            default=None, description="with pooled: hidden units of an MLP with BatchNorm after it, as in LeWM"
        )
        tubelet: Literal[1] = 1

        @property
        def width(self) -> int:
            """D of the latents, from timm."""
            return latent_width(self.model, self.output)

        @property
        def has_weights(self) -> bool:
            return self.pretrained

        def without_weights(self) -> Self:
            """The same config with random weights, without a download."""
            return self.model_copy(update={"pretrained": False})

        def weights_key(self) -> dict[str, Any]:
            """Excludes `pretrained`."""
            return self.model_dump(exclude={"pretrained"})

    def __init__(self, config: Config, image_size: int, frames: int) -> None:
        super().__init__()
        projection = config.projection
        if projection is not None and config.output != "pooled":
            raise ValueError("a projection reads one vector a frame: use it with output: pooled")
        self.config = config
        self.image_size = image_size
        self.output = config.output
        self.backbone = _backbone(config, image_size)
        self.projector = nn.Identity()
        self.backbone.eval()  # batch statistics are not for the image of zeros
        weight = next(self.backbone.parameters())
        try:
            with torch.no_grad():
                z = self(torch.zeros(1, 1, 3, image_size, image_size, dtype=weight.dtype, device=weight.device))
        except (RuntimeError, ValueError) as error:
            raise ValueError(f"{config.model} cannot read images of {image_size} px: {first_line(error)}") from error
        self.backbone.train()
        self.tokens, self.width = z.shape[2:]
        if projection is not None:
            self.projector = nn.Sequential(
                nn.Linear(self.width, projection),
                nn.BatchNorm1d(projection),
                nn.GELU(),
                nn.Linear(projection, self.width),
            )

    def forward(self, video: Float[Tensor, "B T C h w"]) -> Float[Tensor, "B S N D"]:
        """Normalized frames to latents of each frame; S = T.

        Raises ValueError if the patch size does not divide the frames, or the backbone needs another image size.
        """
        features = self._features(video)
        if self.output == "tokens":
            z = self._map(features, video).flatten(1, 2)
        else:
            z = self.backbone.forward_head(features, pre_logits=True)  # pyright: ignore[reportCallIssue]
            z = self.projector(z)[:, None]
        return z.unflatten(0, video.shape[:2])

    def feature_map(self, video: Float[Tensor, "B T C h w"]) -> Float[Tensor, "B S hh ww D"]:
        """The last feature map of each frame, independent of `output`."""
        return self._map(self._features(video), video).unflatten(0, video.shape[:2])

    @torch.no_grad()
    def grid(self, video: Float[Tensor, "B T C h w"]) -> Grid:
        """Steps, rows and columns of the feature map of `video`; the first frame is run through the backbone."""
        _, _, rows, columns, _ = self.feature_map(video[:1, :1]).shape
        return video.shape[1], rows, columns

    def _features(self, video: Float[Tensor, "B T C h w"]) -> Tensor:
        height, width = video.shape[-2:]
        down, across = _patch(self.backbone)
        if height % down or width % across:
            raise ValueError(f"frames of {height}x{width} pixels do not divide into patches of {down}x{across}")
        try:
            return self.backbone.forward_features(video.flatten(0, 1))  # pyright: ignore[reportCallIssue]
        except AssertionError as error:  # how timm refuses another size than the one it was made for
            raise ValueError(f"{type(self.backbone).__name__} for {self.image_size} px: {error}") from error

    def _map(self, features: Tensor, video: Float[Tensor, "B T C h w"]) -> Float[Tensor, "M hh ww D"]:
        if features.ndim == 4:
            if getattr(self.backbone, "output_fmt", "NCHW") == "NHWC":
                return features
            return features.permute(0, 2, 3, 1)
        tokens = features[:, getattr(self.backbone, "num_prefix_tokens", 0) :]
        rows, columns = _token_grid(self.backbone, tokens.shape[1], video.shape[-2], video.shape[-1])
        return tokens.unflatten(1, (rows, columns))


def latent_width(model: str, output: Output) -> int:
    """D of the latents of a FrameEncoder, without its weights. Raises ValueError if timm has no such model."""
    _check_name(model)
    with torch.device("meta"):
        backbone = timm.create_model(model, num_classes=0)
    width: int = backbone.num_features if output == "tokens" else backbone.head_hidden_size  # pyright: ignore
    return width


def _check_name(model: str) -> None:
    names = timm.list_models()
    if model.partition(".")[0] not in names:
        near = did_you_mean(model, names) or "; `timm.list_models()` lists what it has"
        raise ValueError(f"timm {timm.__version__} has no model '{model}'{near}")


def _backbone(config: FrameEncoder.Config, image_size: int) -> nn.Module:
    model = config.model
    _check_name(model)
    try:
        pretrained_cfg = timm.get_pretrained_cfg(model, allow_unregistered=False)
        # Transformers are built for one size; convolutions take any, and have no such argument.
        sized = dict[str, Any]()
        if pretrained_cfg is not None and pretrained_cfg.fixed_input_size:
            sized["img_size"] = image_size
        if config.patch is not None:
            sized["patch_size"] = config.patch
        return timm.create_model(model, pretrained=config.pretrained, num_classes=0, **sized)
    except (OSError, RuntimeError, TypeError, AssertionError) as error:
        weights = " with its weights" if config.pretrained else ""
        raise ValueError(f"timm cannot make {model}{weights} at {image_size} px: {first_line(error)}") from error


def _patch(backbone: nn.Module) -> tuple[int, int]:
    """Height and width of the patches that the backbone is made of; 1, 1 if it does not say."""
    height, width = to_2tuple(getattr(getattr(backbone, "patch_embed", None), "patch_size", 1))
    return int(height), int(width)


def _token_grid(backbone: nn.Module, tokens: int, height: int, width: int) -> tuple[int, int]:
    """Rows and columns of patch tokens; a square if the backbone does not say."""
    down, across = _patch(backbone)
    if (height // down) * (width // across) == tokens:
        return height // down, width // across
    side = round(tokens**0.5)
    if side * side != tokens:
        raise ValueError(f"{tokens} tokens of {type(backbone).__name__} are no square; use output: pooled")
    return side, side
