"""A conditional diffusion decoder: draws an image that fits the latents. Crisp where a regression would blur.

    latents ──→ tokens of context ───────────────┐ keys, values                     (one vector: 8 tokens)
    noised image ──patches──→ [ self-attention → cross-attention → MLP ] × depth ──→ estimate of the image
                                      │ scale, shift, gate
                        noise level + latents, pooled

The blocks are those of NWM's CDiT (jepa/cdit_network.py). The network estimates the image itself (x0) and is sampled
by DDIM in a few steps. Without a generator all images start from the same noise, so that a latent always gives the
same image, and a video does not flicker. What the latents do not say is made up: read crisp images with care.

Sources: NWM (2412.03572), DiT (2212.09748), DDIM (2010.02502).
"""

from itertools import pairwise
from typing import Literal, Self

import torch
from einops import rearrange
from jaxtyping import Float, Int
from pydantic import Field, model_validator
from torch import Tensor, nn
from torch.nn import functional as F

from jepa import diffusion
from jepa.cdit_network import CDiTBlock, CrossAttention, ScalarEmbedding
from jepa.config.fields import Count
from jepa.decoders.base import Decoder, DecoderConfig
from jepa.transformer import NORM_EPS

VECTOR_TOKENS = 8  # of context for latents that are one vector
NOISE_SEED = 0  # of the noise that all images start from without a generator
GRID = 8  # patches a side, if the config does not say


