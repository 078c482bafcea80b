"""Attentive probe: a learned query reads all tokens of a clip, as V-JEPA's evaluations do (arXiv 2404.08471).

    tokens [S, N, D] -> linear to `width`, + time (sin-cos) + place (learned) -> `depth` self-attention blocks
                     -> one cross-attention with a learned query, MLP -> class

V-JEPA 2 uses three self-attention blocks and 16 heads; here the default is none and 4, sized for hundreds of clips.
Time is added, so the order of the steps can be read: what only motion shows is not averaged away.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from jaxtyping import Float, Int
from pydantic import Field
from torch import Tensor, nn
from torch.nn import functional as F

from jepa.config import Component
from jepa.config.fields import Count, Positive
from jepa_probes.probing.base import ClassProbe, FittedProbe
from jepa_probes.probing.reduction import Reduction


class AttentiveProbe(ClassProbe):
    """AdamW for a fixed number of steps, cosine down to zero; nothing is chosen by looking at scores."""

    class Config(Component):
        """A learned query that reads all tokens of a clip."""

        kind: Literal["attentive"] = "attentive"
        components: Count = Field(
            default=256, description="wider tokens are first reduced to this many principal components"
        )
        width: Count = 64
        heads: Count = 4
        depth: int = Field(default=0, ge=0, description="self-attention blocks before the query reads")
        steps: Count = Field(default=150, description="optimizer steps")
        batch_size: Count = 64
        lr: Positive = 2e-3
        weight_decay: float = Field(default=0.05, ge=0)

    config: Config

    def __init__(self, config: Config) -> None:
        super().__init__(config)
        if config.depth and config.width % config.heads:
            raise ValueError(f"width must be a multiple of heads ({config.heads}), found {config.width}")

    def fit(
        self,
        latents: Float[Tensor, "n S N D"],
        target: Int[Tensor, " n"],
        keys: Sequence[str],
        classes: int,
        *,
        seed: int,
    ) -> "FittedAttentive":
        settings = self.config
        reduction = Reduction.fit(latents.flatten(0, 2), settings.components)
        tokens = reduction(latents)
        _, steps, count, width = tokens.shape
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            classifier = AttentiveClassifier(
                steps, count, width, classes, width=settings.width, heads=settings.heads, depth=settings.depth
            )
        generator = torch.Generator().manual_seed(seed)
        optimizer = torch.optim.AdamW(
            classifier.parameters(), settings.lr, weight_decay=settings.weight_decay, fused=True
        )
        schedule = torch.optim.lr_scheduler.LambdaLR(
            optimizer, lambda s: 0.5 * (1 + math.cos(math.pi * s / settings.steps))
        )
        size = min(settings.batch_size, len(tokens))
        for index in _batches(len(tokens), size, settings.steps, generator):
            optimizer.zero_grad()
            F.cross_entropy(classifier(tokens[index]), target[index]).backward()
            optimizer.step()
            schedule.step()
        return FittedAttentive(reduction, classifier.eval())


class AttentiveClassifier(nn.Module):
    """Tokens [B, S, N, D] to class scores [B, C]."""

    def __init__(
        self, steps: int, tokens: int, token_width: int, classes: int, *, width: int, heads: int, depth: int
    ) -> None:
        super().__init__()
        self.enter = nn.Linear(token_width, width)
        self.time: Tensor
        self.register_buffer("time", _time_embedding(steps, width), persistent=False)
        # As large as time, so that either can be attended to.
        self.position = nn.Parameter(0.5 * torch.randn(tokens, width))
        self.blocks = nn.ModuleList(
            nn.TransformerEncoderLayer(width, heads, 2 * width, 0.0, F.gelu, batch_first=True, norm_first=True)
            for _ in range(depth)
        )
        self.norm = nn.LayerNorm(width)
        # With one fixed query, keys and values need no projection token by token: a head's query times its key matrix
        # is one vector, and its value and output matrices are applied to what it has read.
        self.queries = nn.Parameter(torch.randn(width, heads) * 0.02)
        self.gather = nn.Linear(heads * width, width)
        self.mlp = nn.Sequential(
            nn.LayerNorm(width), nn.Linear(width, 2 * width), nn.GELU(), nn.Linear(2 * width, width)
        )
        self.leave = nn.Sequential(nn.LayerNorm(width), nn.Linear(width, classes))

    def forward(self, tokens: Float[Tensor, "B S N D"]) -> Float[Tensor, "B C"]:
        x = (self.enter(tokens) + self.time[:, None] + self.position).flatten(1, 2)
        for block in self.blocks:
            x = block(x)
        x = self.norm(x)
        attention = (x @ self.queries).softmax(1)  # [B, S*N, heads]
        read = self.gather((attention.transpose(1, 2) @ x).flatten(1))
        return self.leave(read + self.mlp(read))


@dataclass(frozen=True)
class FittedAttentive(FittedProbe):
    """A trained classifier and the scaling of its tokens."""

    reduction: Reduction
    classifier: AttentiveClassifier

    @torch.no_grad()
    def __call__(self, latents: Float[Tensor, "n S N D"]) -> Int[Tensor, " n"]:
        return torch.cat([self.classifier(self.reduction(part)).argmax(1) for part in latents.split(64)])


def _batches(clips: int, size: int, steps: int, generator: torch.Generator) -> list[Int[Tensor, " b"]]:
    """Every clip once before any comes again, batch after batch."""
    epochs = -(-steps * size // clips)
    order = torch.cat([torch.randperm(clips, generator=generator) for _ in range(epochs)])
    return list(order[: steps * size].split(size))


def _time_embedding(steps: int, width: int) -> Float[Tensor, "S W"]:
    """Sines and cosines of the step's number, from a period of 2 pi steps up to 100 times that."""
    rates = 100.0 ** -(torch.arange(0, width, 2) / width)
    angles = torch.arange(steps)[:, None] * rates
    return torch.stack((angles.sin(), angles.cos()), -1).flatten(1)[:, :width]
