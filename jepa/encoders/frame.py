"""Picture backbones on video: any timm model reads each frame on its own, one latent step a frame.

    video [B, T, C, h, w] → [B*T, C, h, w] → timm's forward_features
                                              ├ tokens: its patch tokens or last feature map    [B, S=T, N=h'w', D]
                                              └ pooled: what its classifier would read          [B, S=T, 1, D]
                                                        and an MLP with BatchNorm behind it, if asked for (LeWM)

The names are timm's (`timm.list_models()`): vit_tiny_patch16_224, vit_small_patch14_dinov2.lvd142m, resnet18, … Nothing
else is imported and no file or hub is named by them. Frames come in normalized by ImageNet's mean and deviation, which
is what most of these backbones were trained with. Encoders of single frames see no motion: a predictor has to.
"""

import difflib
from typing import Any, Literal

import timm
import torch
from jaxtyping import Float
from torch import Tensor, nn

from jepa.config import first_line
from jepa.transformer import Grid

Output = Literal["tokens", "pooled"]


class FrameEncoder(nn.Module):
    """A timm backbone applied to each frame.

    Attributes: tubelet (1), width D, tokens N at `image_size`.

    Args:
        model: a name of timm's, with the tag of the weights after a dot if there are several.
        image_size: height and width in pixels; a transformer's position table is made for it.
        pretrained: start from timm's weights, which are downloaded once, instead of random ones.
        output: what a frame becomes (figure above). Prefix tokens (CLS, registers) are not given out as tokens.
        patch: side of a transformer's patches in pixels; None: what the model's name says.
        projection: hidden units of the MLP behind `pooled`; None: there is none.

    Raises:
        ValueError: timm has no such model, its weights cannot be had, or it cannot read pictures of this size.
    """

    tubelet = 1

    def __init__(
        self,
        model: str,
        image_size: int,
        *,
        pretrained: bool = False,
        output: Output = "tokens",
        patch: int | None = None,
        projection: int | None = None,
    ):
        super().__init__()
        if projection is not None and output != "pooled":
            raise ValueError("a projection reads one vector a frame: use it with output: pooled")
        self.image_size, self.output, self.projector = image_size, output, None
        self.backbone = _backbone(model, image_size, pretrained, patch)
        self.backbone.eval()  # batch statistics are not for the picture of zeros
        weight = next(self.backbone.parameters())
        try:
            with torch.no_grad():
                z = self(torch.zeros(1, 1, 3, image_size, image_size, dtype=weight.dtype, device=weight.device))
        except (RuntimeError, ValueError) as error:
            raise ValueError(f"{model} cannot read pictures of {image_size} px: {first_line(error)}") from error
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
        """Latents of each frame, normalized frames in; S = T.

        Raises ValueError if the backbone is made of patches that do not divide the frames, or for another size.
        """
        features = self._features(video)
        if self.output == "tokens":
            z = self._map(features, video).flatten(1, 2)
        else:
            z = self.backbone.forward_head(features, pre_logits=True)  # pyright: ignore[reportCallIssue]
            z = (z if self.projector is None else self.projector(z))[:, None]
        return z.unflatten(0, video.shape[:2])

    def feature_map(self, video: Float[Tensor, "B T C h w"]) -> Float[Tensor, "B S hh ww D"]:
        """The last feature map of each frame, whatever `output` is."""
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
            last = getattr(self.backbone, "output_fmt", "NCHW") == "NHWC"
            return features if last else features.permute(0, 2, 3, 1)
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
        near = difflib.get_close_matches(model, names, n=1)
        raise ValueError(
            f"timm {timm.__version__} has no model '{model}'"
            + (f"; did you mean '{near[0]}'?" if near else "; `timm.list_models()` lists what it has")
        )


def _backbone(model: str, image_size: int, pretrained: bool, patch: int | None) -> nn.Module:
    _check_name(model)
    try:
        described = timm.get_pretrained_cfg(model, allow_unregistered=False)
        # Transformers are built for one size; convolutions take any, and have no such argument.
        sized: dict[str, Any] = {"img_size": image_size} if described is not None and described.fixed_input_size else {}
        sized |= {} if patch is None else {"patch_size": patch}
        return timm.create_model(model, pretrained=pretrained, num_classes=0, **sized)
    except (OSError, RuntimeError, TypeError, AssertionError) as error:
        weights = " with its weights" if pretrained else ""
        raise ValueError(f"timm cannot make {model}{weights} at {image_size} px: {first_line(error)}") from error


def _patch(backbone: nn.Module) -> tuple[int, int]:
    """Height and width of the patches that the backbone is made of; 1, 1 if it does not say."""
    patch = getattr(getattr(backbone, "patch_embed", None), "patch_size", 1)
    return (patch, patch) if isinstance(patch, int) else tuple(patch)


def _token_grid(backbone: nn.Module, tokens: int, height: int, width: int) -> tuple[int, int]:
    """Rows and columns of patch tokens; a square if the backbone does not say."""
    down, across = _patch(backbone)
    if (height // down) * (width // across) == tokens:
        return height // down, width // across
    side = round(tokens**0.5)
    if side * side != tokens:
        raise ValueError(f"{tokens} tokens of {type(backbone).__name__} are no square; use output: pooled")
    return side, side
