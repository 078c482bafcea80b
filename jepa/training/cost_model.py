"""What a V-JEPA step costs, from the config alone: parameters, tokens, memory, floating-point operations.

A clip is L tokens: S steps of N. Each kind of mask shows the context encoder a part M of them; its predictor sees all.

    kept for the backward pass  M (10 + 2r) D numbers a block: input, two norms, q k v before and after their turn,
                                attention and its copy, the middle of the MLP before and after GELU; with
                                encoder.checkpoint_every only the input     r: mlp_ratio, D: width
    operations, forward         M (8 D² + 4r D² + 4 M D) a block; backward twice as many
    weights                     4 bytes, as much for the gradient, twice for AdamW; teacher 4 bytes; bf16 copies 2

The numbers kept are those that torch saves for this repository's blocks, in fp32 (4 bytes) and under bf16 autocast (2);
tests compare them, and the peak memory of a step on a CPU, with what is measured. On GPUs norms run in fp32 under
autocast, for which 8 bytes a token and block are added: that, and what other programs hold there, was not measured.
"""

from dataclasses import dataclass
from typing import cast

import torch

from jepa.config import Component, UserError
from jepa.encoders.video_vit import VideoViT
from jepa.masks import MASKS
from jepa.masks.multiblock import MultiBlock, target_cells
from jepa.methods.vjepa import VJEPA
from jepa.training.build_method import build_method
from jepa.training.config import PretrainConfig
from jepa.transformer import Block

SLACK = 1.15  # rotary tables, workspaces, fragments


@dataclass(frozen=True)
class StepSize:
    """What one training step takes.

    Attributes:
        encoder, predictor: parameters.
        tokens: of a clip.
        flops: of a clip, forward and backward.
        fixed_bytes: weights, gradients, optimizer and teacher.
        clip_bytes: of a clip, kept for the backward pass.
        block_bytes: weights of the largest block, and its gradient, which devices gather that share the weights.
    """

    encoder: int
    predictor: int
    tokens: int
    flops: float
    fixed_bytes: int
    clip_bytes: int
    block_bytes: int

    def fixed(self, shards: int = 1) -> int:
        """Bytes that do not depend on the batch.

        Args:
            shards: devices that share them (FSDP2). They gather two blocks at a time, the one at work and the next.
        """
        return self.fixed_bytes if shards == 1 else self.fixed_bytes // shards + 2 * self.block_bytes

    def memory(self, batch_size: int, shards: int = 1) -> int:
        """Bytes at the peak of a step; `shards` as in `fixed`."""
        return round(SLACK * (self.fixed(shards) + batch_size * self.clip_bytes))


@dataclass(frozen=True)
class Blocks:
    """Transformer blocks and their last norm."""

    width: int
    depth: int
    mlp_ratio: float

    def flops(self, tokens: int) -> float:
        """Of the forward pass."""
        return self.depth * tokens * (8 * self.width**2 + 4 * self.mlp_ratio * self.width**2 + 4 * tokens * self.width)

    def kept(self, tokens: int, number: int, norms: int, recomputed: int = 0) -> float:
        """Bytes for the backward pass, where a number takes `number` of them, and norms `norms` a token and channel.

        Args:
            recomputed: blocks of which only the input is kept; one of them at a time is whole, in the backward pass.
        """
        inputs = recomputed * tokens * self.width * number
        whole = self.depth - recomputed + min(1, recomputed)
        return inputs + whole * tokens * self.width * (number * (10 + 2 * self.mlp_ratio) + norms)


def step_size(config: PretrainConfig, *, bf16: bool, gpu: bool) -> StepSize:
    """Raises UserError for other methods and encoders than V-JEPA with a video ViT."""
    encoder = config.encoder
    size = config.data.image_size
    if encoder is None or encoder.kind != "video_vit" or config.method.kind != "vjepa" or size is None:
        raise UserError("only steps of method vjepa with encoder video_vit and data.image_size can be estimated")
    encoder = cast(VideoViT.Config, encoder)
    method = cast(VJEPA.Config, config.method)
    vit = Blocks(encoder.width, encoder.depth, encoder.mlp_ratio)
    predictor = Blocks(method.predictor.width, method.predictor.depth, method.predictor.mlp_ratio)
    side = size // encoder.patch
    steps = config.data.clip_frames // encoder.tubelet
    tokens = steps * side**2
    pixels = 3 * encoder.tubelet * encoder.patch**2
    number = 2 if bf16 else 4
    norms = 8 * (gpu and bf16)
    every = encoder.checkpoint_every
    recomputed = encoder.depth // every if every else 0
    levels = max(1, len(encoder.levels))
    target = levels * vit.width
    # The teacher sees all. Its widest moment stays behind until the memory is given to others; the video itself is
    # there in fp32.
    flops = vit.flops(tokens) + 2 * tokens * vit.width * pixels
    kept = number * tokens * vit.width * (4 + 2 * vit.mlp_ratio) + 4 * tokens * pixels
    for mask in method.masks:
        visible = tokens - steps * target_cells(_blocks(mask), side, side)
        flops += 3 * (vit.flops(visible) + 2 * visible * vit.width * pixels)
        flops += 3 * (predictor.flops(tokens) + tokens * (vit.width + target) * predictor.width)
        kept += vit.kept(visible, number, norms, recomputed) + predictor.kept(tokens, number, norms)
        predicted = tokens - visible if method.dense is None else tokens
        kept += number * visible * pixels + 4 * 2 * predicted * target  # patches; prediction and target
    with torch.device("meta"):  # sizes without memory
        built = build_method(config, size, 0)
    whole = sum(p.numel() for p in built.encoder.parameters())
    part = sum(p.numel() for p in built.parameters() if p.requires_grad) - whole
    fixed = (16 + 2 * bf16) * (whole + part) + 4 * whole * (method.teacher == "ema")
    blocks = [sum(p.numel() for p in m.parameters()) for m in built.modules() if isinstance(m, Block)]
    return StepSize(whole, part, tokens, flops, fixed, round(kept), (8 + 2 * bf16) * max(blocks))


def _blocks(mask: Component) -> MultiBlock:
    if mask.kind != "multiblock":
        raise UserError(f"only steps with masks of kind multiblock can be estimated, found {mask.kind}")
    return MASKS.make(mask)
