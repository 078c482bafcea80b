"""Batch transforms that run on the training device: uint8 clips to floats, crops, flips, color.

Every random draw comes from the generator that is passed, or from one generator per clip; it is made once per clip and
holds for all its frames: what moves in a clip afterwards moved before. Draws are made on the generator's device.

Shapes: B clips · T frames · C channels · h w pixels.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float, Shaped, UInt8
from torch import Tensor

from jepa_data.config import AugmentConfig
from jepa_data.devices import sent
from jepa_data.errors import DataError
from jepa_data.sampling import BOX_ATTEMPTS
from jepa_data.spatial.kinds import MAPS
from jepa_data.types import ClipBatch

IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)
LUMA = (0.299, 0.587, 0.114)  # ITU-R BT.601
YIQ = (LUMA, (0.5959, -0.2746, -0.3213), (0.2115, -0.5227, 0.3112))  # NTSC, 1953
UNCHANGED = AugmentConfig.model_validate({})


@dataclass(frozen=True)
class BatchPart:
    """A generator for a batch of `clips`, of which those from `first` on are here; the others are on other ranks."""

    generator: torch.Generator
    first: int
    clips: int


Random = torch.Generator | BatchPart | Sequence[torch.Generator]  # for all clips, or one for each


def to_input(
    batch: ClipBatch, augment: AugmentConfig, mean: Sequence[float] = IMAGENET_MEAN, std: Sequence[float] = IMAGENET_STD
) -> Float[Tensor, "B T C h w"]:
    """The video of a batch as a model sees it in training: changed at random, then normalized.

    What is drawn for a clip depends on its seed alone: not on the batch, the rank or the workers.
    """
    if augment == UNCHANGED:
        return normalize(batch.video, mean, std)
    assert batch.seeds is not None
    generators = [torch.Generator().manual_seed(seed) for seed in batch.seeds.tolist()]
    video = batch.video.float() / 255
    if augment.crop is not None:
        size = (video.shape[-2], video.shape[-1])
        video = random_resized_crop(video, size, augment.crop.scale, augment.crop.ratio, generator=generators)
    if augment.flip:
        video = random_flip(video, augment.flip, generator=generators)
    if augment.color:
        x = augment.color
        video = color_jitter(video, 0.8 * x, 0.8 * x, 0.4 * x, 0.2 * x, generator=generators)
    if augment.gray:
        video = random_greyscale(video, augment.gray, generator=generators)
    shift, scale = _channels((mean, std), video.device, video.dtype)
    return (video - shift) / scale


def spatial_to_input(batch: ClipBatch, augment: AugmentConfig) -> dict[str, Shaped[Tensor, "B T ..."]]:
    """`batch.spatial`, cropped and mirrored as `to_input` does it with the video. Colors do not concern it.

    Masks and depth take the nearest pixel. A mirrored keypoint keeps its name: the left hand is then on the right.

    Raises:
        DataError: poses are to be mirrored.
    """
    if augment.crop is None and not augment.flip:
        return batch.spatial
    assert batch.seeds is not None
    generators = [torch.Generator().manual_seed(seed) for seed in batch.seeds.tolist()]
    spatial = batch.spatial
    height, width = batch.video.shape[-2:]
    if augment.crop is not None:
        boxes = random_boxes(batch.video, augment.crop.scale, augment.crop.ratio, generator=generators)
        spatial = {kind: _crop_spatial(kind, x, boxes, (height, width)) for kind, x in spatial.items()}
    if augment.flip:
        if "pose" in spatial:
            raise DataError("data.augment.flip: poses are in the world and cannot be mirrored; leave flip or pose out")
        chosen = _chosen(batch.video, augment.flip, generators)[..., 0]
        for kind, x in spatial.items():
            mirrored = _mirror_points(x, width) if kind == "keypoints" else x.flip(-1)
            spatial = spatial | {kind: torch.where(chosen.to(x.device), mirrored, x)}
    return spatial


def normalize(
    video: UInt8[Tensor, "B T C h w"],
    mean: Sequence[float] = IMAGENET_MEAN,
    std: Sequence[float] = IMAGENET_STD,
    dtype: torch.dtype = torch.float32,
) -> Float[Tensor, "B T C h w"]:
    """0..255 to (value / 255 - mean) / std, channel by channel."""
    shift, scale = _channels((mean, std), video.device, dtype)
    return video.to(dtype).mul_(1 / (255 * scale)).sub_(shift / scale)


def zero_to_one(
    video: Float[Tensor, "*B C h w"], mean: Sequence[float] = IMAGENET_MEAN, std: Sequence[float] = IMAGENET_STD
) -> Float[Tensor, "*B C h w"]:
    """Inverse of `normalize`, as numbers in 0..1."""
    shift, scale = _channels((mean, std), video.device, video.dtype)
    return video * scale + shift


def unnormalize(
    video: Float[Tensor, "B T C h w"], mean: Sequence[float] = IMAGENET_MEAN, std: Sequence[float] = IMAGENET_STD
) -> UInt8[Tensor, "B T C h w"]:
    """Inverse of `normalize`, rounded and clipped to 0..255."""
    return (zero_to_one(video, mean, std) * 255).round().clamp(0, 255).to(torch.uint8)


def resize(video: Float[Tensor, "B T C h w"], size: int | tuple[int, int]) -> Float[Tensor, "B T C H W"]:
    """Scaled to `size` (side, or height and width); antialiased, bilinear."""
    height, width = video.shape[-2:]
    box = sent(torch.tensor([[0.0, 0.0, height, width]]), video.device).expand(len(video), 4)
    return crop_resize(video, box, size)


def crop_resize(
    video: Float[Tensor, "B T C h w"], boxes: Float[Tensor, "B 4"], size: int | tuple[int, int]
) -> Float[Tensor, "B T C H W"]:
    """One crop per clip, scaled to `size`: the whole batch in two matrix products.

    Args:
        boxes: top, left, height, width in pixels, inside the image. Pixels outside a box do not bleed into it.
    """
    height, width = (size, size) if isinstance(size, int) else size
    rows = _weights(boxes[:, 0], boxes[:, 2], video.shape[-2], height).to(video.dtype)
    columns = _weights(boxes[:, 1], boxes[:, 3], video.shape[-1], width).to(video.dtype)
    return rows[:, None, None] @ video @ columns[:, None, None].transpose(-1, -2)


def random_resized_crop(
    video: Float[Tensor, "B T C h w"],
    size: int | tuple[int, int],
    scale: tuple[float, float] = (0.3, 1.0),
    ratio: tuple[float, float] = (3 / 4, 4 / 3),
    *,
    generator: Random,
) -> Float[Tensor, "B T C H W"]:
    """A random part of each clip, scaled to `size`.

    Args:
        scale: range of the part's area, as a share of the image's.
        ratio: range of width / height, drawn evenly in its logarithm.
    """
    return crop_resize(video, random_boxes(video, scale, ratio, generator=generator), size)


def random_boxes(
    video: Shaped[Tensor, "B T C h w"],
    scale: tuple[float, float],
    ratio: tuple[float, float],
    *,
    generator: Random,
) -> Float[Tensor, "B 4"]:
    """Boxes (top, left, height, width) of whole pixels, as torchvision's RandomResizedCrop draws them."""
    height, width = video.shape[-2:]
    draws = sent(_draws(4, len(video), BOX_ATTEMPTS, generator), video.device)
    area = height * width * (scale[0] + draws[0] * (scale[1] - scale[0]))
    shape = torch.exp(math.log(ratio[0]) + draws[1] * (math.log(ratio[1]) - math.log(ratio[0])))
    wide = (area * shape).sqrt().round()
    high = (area / shape).sqrt().round()
    fits = (wide <= width) & (high <= height) & (wide > 0) & (high > 0)
    # argmax finds the first attempt that fits; where none does, the first attempt is cut to the image.
    chosen = fits.int().argmax(dim=1, keepdim=True)
    wide = wide.gather(1, chosen).squeeze(1).clamp(1, width)
    high = high.gather(1, chosen).squeeze(1).clamp(1, height)
    top = (draws[2, :, 0] * (height - high + 1)).floor()
    left = (draws[3, :, 0] * (width - wide + 1)).floor()
    return torch.stack([top, left, high, wide], dim=1)