class DiffusionDecoder(Decoder):
    """Latents [B, N, D] -> images [B, 3, h, w] in 0..1, drawn.

    Raises:
        ValueError: the image is no multiple of the patch.
    """

    class Config(DecoderConfig):
        """A diffusion transformer (CDiT) that draws images which fit the latents."""

        kind: Literal["diffusion"] = "diffusion"
        hidden: Count = 128
        depth: Count = 3
        heads: Count = 4
        patch: Count | None = Field(default=None, description="pixels a side; none: an eighth of the image")
        draw_steps: int = Field(default=4, ge=1, le=diffusion.LEVELS, description="evaluations for one image (DDIM)")

        @model_validator(mode="after")
        def _fits(self) -> Self:
            if self.hidden % self.heads:
                raise ValueError(f"heads: hidden {self.hidden} does not divide into {self.heads}")
            return self

    mean: Tensor
    std: Tensor
    base: Tensor
    peak_lr = 2e-3
    draws = True

    def __init__(self, config: Config, tokens: int, width: int, image_size: int) -> None:
        super().__init__(config, tokens, width, image_size)
        patch = config.patch or max(1, image_size // GRID)
        if image_size % patch:
            raise ValueError(f"patch: expected a divisor of the image's {image_size} pixels, found {patch}")
        self.patch = patch
        count = (image_size // patch) ** 2
        hidden = config.hidden
        numbers = 3 * patch**2
        self.register_buffer("mean", torch.zeros(width))
        self.register_buffer("std", torch.ones(width))
        self.register_buffer("base", torch.zeros(3, image_size, image_size))  # the mean image, in -1..1
        context = VECTOR_TOKENS if tokens == 1 else tokens
        self.read = nn.Linear(width, hidden * VECTOR_TOKENS if tokens == 1 else hidden)
        self.read_positions = nn.Parameter(0.02 * torch.randn(context, hidden))
        self.pooled = nn.Sequential(nn.Linear(width, hidden), nn.SiLU(), nn.Linear(hidden, hidden))
        self.level = ScalarEmbedding(hidden)
        self.embed = nn.Linear(numbers, hidden)
        self.positions = nn.Parameter(0.02 * torch.randn(count, hidden))
        self.blocks = nn.ModuleList(CDiTBlock(hidden, config.heads) for _ in range(config.depth))
        self.norm = nn.LayerNorm(hidden, NORM_EPS, elementwise_affine=False)
        self.modulation = nn.Linear(hidden, 2 * hidden)
        self.out = nn.Linear(hidden, numbers)
        self._initialize()

    def prepare(self, latents: Float[Tensor, "M N D"], mean_image: Float[Tensor, "3 h w"]) -> None:
        """Standardize the latents and start from the mean image."""
        flat = latents.flatten(0, 1)
        self.mean.copy_(flat.mean(0))
        self.std.copy_(flat.std(0, correction=0).clamp_min(1e-6))
        self.base.copy_(2 * mean_image - 1)

    def error(
        self,
        z: Float[Tensor, "B N D"],
        target: Float[Tensor, "B 3 h w"],
        weight: Float[Tensor, "B 1 h w"],
        generator: torch.Generator,
    ) -> Float[Tensor, ""]:
        """Weighted squared error of the estimate at a random noise level."""
        x0 = 2 * target - 1
        t = torch.randint(diffusion.LEVELS, (len(x0),), generator=generator).to(x0.device)
        noise = torch.randn(x0.shape, generator=generator).to(x0.device)
        estimate = self.estimate(diffusion.noised(x0, t, noise), t, *self._given(z))
        return (weight * (estimate - x0).square()).mean() / 4  # in 0..1, as that of other decoders

    def images(self, z: Float[Tensor, "B N D"], generator: torch.Generator | None = None) -> Float[Tensor, "B 3 h w"]:
        given = self._given(z)
        size = (3, self.image_size, self.image_size)
        if generator is None:
            generator = torch.Generator().manual_seed(NOISE_SEED)
            x = torch.randn(size, generator=generator).to(z.device).expand(len(z), *size)
        else:
            x = torch.randn((len(z), *size), generator=generator).to(z.device)
        levels = [*diffusion.trailing_levels(self.config.draw_steps), -1]
        for t, s in pairwise(levels):
            at = torch.full((len(z),), t, device=z.device)
            x = diffusion.ddim_step(x, self.estimate(x, at, *given).clamp(-1, 1), at, torch.full_like(at, s))
        return (x.clamp(-1, 1) + 1) / 2

    def estimate(
        self,
        x: Float[Tensor, "B 3 h w"],
        t: Int[Tensor, " B"],
        context: Float[Tensor, "B K W"],
        condition: Float[Tensor, "B W"],
    ) -> Float[Tensor, "B 3 h w"]:
        """The image, from a noised one at level t; before fitting, the mean image."""
        side = self.image_size // self.patch
        patches = rearrange(x, "b c (y p) (x q) -> b (y x) (p q c)", p=self.patch, q=self.patch)
        condition = condition + self.level(t.float())
        tokens = self.embed(patches) + self.positions
        for block in self._blocks():
            tokens = block(tokens, context, condition)
        scale, shift = self.modulation(F.silu(condition))[:, None].chunk(2, -1)
        patches = self.out(self.norm(tokens) * (1 + scale) + shift)
        pattern = "b (y x) (p q c) -> b c (y p) (x q)"
        return self.base + rearrange(patches, pattern, y=side, p=self.patch, q=self.patch)

    @torch.no_grad()
    def _initialize(self) -> None:
        """DiT's: Xavier; modulations and the output 0, so that fitting starts from the mean image."""
        for name, module in self.named_modules():
            if isinstance(module, nn.Linear):
                nn.init.xavier_uniform_(module.weight)
                nn.init.zeros_(module.bias)
                if name.endswith("modulation") or name == "out":
                    nn.init.zeros_(module.weight)
            if isinstance(module, CrossAttention):
                nn.init.xavier_normal_(module.learned)

    def _given(self, z: Float[Tensor, "B N D"]) -> tuple[Float[Tensor, "B K W"], Float[Tensor, "B W"]]:
        """What every evaluation reads of the latents: tokens of context, and the condition."""
        self._check(z)
        z = (z - self.mean) / self.std
        context = self.read(z)
        if self.shape[0] == 1:
            context = context.view(len(z), VECTOR_TOKENS, -1)
        return context + self.read_positions, self.pooled(z.mean(1))

    def _blocks(self) -> list[CDiTBlock]:
        return list(self.blocks)  # pyright: ignore[reportReturnType] - ModuleList forgets its type
