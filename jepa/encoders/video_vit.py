"""Video vision transformer: tubelets to tokens. Dropped tokens are not computed.

    video [B, T, C, h, w]  →  patches of tubelet x patch x patch pixels  →  [B, S, N, D],  S = T / tubelet
    token s*N + i*w' + j  is step s, row i, column j;  N = h' w' = (h / patch) (w / patch)

V-JEPA (arXiv 2404.08471) and V-JEPA 2 (arXiv 2506.09985) use bidirectional attention and no CLS token; LeVJEPA
(arXiv 2608.27395) reads a CLS token and attends block-causally:

    reads →        cls  step 0  step 1  step 2          each step reads itself and the past,
    cls             x     x       x       x             CLS reads everything,
    step 0                x                             no patch reads CLS
    step 1                x       x
    step 2                x       x       x             causal: the same, token by token

V-JEPA 2.1 outputs several levels of blocks, each with its own LayerNorm, and has a separate patch embedding for images.
A learned vector, added to each token, marks video or image:

    clip of T frames  → patch_embed       + video_token ─┐                 ┌ block 11 → norms.3 ┐
                                                         ├→ blocks 0 … 11 ─┤ …                  ├→ levels [B, M, 4D]
    clip of one frame → patch_embed_image + image_token ─┘  (images=True)  └ block 2  → norms.0 ┘

Positions are rotary (jepa/transformer.py has both kinds), or V-JEPA 1's sines and cosines added to the tokens.

Forward FLOPs for M tokens: M * (2*D*C*tubelet*patch² + depth * (8*D² + 4*D²*mlp_ratio + 4*M*D)). CLS adds one token;
attention masks save no FLOPs.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal, Self, cast

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Complex, Float, Int
from pydantic import Field, model_validator
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from jepa.config.fields import Count, Positive
from jepa.encoders import ENCODERS
from jepa.encoders.base import EncoderConfig
from jepa.encoders.module import Encoder
from jepa.encoders.patches import PatchEmbed
from jepa.encoders.sizes import SIZES
from jepa.transformer import (
    NORM_EPS,
    Block,
    Grid,
    Modality,
    Positions,
    grid_positions,
    initialize,
    rotary_table,
    sincos_table,
)

Attends = Literal["bidirectional", "causal", "block_causal"]


@dataclass(frozen=True)
class Features:
    """Features of a clip: its tokens in the order of `keep` (otherwise all), and CLS if the encoder has one.

    `levels`: the concatenated tokens of all levels, ending with the last level (`tokens`); E = level_count * D.
    """

    tokens: Float[Tensor, "B M D"]
    cls: Float[Tensor, "B D"] | None
    levels: Float[Tensor, "B M E"]


class VideoViT(Encoder):
    """Vision transformer over tubelets.

    Attributes: tubelet, patch, width, image_size, frames; tokens, N at `image_size`; level_count. Clips of
    other lengths and sizes, square or not, are valid if tubelet and patch divide them: positions are relative.

    Args:
        image_size, frames, channels: of the training clips.
    """

    class Config(EncoderConfig):
        """h/patch x w/patch tokens per latent step."""

        kind: Literal["video_vit"] = "video_vit"
        size: Literal["tiny", "small", "base", "large", "huge", "giant", "gigantic"] | None = Field(
            default=None, description="a published size, instead of width, depth, heads and mlp_ratio"
        )
        patch: Count = 16
        tubelet: Count = 2
        width: Count = 192
        depth: Count = 12
        heads: Count = 3
        mlp_ratio: Positive = Field(default=4.0, description="hidden width of the MLPs, relative to `width`")
        cls_token: bool = Field(default=False, description="prepend a learned token that summarizes the clip")
        attention: Attends = Field(
            default="bidirectional",
            description="attention to all tokens, to those before, or to those of the same and earlier steps",
        )
        positions: Positions = Field(
            default="rotary",
            description="position encoding: rotary is V-JEPA 2.1's; rotary_tiled and sincos are for "
            "the published weights of V-JEPA 2 and 1",
        )
        # V-JEPA 2.1: at depth 12 (2, 5, 8, 11), 24 (5, 11, 17, 23), 40 (9, 19, 29, 39), 48 (11, 23, 37, 47).
        levels: tuple[int, ...] = Field(
            default=(), description="output blocks, from 0, including the last; (): only the last"
        )
        position_grid: Count | None = Field(
            default=None, description="spread rows and columns over this many positions; V-JEPA 2.1: 16"
        )
        images: bool = Field(default=False, description="clips of one frame are images, with a separate embedding")
        checkpoint_every: int = Field(
            default=0,
            ge=0,
            description="recompute every n-th block in the backward pass: 1 saves the most memory and takes about a "
            "third more time; 0 keeps everything",
        )

        @model_validator(mode="after")
        def _fill_size(self) -> Self:
            """`size: base` sets width, depth, heads and mlp_ratio."""
            if self.size is None:
                return self
            for name, value in vars(SIZES[self.size]).items():
                if name in self.model_fields_set and (given := getattr(self, name)) != value:
                    raise ValueError(
                        f"size {self.size} has {name} {value:.6g}, found {given}; leave out one of the two"
                    )
                object.__setattr__(self, name, value)  # frozen, but still under construction
            return self

        @property
        def may_skip_parameters(self) -> bool:
            """A batch of only images, or only video, does not use the other patch embedding."""
            return self.images

        def per_frame(self) -> EncoderConfig:
            """Applied to single frames, as in V-JEPA 2-AC."""
            return cast(EncoderConfig, ENCODERS.config("per_frame").model_validate({"of": self}))

        def weights_key(self) -> dict[str, Any]:
            """Excludes the name of the size and the checkpointing."""
            return self.model_dump(exclude={"size", "checkpoint_every"})

        def summary(self) -> str:
            return f"depth {self.depth}"

    config: Config

    def __init__(self, config: Config, image_size: int, frames: int, *, channels: int = 3) -> None:
        super().__init__()
        if channels < 1:
            raise ValueError(f"channels is at least 1, found {channels}")
        self.config = config
        self.image_size = image_size
        self.frames = frames
        self.patch = config.patch
        self.tubelet = config.tubelet
        self.width = config.width
        self.heads = config.heads
        self.attention: Attends = config.attention
        self.positions: Positions = config.positions
        self.levels = config.levels
        self.level_count = max(1, len(self.levels))
        self.given_out = _given_out(self.levels, config.depth)
        self.position_grid = config.position_grid
        self.images = config.images
        self.checkpoint_every = config.checkpoint_every
        self._make_layers(channels)
        _, rows, columns = self._grid(frames, image_size, image_size)
        self.tokens = rows * columns
        initialize(self, list(self.blocks))  # pyright: ignore[reportArgumentType] - ModuleList forgets its type

    def _make_layers(self, channels: int) -> None:
        c = self.config
        width = c.width
        self.patch_embed = PatchEmbed(c.tubelet, c.patch, channels, width)
        self.cls_token = nn.Parameter(torch.empty(1, 1, width).normal_(std=0.02)) if c.cls_token else None
        self.blocks = nn.ModuleList([Block(width, c.heads, c.mlp_ratio) for _ in range(c.depth)])
        if c.levels:
            self.norms = nn.ModuleList([nn.LayerNorm(width, NORM_EPS) for _ in c.levels])
        else:
            self.norm = nn.LayerNorm(width, NORM_EPS)
        if c.images:
            self.patch_embed_image = PatchEmbed(1, c.patch, channels, width)
            # V-JEPA 2.1 initializes them close to zero.
            self.video_token = nn.Parameter(torch.empty(1, 1, width).normal_(std=1e-6))
            self.image_token = nn.Parameter(torch.empty(1, 1, width).normal_(std=1e-6))

    def forward(
        self, video: Float[Tensor, "B T C h w"], keep: Int[Tensor, "B M"] | None = None
    ) -> Float[Tensor, "B S N D"] | Float[Tensor, "B M D"]:
        """Normalized video to the tokens of the last level.

        Without `keep`: all tokens, `[B, S, N, D]`. With `keep`: only these flat token indices are computed, and attend
        to each other: `[B, M, D]` in the order of `keep`. ValueError if tubelet or patch do not divide the clips.
        """
        last = self._outputs(video, keep, self.given_out)[-1]
        tokens = self._normed(last, -1)[:, self.summaries :]
        return tokens if keep is not None else tokens.unflatten(1, (self.grid(video)[0], -1))

    def forward_features(self, video: Float[Tensor, "B T C h w"], keep: Int[Tensor, "B M"] | None = None) -> Features:
        """Normalized video to the tokens of every level and CLS."""
        return self.read_out(self._outputs(video, keep, self.given_out))

    def forward_intermediates(
        self, video: Float[Tensor, "B T C h w"], indices: Sequence[int], keep: Int[Tensor, "B M"] | None = None
    ) -> list[Float[Tensor, "B M D"]]:
        """Outputs of these blocks, without the final LayerNorm, in the order of `indices`.

        Args:
            indices: block numbers, from 0; -1 is the last. Later blocks are not computed.
        """
        depth = len(self.blocks)
        if not indices or not all(-depth <= index < depth for index in indices):
            raise ValueError(f"indices name blocks 0 to {depth - 1}, or -1 to {-depth} from the end; found {indices}")
        wanted = [index % depth for index in indices]
        blocks = sorted(set(wanted))
        outputs = dict(zip(blocks, self._outputs(video, keep, blocks), strict=True))
        return [outputs[number][:, self.summaries :] for number in wanted]

    def feature_map(self, video: Float[Tensor, "B T C h w"]) -> Float[Tensor, "B S hh ww D"]:
        """The tokens of the last level as a map [rows, columns], for dense tasks and visualization."""
        _, rows, columns = self.grid(video)
        return self(video).unflatten(2, (rows, columns))

    def grid(self, video: Float[Tensor, "B T C h w"]) -> Grid:
        """Steps, rows and columns of the tokens of `video`; ValueError if tubelet or patch do not divide it."""
        return self._grid(video.shape[1], *video.shape[-2:])

    # The parts of a forward pass, which jepa/agents/streaming.py also uses.

    @property
    def summaries(self) -> int:
        """Number of tokens before the patch tokens."""
        return int(self.config.cls_token)

    def embed(
        self,
        video: Float[Tensor, "B T C h w"],
        keep: Int[Tensor, "B M"] | None,
        positions: Float[Tensor, "#B M 3"],
        modality: Modality,
    ) -> Float[Tensor, "B L D"]:
        """The input of the first block: CLS, if there is one, and the tokens."""
        embed = self.patch_embed if modality == "video" else self.patch_embed_image
        x = embed(video, keep)
        if self.images:
            x = x + (self.video_token if modality == "video" else self.image_token).to(x.dtype)
        if self.positions == "sincos":
            x = x + sincos_table(positions, self.width).to(x.dtype)
        if self.cls_token is not None:
            x = torch.cat((self.cls_token.expand(x.shape[0], -1, -1).to(x.dtype), x), 1)
        return x

    def rotary_table(self, positions: Float[Tensor, "B M 3"]) -> Complex[Tensor, "B L R P"] | None:
        """Rotary angles of CLS, which is at the origin, and the tokens; None if positions are added."""
        if self.positions == "sincos":
            return None
        return rotary_table(F.pad(positions, (0, 0, self.summaries, 0)), self.width // self.heads, self.positions)

    def read_out(self, outputs: Sequence[Float[Tensor, "B L D"]]) -> Features:
        """The outputs of the blocks in `given_out` to features."""
        normed = [self._normed(x, level) for level, x in enumerate(outputs)]
        tokens = [x[:, self.summaries :] for x in normed]
        levels = tokens[0] if len(tokens) == 1 else torch.cat(tokens, -1)
        return Features(tokens[-1], normed[-1][:, 0] if self.summaries else None, levels)

    def _outputs(
        self, video: Float[Tensor, "B T C h w"], keep: Int[Tensor, "B M"] | None, wanted: Sequence[int]
    ) -> list[Float[Tensor, "B L D"]]:
        """Outputs of the blocks in `wanted`, in ascending order; later blocks are not computed."""
        grid = self.grid(video)
        index = torch.arange(math.prod(grid), device=video.device)[None] if keep is None else keep
        positions = grid_positions(index, grid, self.position_grid)
        x = self.embed(video, keep, positions, self._modality(video.shape[1]))
        rotary = self.rotary_table(positions)
        mask = self._mask(index, grid)
        outputs = []
        every = self.checkpoint_every
        for number, block in enumerate(self.blocks[: wanted[-1] + 1]):
            if every and (number + 1) % every == 0 and torch.is_grad_enabled():
                x = checkpoint(block, x, rotary, mask, use_reentrant=False, preserve_rng_state=False)
            else:
                x = block(x, rotary, mask)
            if number in wanted:
                outputs.append(x)
        return outputs

    def _normed(self, x: Float[Tensor, "B L D"], level: int) -> Float[Tensor, "B L D"]:
        if self.levels:
            return self.norms[level](x)
        return self.norm(x)

    def _modality(self, frames: int) -> Modality:
        return "image" if self.images and frames == 1 else "video"

    def _grid(self, frames: int, height: int, width: int) -> Grid:
        tubelet = {"image": 1, "video": self.tubelet}[self._modality(frames)]
        if frames % tubelet or not frames:
            raise ValueError(f"{frames} frames do not divide into tubelets of {tubelet}")
        if height % self.patch or width % self.patch or not height or not width:
            raise ValueError(f"frames of {height}x{width} pixels do not divide into patches of {self.patch}")
        return frames // tubelet, height // self.patch, width // self.patch

    def _mask(self, index: Int[Tensor, "B M"], grid: Grid) -> Bool[Tensor, "B 1 L L"] | None:
        """True where the row may read the column; CLS, if there is one, is row and column 0."""
        if self.attention == "bidirectional":
            return None
        if self.attention == "block_causal":
            index = index // (grid[1] * grid[2])
        mask = index[:, :, None] >= index[:, None, :]
        if self.cls_token is not None:
            mask = F.pad(F.pad(mask, (1, 0), value=False), (0, 0, 1, 0), value=True)
        return mask[:, None]


def _given_out(levels: tuple[int, ...], depth: int) -> tuple[int, ...]:
    """The output blocks; ValueError if they do not include the last, or are not in ascending order."""
    numbers = levels or (depth - 1,)
    if numbers[-1] != depth - 1 or list(numbers) != sorted(set(numbers)) or numbers[0] < 0:
        raise ValueError(
            f"levels are block numbers in ascending order that end with the last block, {depth - 1} at depth {depth}; "
            f"found {list(levels)}"
        )
    return numbers
