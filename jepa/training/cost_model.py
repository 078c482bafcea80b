"""What a V-JEPA step costs, from the config alone: parameters, tokens, memory, floating-point operations.

A clip is L tokens: S steps of N. Each kind of mask shows the context encoder a part M of them; its predictor sees all.

    parameters of a block       (4 + 2r) D²  +  (9 + r) D                r: mlp_ratio, D: width
    kept for the backward pass  M (10 + 2r) D numbers a block: input, two norms, q k v before and after their turn,
                                attention and its copy, the middle of the MLP before and after GELU
    operations, forward         M (8 D² + 4r D² + 4 M D) a block; backward twice as many
    weights                     4 bytes, as much for the gradient, twice for AdamW; teacher 4 bytes; bf16 copies 2

The numbers kept are those that torch saves for this repository's blocks, in fp32 (4 bytes) and under bf16 autocast (2);
tests compare them, and the peak memory of a step on a CPU, with what is measured. On GPUs norms run in fp32 under
autocast, for which 8 bytes a token and block are added: that, and what other programs hold there, was not measured.
"""

from dataclasses import dataclass
from typing import cast

from jepa.config import Component, UserError
from jepa.encoders.video_vit import VideoViT
from jepa.masks import MASKS
from jepa.masks.multiblock import MultiBlock, target_cells
from jepa.methods.vjepa import VJEPA
from jepa.training.config import PretrainConfig

PREDICTOR_MLP = 4.0  # jepa/predictors/masked.py
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
    """

    encoder: int
    predictor: int
    tokens: int
    flops: float
    fixed_bytes: int
    clip_bytes: int

    def memory(self, batch_size: int) -> int:
        """Bytes at the peak of a step."""
        return round(SLACK * (self.fixed_bytes + batch_size * self.clip_bytes))


def step_size(config: PretrainConfig, *, bf16: bool, gpu: bool) -> StepSize:
    """Raises UserError for other methods and encoders than V-JEPA with a video ViT."""
    encoder, method, size = config.encoder, config.method, config.data.image_size
    if encoder is None or encoder.kind != "video_vit" or method.kind != "vjepa" or size is None:
        raise UserError("only steps of method vjepa with encoder video_vit and data.image_size can be estimated")
    encoder = cast(VideoViT.Config, encoder)
    method = cast(VJEPA.Config, method)
    side, steps = size // encoder.patch, config.data.clip_frames // encoder.tubelet
    tokens, pixels = steps * side**2, 3 * encoder.tubelet * encoder.patch**2
    width, narrow, depth = encoder.width, method.predictor.width, method.predictor.depth
    context = [tokens - steps * target_cells(_blocks(mask), side, side) for mask in method.masks]
    flops, kept, number = 0.0, 0.0, 2 if bf16 else 4
    for visible in context:
        flops += 3 * (_flops(visible, width, encoder.depth, encoder.mlp_ratio) + 2 * visible * width * pixels)
        flops += 3 * (_flops(tokens, narrow, depth, PREDICTOR_MLP) + 2 * tokens * width * narrow)
        kept += _kept(visible, width, encoder.depth, encoder.mlp_ratio, number, gpu and bf16)
        kept += _kept(tokens, narrow, depth, PREDICTOR_MLP, number, gpu and bf16)
        kept += number * visible * pixels + 4 * 2 * (tokens - visible) * width  # patches; prediction and target
    flops += _flops(tokens, width, encoder.depth, encoder.mlp_ratio) + 2 * tokens * width * pixels  # the teacher
    # Its widest moment stays behind until the memory is given to others; the video itself is there in fp32.
    kept += number * tokens * width * (4 + 2 * encoder.mlp_ratio) + 4 * tokens * pixels
    whole = _parameters(width, encoder.depth, encoder.mlp_ratio) + pixels * width + width
    part = _parameters(narrow, depth, PREDICTOR_MLP) + 2 * width * narrow + narrow + width
    part += len(method.masks) * narrow
    trained, teacher = whole + part, whole if method.teacher == "ema" else 0
    fixed = 16 * trained + 4 * teacher + (2 * trained if bf16 else 0)
    return StepSize(whole, part, tokens, flops, fixed, round(kept))


def _blocks(mask: Component) -> MultiBlock:
    if mask.kind != "multiblock":
        raise UserError(f"only steps with masks of kind multiblock can be estimated, found {mask.kind}")
    return MASKS.make(mask)


def _parameters(width: int, depth: int, ratio: float) -> int:
    """Of blocks and their last norm."""
    hidden = int(width * ratio)
    return depth * (4 * width**2 + 4 * width + 2 * width * hidden + hidden + width + 4 * width) + 2 * width


def _flops(tokens: int, width: int, depth: int, ratio: float) -> float:
    return depth * tokens * (8 * width**2 + 4 * ratio * width**2 + 4 * tokens * width)


def _kept(tokens: int, width: int, depth: int, ratio: float, number: int, wide_norms: bool) -> float:
    return depth * tokens * width * (number * (10 + 2 * ratio) + (8 if wide_norms else 0))
