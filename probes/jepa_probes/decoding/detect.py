"""Is the object there, and where: a detector that knows the world's truth, by color.

    true frames + masks of a clip ──→ the color of each class
    frame ──→ evidence of an object at each pixel, 0..1 ──→ the place where most of it is: peak, then centroid

A pixel is evidence of an object as far as it lies on the way from the color of another class to that of the object;
of all other classes, the nearest one counts. So a faint dot on the floor is weak evidence and a pixel of the wall none.
Truth is the centroid of the same evidence in the true frame, within the mask and a pixel around it.

Objects of one color cannot be told apart, and are not looked for.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, UInt8
from torch import Tensor
from torch.nn import functional as F

from jepa_probes.decoding.replay import Truth
from jepa_probes.decoding.result import Found

PRESENT = 0.25  # share of its evidence in the true frame that an object must show to be found
WHOLE = 0.5  # share of its usual area of which an object must be seen to be looked for
APART = 0.15  # smallest distance between two colors that are told apart, in 0..1


@dataclass(frozen=True)
class Sought:
    """One object in the frames of one clip.

    Attributes:
        seen: in which frames there is enough of it.
        place, strength: in the true frames.
        radius: of the object in pixels.
    """

    seen: Bool[Tensor, " S"]
    place: Float[Tensor, "S 2"]
    strength: Float[Tensor, " S"]
    radius: float


def find_objects(
    true: UInt8[Tensor, "E S 3 h w"],
    decoded: UInt8[Tensor, "E S 3 h w"],
    truth: Truth,
    near: float,
) -> dict[str, Found]:
    """Where the objects of a world are in decoded frames, compared with the true ones.

    Args:
        near: pixels within which an object counts as found in its place.

    Returns:
        By name; objects that are never seen, or are not told apart by color, are missing.
    """
    masks = torch.from_numpy(truth.masks).long()
    rows: dict[str, list[Tensor]] = {name: [] for name in truth.objects}
    for clip in range(len(true)):
        frames, shown = (video[clip].cpu().float() / 255 for video in (true, decoded))
        colors = class_colors(frames, masks[clip], len(truth.names))
        for name in truth.objects:
            number = truth.names.index(name)
            sought = _sought(frames, masks[clip] == number, colors, number)
            if sought is None:
                continue
            columns = []
            for video in (shown, frames):
                place, strength = locate(evidence(video, colors, number), sought.radius)
                columns += [(place - sought.place).norm(dim=-1), strength / sought.strength.clamp_min(1e-6)]
            rows[name].append(torch.stack(columns, 1)[sought.seen])
    return {name: _summary(torch.cat(parts), near) for name, parts in rows.items() if parts and len(torch.cat(parts))}


def class_colors(frames: Float[Tensor, "S 3 h w"], masks: Tensor, classes: int) -> dict[int, Float[Tensor, "3"]]:
    """Median color of each class that is there."""
    pixels = frames.movedim(1, -1)
    return {number: pixels[masks == number].median(0).values for number in range(classes) if (masks == number).any()}


def evidence(
    frames: Float[Tensor, "S 3 h w"], colors: Mapping[int, Float[Tensor, "3"]], number: int
) -> Float[Tensor, "S h w"]:
    """How much each pixel speaks for class `number`, 0..1."""
    best = torch.ones(frames.shape[0], *frames.shape[2:])
    for other, color in colors.items():
        way = colors[number] - color
        if other != number and way.norm() >= APART:
            along = ((frames - color[:, None, None]) * way[:, None, None]).sum(1) / way.square().sum()
            best = torch.minimum(best, along.clamp(0, 1))
    return best


def locate(
    proof: Float[Tensor, "S h w"], radius: float, within: Bool[Tensor, "S h w"] | None = None
) -> tuple[Float[Tensor, "S 2"], Float[Tensor, " S"]]:
    """Place x, y in pixels where most evidence is, and how much is there.

    Args:
        radius: of the object in pixels; evidence is summed over about its size.
        within: pixels to look at; None: all.
    """
    strong = proof.square()
    if within is not None:
        strong = strong * within
    reach = max(1, round(radius))
    summed = F.avg_pool2d(F.pad(strong[:, None], (reach,) * 4), 2 * reach + 1, 1)[:, 0]
    strength, index = summed.flatten(1).max(1)
    y, x = index // proof.shape[2], index % proof.shape[2]
    rows = torch.arange(proof.shape[1])[None, :, None]
    columns = torch.arange(proof.shape[2])[None, None]
    around = (rows - y[:, None, None]).square() + (columns - x[:, None, None]).square() <= (radius + 2) ** 2
    weight = strong * around
    total = weight.sum((1, 2)).clamp_min(1e-9)
    place = torch.stack([((columns + 0.5) * weight).sum((1, 2)), ((rows + 0.5) * weight).sum((1, 2))], 1)
    return place / total[:, None], strength


def _sought(
    frames: Float[Tensor, "S 3 h w"], mask: Bool[Tensor, "S h w"], colors: Mapping[int, Tensor], number: int
) -> Sought | None:
    """An object of a clip; None if it is not there, or has the color of another class."""
    area = mask.sum((1, 2))
    if not area.any() or any(
        (colors[number] - color).norm() < APART for other, color in colors.items() if other != number
    ):
        return None
    seen = area >= max(1.0, WHOLE * area[area > 0].float().median().item())
    radius = _radius(mask[seen])
    around = F.max_pool2d(mask[:, None].float(), 3, 1, 1)[:, 0] > 0
    place, strength = locate(evidence(frames, colors, number), radius, around)
    return Sought(seen, place, strength, radius)


def _radius(mask: Bool[Tensor, "S h w"]) -> float:
    """Mean distance of an object's farthest pixel from its middle."""
    farthest = []
    for frame in mask:
        pixels = frame.nonzero().float()
        farthest.append((pixels - pixels.mean(0)).norm(dim=1).max() + 0.5)
    return float(torch.stack(farthest).mean())


def _summary(rows: Float[Tensor, "n 4"], near: float) -> Found:
    """Of decoded frames: distance and relative strength; then the same of the true frames."""
    distance, strength, floor = rows[:, 0], rows[:, 1], rows[:, 2]
    found = strength >= PRESENT
    return Found(
        frames=len(rows),
        found=float(found.float().mean()),
        median=float(distance.median()),
        p90=float(distance.quantile(0.9)),
        near=float((found & (distance <= near)).float().mean()),
        floor=float(floor.median()),
    )