def random_flip(
    video: Float[Tensor, "B T C h w"], probability: float = 0.5, *, generator: Random
) -> Float[Tensor, "B T C h w"]:
    """Some clips mirrored left to right. Their actions are not: for video without actions."""
    return torch.where(_chosen(video, probability, generator), video.flip(-1), video)


def random_greyscale(
    video: Float[Tensor, "B T 3 h w"], probability: float = 0.2, *, generator: Random
) -> Float[Tensor, "B T 3 h w"]:
    """Some clips without color. RGB in 0..1."""
    return torch.where(_chosen(video, probability, generator), _grey(video).expand_as(video), video)


def color_jitter(
    video: Float[Tensor, "B T 3 h w"],
    brightness: float = 0.4,
    contrast: float = 0.4,
    saturation: float = 0.2,
    hue: float = 0.1,
    *,
    generator: Random,
) -> Float[Tensor, "B T 3 h w"]:
    """Brightness, contrast, saturation and hue of each clip changed at random. RGB in 0..1, before and after.

    Args:
        brightness, contrast, saturation: factors are drawn from 1 - x .. 1 + x.
        hue: part of a full turn, -hue .. hue; turned about the gray axis in YIQ.
    """
    draws = sent(_draws(4, len(video), 1, generator)[..., 0], video.device).to(video.dtype)
    strengths = sent(torch.tensor([brightness, contrast, saturation, hue], dtype=video.dtype), video.device)
    change = ((2 * draws - 1) * strengths[:, None])[..., None, None, None, None]
    video = (video * (1 + change[0])).clamp(0, 1)
    mean = _grey(video).mean(dim=(1, 3, 4), keepdim=True)
    video = (mean + (video - mean) * (1 + change[1])).clamp(0, 1)
    gray = _grey(video)
    video = gray + (video - gray) * (1 + change[2])
    turn = _hue_matrix(change[3].flatten())
    return torch.einsum("bdc,btchw->btdhw", turn, video).clamp(0, 1)


