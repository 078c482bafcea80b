"""Aligned arrays as files: lossless, the same bytes each time, and refused where they cannot be what they claim."""

import io
import zipfile

import numpy as np
import pytest

from jepa_data.errors import DataError, DecodeError
from jepa_data.spatial.fitted import fitted
from jepa_data.spatial.kinds import SpatialInfo, info_of
from jepa_data.spatial.members import decode, encode

RANDOM = np.random.default_rng(0)
ARRAYS = {
    "mask": RANDOM.integers(0, 4, (70, 6, 8), dtype=np.uint8),
    "depth": RANDOM.uniform(0, 9, (70, 6, 8)).astype(np.float16),
    "keypoints": RANDOM.uniform(0, 1, (70, 5, 3)).astype(np.float32),
    "pose": RANDOM.normal(size=(70, 2, 3)).astype(np.float32),
}


@pytest.mark.parametrize("kind", ARRAYS)
def test_any_frames_come_back_as_they_were(kind: str) -> None:
    array = ARRAYS[kind]
    info = info_of(kind, array)  # pyright: ignore[reportArgumentType]
    data = encode(array)
    assert encode(array) == data
    for indices in ([0], [69, 0, 31, 32, 32], list(range(40, 60))):
        np.testing.assert_array_equal(decode(data, info, 70, np.array(indices)), array[indices])
    np.testing.assert_array_equal(decode(data, info, 70), array)


@pytest.mark.parametrize(
    ("kind", "array", "says"),
    [
        ("mask", np.zeros((4, 3, 3), np.int64), "expected uint8"),
        ("mask", np.zeros((4, 3), np.uint8), "expected uint8"),
        ("depth", np.zeros((4, 3, 3), np.float64), "float16 or float32"),
        ("keypoints", np.zeros((4, 3, 4), np.float32), "x, y in pixels"),
        ("pose", np.zeros((4, 3, 5), np.float32), "quaternion"),
    ],
)
def test_an_array_of_another_kind_is_refused(kind: str, array: np.ndarray, says: str) -> None:
    with pytest.raises(DataError, match=says):
        info_of(kind, array)  # pyright: ignore[reportArgumentType]


def test_numbers_that_cannot_be_are_named() -> None:
    mask = SpatialInfo(kind="mask", shape=(2, 2), dtype="uint8", names=("sky", "sea"))
    assert "expected classes 0 to 1 (sky, sea), found 2" in str(mask.problem(np.full((1, 2, 2), 2, np.uint8), 1))
    assert "shape [3, 2, 2]" in str(mask.problem(np.zeros((2, 2, 2), np.uint8), 3))
    depth = SpatialInfo(kind="depth", shape=(None, None), dtype="float32")
    assert depth.problem(np.full((1, 2, 2), np.nan, np.float32), 1) is None
    assert "at least 0" in str(depth.problem(np.full((1, 2, 2), -1, np.float32), 1))
    points = SpatialInfo(kind="keypoints", shape=(1, 3), dtype="float32")
    assert points.problem(np.array([[[np.nan, np.nan, 0]]], np.float32), 1) is None
    assert "NaN in both" in str(points.problem(np.array([[[np.nan, 1, 0]]], np.float32), 1))
    assert "visibilities" in str(points.problem(np.array([[[1, 1, 2]]], np.float32), 1))
    pose = SpatialInfo(kind="pose", shape=(1, 7), dtype="float32")
    assert "unit quaternions" in str(pose.problem(np.ones((1, 1, 7), np.float32), 1))
    with pytest.raises(ValueError, match="2 names for 1"):
        SpatialInfo(kind="keypoints", shape=(1, 3), dtype="float32", names=("a", "b"))


def test_damaged_and_hostile_files_are_refused() -> None:
    array = ARRAYS["mask"]
    info = info_of("mask", array)
    data = bytearray(encode(array))
    data[len(data) // 3] ^= 0xFF
    with pytest.raises(DecodeError, match=r"mask\.npz cannot be read"):
        decode(bytes(data), info, 70)
    with pytest.raises(DecodeError, match="parts"):
        decode(encode(array), info, 20)
    pickled = io.BytesIO()
    with zipfile.ZipFile(pickled, "w") as file:
        part = io.BytesIO()
        np.save(part, np.array([print], dtype=object), allow_pickle=True)
        file.writestr("00000000.npy", part.getvalue())
    with pytest.raises(DecodeError, match="objects"):
        decode(pickled.getvalue(), info, 1)
    bomb = io.BytesIO()
    with zipfile.ZipFile(bomb, "w", zipfile.ZIP_DEFLATED) as file:
        part = io.BytesIO()
        np.save(part, array[:1])
        file.writestr("00000000.npy", part.getvalue() + bytes(2**24))
    with pytest.raises(DecodeError, match="bytes for an array of 48"):
        decode(bomb.getvalue(), info, 1)


def test_cropped_maps_and_points_stay_on_each_other() -> None:
    """A point on a pixel of a class lies on that class after any crop and scale, if it is still in the image."""
    mask = np.zeros((1, 40, 60), np.uint8)
    points = RANDOM.uniform([8, 8], [52, 32], (12, 2)).astype(np.float32)
    for i, (x, y) in enumerate(points.tolist()):
        mask[0, int(y) - 2 : int(y) + 3, int(x) - 2 : int(x) + 3] = i + 1
    keypoints = np.concatenate([points, np.ones((12, 1))], -1).astype(np.float32)[None]
    for box in (None, (5, 7, 30, 30), (0, 20, 40, 33)):
        small = fitted("mask", mask, (40, 60), box, (64, 64))
        there = fitted("keypoints", keypoints, (40, 60), box, (64, 64))[0]
        seen = there[:, 2] == 1
        assert seen.any()
        for i in np.flatnonzero(seen):
            x, y = there[i, :2].astype(int)
            expected = mask[0, int(points[i, 1]), int(points[i, 0])]
            assert small[0, y, x] == expected
    coarse = fitted("mask", mask[:, ::2, ::2], (40, 60), (4, 6, 20, 20), (20, 20))
    np.testing.assert_array_equal(coarse[0], np.repeat(np.repeat(mask[0, 4:24:2, 6:26:2], 2, 0), 2, 1))
    assert fitted("pose", ARRAYS["pose"], (40, 60), (0, 0, 9, 9), (64, 64)) is ARRAYS["pose"]
