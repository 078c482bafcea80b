"""The kinds of arrays that may belong to the T frames of a video, and what is checked of them.

    kind        shape               dtype              numbers
    mask        [T, h, w]           uint8              class or instance of each pixel, 0..255
    depth       [T, h, w]           float16, float32   distance along the optical axis, at least 0; NaN: not known
    keypoints   [T, K, 2 or 3]      float32            x, y in pixels of the video, visibility 0..1; NaN: does not exist
    pose        [T, P, 3 or 7]      float32            x, y, angle in radians; or x, y, z and the quaternion w, x, y, z

Masks and depth cover the whole image, at its own resolution or another. x points to the right and y downwards; (0, 0)
is the upper left corner of the image, so the middle of its first pixel is (0.5, 0.5). A pose is in the world, not in
the image: cropping and scaling do not change it, and it cannot be mirrored.
"""

from typing import Any, Literal, Self

import numpy as np
from pydantic import ValidationError, model_validator

from jepa.config import Config
from jepa_data.errors import DataError

Kind = Literal["mask", "depth", "keypoints", "pose"]
KINDS: tuple[Kind, ...] = ("mask", "depth", "keypoints", "pose")
MAPS = ("mask", "depth")  # a number for each pixel
SHAPES = {
    "mask": "[T, h, w]",
    "depth": "[T, h, w]",
    "keypoints": "[T, K, 2 or 3] (x, y in pixels, visibility)",
    "pose": "[T, P, 3 or 7] (x, y, angle; or x, y, z and a quaternion w, x, y, z)",
}
DTYPES = {"mask": ("uint8",), "depth": ("float16", "float32"), "keypoints": ("float32",), "pose": ("float32",)}
COLUMNS = {"keypoints": (2, 3), "pose": (3, 7)}
UNIT_SLACK = 1e-2  # of the length of a quaternion
PRECISIONS = Literal["uint8", "float16", "float32"]


class SpatialInfo(Config):
    """One kind of array in a folder of shards, as its manifest describes it.

    `shape`: of one frame; None where it differs between videos (the sides of maps). `names`: of the classes of a mask
    (value i is names[i]), of the keypoints, or of the bodies that have a pose; () if they have none. `unit`: of depth
    and positions of poses, such as "m".
    """

    kind: Kind
    shape: tuple[int | None, ...]
    dtype: PRECISIONS
    names: tuple[str, ...] = ()
    unit: str | None = None

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        if problem := self._problem():
            raise ValueError(problem)
        return self

    @property
    def member(self) -> str:
        """Ending of its file in a shard."""
        return member_of(self.kind)

    def text(self) -> str:
        """In a line, for people: `mask 64x64 uint8 (table, puck)`."""
        shape = "x".join("?" if side is None else str(side) for side in self.shape)
        names = f" ({', '.join(self.names)})" if self.names else ""
        return f"{self.kind} {shape} {self.dtype}{f' in {self.unit}' if self.unit else ''}{names}"

    def problem(self, array: np.ndarray, frames: int) -> str | None:
        """What is wrong with the array of a video of so many frames, expected and found; None: nothing."""
        fits = array.ndim == 1 + len(self.shape) and all(
            want in (None, side) for want, side in zip(self.shape, array.shape[1:], strict=True)
        )
        if len(array) != frames or not fits or array.dtype.name != self.dtype:
            sides = ", ".join("any" if side is None else str(side) for side in self.shape)
            actual = f"{array.dtype.name} of shape {list(array.shape)}"
            return f"{self.kind}: expected {self.dtype} of shape [{frames}, {sides}], found {actual}"
        if detail := _CHECKS[self.kind](array, self.names):
            return f"{self.kind}: {detail}"
        return None

    def _problem(self) -> str | None:
        kind = self.kind
        columns = COLUMNS.get(kind)
        sides = self.shape if columns is None else self.shape[:1]
        right = len(self.shape) == 2 and all(side is None or side > 0 for side in sides)
        if columns is not None:
            right = right and self.shape[0] is not None and self.shape[1] in columns
        if not right or self.dtype not in DTYPES[kind]:
            dtypes = " or ".join(DTYPES[kind])
            return f"{kind}: expected {dtypes} {SHAPES[kind]}, found {self.dtype} of {list(self.shape)} for each frame"
        if len(set(self.names)) < len(self.names):
            return f"{kind}: expected different names, found {', '.join(self.names)}"
        if columns is not None and self.names and len(self.names) != self.shape[0]:
            return f"{kind}: {len(self.names)} names for {self.shape[0]} of them; name each one, or none"
        if kind == "mask" and len(self.names) > 256:
            return f"mask: {len(self.names)} names; uint8 tells 256 classes apart"
        return None


def member_of(kind: str) -> str:
    """Ending of the file of a kind in a shard."""
    return f"{kind}.npz"


MEMBERS = {member_of(kind): kind for kind in KINDS}


def info_of(kind: Kind, array: Any, names: tuple[str, ...] = (), unit: str | None = None) -> SpatialInfo:
    """The description of an array of T frames. Raises DataError if it is no array of its kind."""
    if not isinstance(array, np.ndarray) or array.ndim < 2 or array.dtype.name not in DTYPES[kind]:
        content = type(array).__name__
        if isinstance(array, np.ndarray):
            content = f"{array.dtype.name} of shape {list(array.shape)}"
        raise DataError(f"{kind}: expected {' or '.join(DTYPES[kind])} {SHAPES[kind]}, found {content}")
    about = {"kind": kind, "shape": array.shape[1:], "dtype": array.dtype.name, "names": names, "unit": unit}
    try:
        return SpatialInfo.model_validate(about)
    except ValidationError as error:
        raise DataError(error.errors()[0]["msg"].removeprefix("Value error, ")) from error


def _mask(array: np.ndarray, names: tuple[str, ...]) -> str | None:
    highest = int(array.max(initial=0))
    if names and highest >= len(names):
        return f"expected classes 0 to {len(names) - 1} ({', '.join(names)}), found {highest}"
    return None


def _depth(array: np.ndarray, names: tuple[str, ...]) -> str | None:
    known = array[~np.isnan(array)]
    if np.isinf(known).any() or (known < 0).any():
        bad = known[np.isinf(known) | (known < 0)][0]
        return f"expected distances of at least 0, or NaN where it is not known, found {bad:g}"
    return None


def _keypoints(array: np.ndarray, names: tuple[str, ...]) -> str | None:
    points = array[..., :2]
    missing = np.isnan(points)
    if np.isinf(points).any() or (missing[..., 0] != missing[..., 1]).any():
        return "expected finite x and y, or NaN in both where a point does not exist"
    seen = array[..., 2:]
    if not ((seen >= 0) & (seen <= 1)).all():
        return f"expected visibilities in 0..1, found {np.nanmin(seen):g} to {np.nanmax(seen):g}"
    return None


def _pose(array: np.ndarray, names: tuple[str, ...]) -> str | None:
    missing = np.isnan(array)
    if np.isinf(array).any() or (missing.any(-1) != missing.all(-1)).any():
        return "expected finite numbers, or NaN in all columns where a body does not exist"
    length = np.linalg.norm(array[..., 3:], axis=-1)
    if array.shape[-1] == COLUMNS["pose"][1] and (np.abs(length - 1) > UNIT_SLACK).any():
        wrong = length[np.abs(length - 1) > UNIT_SLACK][0]
        return f"expected unit quaternions (w, x, y, z), found one of length {wrong:g}"
    return None


_CHECKS = {"mask": _mask, "depth": _depth, "keypoints": _keypoints, "pose": _pose}
