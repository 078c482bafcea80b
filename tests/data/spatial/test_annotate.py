"""Arrays that a function computes of the frames, stored beside them, and as states."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

import jepa_data
from jepa_data.config import StreamConfig
from jepa_data.errors import DataError
from jepa_data.shards.index import ShardSet
from jepa_data.shards.read import ShardFiles
from jepa_data.stream.loader import make_loader

Writer = Callable[..., Path]


def brightest(frames: np.ndarray, metadata: dict) -> np.ndarray:
    """The first pixel that is as bright as any: keypoints [T, 1, 2]."""
    flat = frames[..., 0].reshape(len(frames), -1).argmax(1)
    return np.stack([flat % frames.shape[2], flat // frames.shape[2]], -1)[:, None].astype(np.float32) + 0.5


def light(frames: np.ndarray, metadata: dict) -> np.ndarray:
    return (frames[..., 0] > 125).astype(np.uint8)


def test_a_function_adds_arrays_and_states(tmp_path: Path, write_shards: Writer) -> None:
    source = write_shards(tmp_path / "s", [6, 40])
    out = tmp_path / "out"
    names = {"keypoints": ["spot"], "mask": ["dark", "light"]}
    manifest = jepa_data.annotate(
        source, out, mask=light, keypoints=brightest, names=names, states=["keypoints"], overwrite=True
    )
    assert manifest.state_names == ("number", "spot.x", "spot.y")
    assert [info.kind for info in manifest.spatial] == ["mask", "keypoints"]
    before, after = ShardSet.open(source), ShardSet.open(out)
    for old, new in zip(before.samples, after.samples, strict=True):
        video = ShardFiles(source).read(old)["mp4"]
        assert ShardFiles(out).read(new)["mp4"] == video and old.split == new.split
    config = StreamConfig(shards=str(out), batch_size=2, clip_frames=6, spatial=("mask", "keypoints"))
    batch = next(iter(make_loader(config, "train", seed=0, shuffle=False)))
    assert batch.states is not None
    np.testing.assert_allclose(batch.states[..., 1:] * 64, batch.spatial["keypoints"][:, :, 0], rtol=1e-6)
    assert ((batch.video[:, :, 0] > 125) == (batch.spatial["mask"] == 1)).all()


def test_arrays_of_before_are_kept_and_the_same_kind_is_replaced(tmp_path: Path, write_shards: Writer) -> None:
    source = write_shards(tmp_path / "s", [6])
    jepa_data.annotate(source, tmp_path / "a", mask=light)
    jepa_data.annotate(tmp_path / "a", tmp_path / "b", keypoints=brightest)
    manifest = jepa_data.annotate(tmp_path / "b", tmp_path / "c", mask=lambda frames, _: light(frames, {})[:, ::2, ::2])
    assert [info.text() for info in manifest.spatial] == ["keypoints 1x2 float32", "mask 32x32 uint8"]
    config = StreamConfig(shards=str(tmp_path / "c"), batch_size=1, clip_frames=6, spatial=("mask",))
    batch = next(iter(make_loader(config, "train", seed=0, shuffle=False)))
    assert batch.spatial["mask"].shape == (1, 6, 64, 64)  # at the size of the clip


def test_what_a_function_gives_wrongly_is_named(tmp_path: Path, write_shards: Writer) -> None:
    source = write_shards(tmp_path / "s", [6, 7])
    with pytest.raises(DataError, match=r"'ep-0': mask: expected uint8 \[T, h, w\], found float64"):
        jepa_data.annotate(source, tmp_path / "a", mask=lambda frames, _: frames[..., 0] / 255)
    with pytest.raises(DataError, match=r"'ep-0': keypoints: expected float32 of shape \[6, 1, 2\], found"):
        jepa_data.annotate(source, tmp_path / "b", keypoints=lambda frames, _: brightest(frames[1:], {}))
    with pytest.raises(ZeroDivisionError) as raised:
        jepa_data.annotate(source, tmp_path / "c", mask=lambda frames, _: 1 / 0)  # pyright: ignore[reportArgumentType]
    assert "mask of sample 'ep-0'" in raised.value.__notes__[0]
    for says, arguments in (
        ("at least one of", {}),
        ("no function computes", {"mask": light, "names": {"pose": ["a"]}}),
        ("expected some of none", {"mask": light, "states": ["keypoints"]}),
    ):
        with pytest.raises(DataError, match=says):
            jepa_data.annotate(source, tmp_path / "d", **arguments)
    with pytest.raises(DataError, match="Give another one"):
        jepa_data.annotate(source, source, mask=light)