def _crop_spatial(
    kind: str, x: Shaped[Tensor, "B T ..."], boxes: Float[Tensor, "B 4"], size: tuple[int, int]
) -> Shaped[Tensor, "B T ..."]:
    """An aligned array of clips of this height and width in a box of each, scaled back to it."""
    height, width = size
    boxes = boxes.to(x.device)
    if kind in MAPS:
        rows = (boxes[:, 0, None] + (torch.arange(height, device=x.device) + 0.5) * boxes[:, 2, None] / height).long()
        columns = (boxes[:, 1, None] + (torch.arange(width, device=x.device) + 0.5) * boxes[:, 3, None] / width).long()
        clips = torch.arange(len(x), device=x.device)[:, None, None]
        # Indexed by clip, row and column with the frames between: they come out last.
        return x[clips, :, rows[:, :, None], columns[:, None, :]].movedim(-1, 1)
    if kind != "keypoints":
        return x
    scale = torch.stack([width / boxes[:, 3], height / boxes[:, 2]], -1)[:, None, None]
    points = (x[..., :2] - boxes[:, None, None, [1, 0]]) * scale
    limits = torch.tensor([width, height], device=x.device)
    seen = ((points >= 0) & (points < limits)).all(-1, keepdim=True)
    return torch.cat([points, x[..., 2:] * seen], -1)


def _mirror_points(points: Float[Tensor, "B T K C"], width: int) -> Float[Tensor, "B T K C"]:
    return torch.cat([width - points[..., :1], points[..., 1:]], -1)


def _weights(
    start: Float[Tensor, " B"], length: Float[Tensor, " B"], pixels: int, out: int
) -> Float[Tensor, "B out pixels"]:
    """Triangle filters that scale `length` pixels from `start` to `out`, as wide as a pixel of the coarser grid."""
    step = (length / out)[:, None, None]
    center = start[:, None, None] + (torch.arange(out, device=start.device)[None, :, None] + 0.5) * step
    pixel = torch.arange(pixels, device=start.device) + 0.5
    weight = (1 - (pixel - center).abs() / step.clamp(min=1)).clamp(min=0)
    weight = weight * ((pixel > start[:, None, None]) & (pixel < (start + length)[:, None, None]))
    return weight / weight.sum(-1, keepdim=True)


def _hue_matrix(turns: Float[Tensor, " B"]) -> Float[Tensor, "B 3 3"]:
    """RGB to RGB, turning the color plane of YIQ by `turns` of a full circle."""
    yiq = torch.tensor(YIQ, dtype=torch.float64)
    to_yiq, from_yiq = (sent(x.to(turns.dtype), turns.device) for x in (yiq, torch.linalg.inv(yiq)))
    cos = torch.cos(2 * math.pi * turns)
    sin = torch.sin(2 * math.pi * turns)
    one = torch.ones_like(cos)
    zero = torch.zeros_like(cos)
    turn = torch.stack([one, zero, zero, zero, cos, -sin, zero, sin, cos], dim=1).view(-1, 3, 3)
    return from_yiq @ turn @ to_yiq


def _grey(video: Float[Tensor, "B T 3 h w"]) -> Float[Tensor, "B T 1 h w"]:
    return (video * _channels((LUMA,), video.device, video.dtype)).sum(2, keepdim=True)


def _chosen(video: Shaped[Tensor, "B T C h w"], probability: float, generator: Random) -> Tensor:
    draws = _draws(1, len(video), 1, generator)[0, :, 0]
    return sent(draws < probability, video.device)[:, None, None, None, None]


def _draws(count: int, clips: int, each: int, generator: Random) -> Float[Tensor, "count clips each"]:
    """Numbers in 0..1 for every clip."""
    if isinstance(generator, torch.Generator):
        return torch.rand(count, clips, each, generator=generator, device=generator.device)
    if isinstance(generator, BatchPart):
        return _draws(count, generator.clips, each, generator.generator).narrow(1, generator.first, clips)
    return torch.stack([torch.rand(count, each, generator=one, device=one.device) for one in generator], dim=1)


def _channels(values: Sequence[Sequence[float]], device: torch.device, dtype: torch.dtype) -> Float[Tensor, "n C 1 1"]:
    return sent(torch.tensor(values, dtype=dtype), device)[..., None, None]
