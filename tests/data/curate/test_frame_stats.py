"""What is measured of frames: light, motion, sharpness and hashes, against what they must be."""

from collections.abc import Callable

import numpy as np
import pytest
from PIL import Image, ImageFilter

from jepa_data.curate.frame_stats import _DCT, image_hash, look, sharpness, shrunk
from jepa_data.curate.hamming_index import closest
from jepa_data.decode import get_backend
from jepa_data.shards.encode import encode_mp4

Numbered = Callable[..., np.ndarray]


def textured(seed: int, frames: int = 6, size: int = 128) -> np.ndarray:
    """Images [frames, size, size, 3] with soft shapes of all scales that drift by 4 pixels a frame."""
    random, image = np.random.default_rng(seed), np.zeros((2 * size, 2 * size), np.float32)
    for side in (4, 8, 16, 32, 64):
        noise = random.normal(size=(side, side)).astype(np.float32) * 64 / side**0.5
        image += np.asarray(Image.fromarray(noise).resize(image.shape, Image.Resampling.BICUBIC))
    image = np.clip(128 + image, 0, 255).astype(np.uint8)
    return np.stack([np.repeat(image[4 * t : 4 * t + size, :size, None], 3, axis=2) for t in range(frames)])


def bits(one: np.ndarray, other: np.ndarray) -> float:
    return float(np.bitwise_count(one ^ other).mean())


def test_brightness_and_motion_of_flat_images_are_exact() -> None:
    levels = np.array([10, 40, 40, 100], np.uint8)
    flat = np.broadcast_to(levels[:, None, None, None], (4, 48, 80, 3))
    seen = look(np.ascontiguousarray(flat))
    assert seen.brightness == pytest.approx(47.5, abs=1e-3)
    assert seen.motion == pytest.approx((30 + 0 + 60) / 3, abs=1e-3)
    assert seen.sharpness == pytest.approx(0.0, abs=1e-6)
    assert look(np.ascontiguousarray(flat[:1])).motion == 0.0


def test_green_counts_more_than_blue() -> None:
    images = np.zeros((2, 1, 8, 8, 3), np.uint8)
    images[0, ..., 1] = images[1, ..., 2] = 100
    assert [look(p).brightness for p in images] == pytest.approx([58.7, 11.4], abs=1e-3)


def test_a_small_image_keeps_its_mean_whatever_its_shape() -> None:
    for shape in ((90, 256), (256, 91), (64, 64), (20, 30)):
        gray = np.random.default_rng(0).uniform(0, 255, (2, *shape)).astype(np.float32)
        small = shrunk(gray)
        assert small.shape == (2, 64, 64)
        assert np.allclose(small.mean(axis=(1, 2)), gray.mean(axis=(1, 2)), atol=0.6)


def test_the_laplacian_of_a_single_bright_pixel_is_known() -> None:
    gray = np.zeros((5, 5), np.float32)
    gray[2, 2] = 9.0
    inside = np.array([[0, 9, 0], [9, -36, 9], [0, 9, 0]])
    assert sharpness(gray) == pytest.approx(inside.var())
    assert sharpness(np.zeros((2, 9), np.float32)) == 0.0


def test_blurring_lowers_sharpness() -> None:
    blocks = np.random.default_rng(0).integers(0, 256, (32, 32, 3), np.uint8)
    image = Image.fromarray(blocks.repeat(4, 0).repeat(4, 1))
    blurred = [np.asarray(image.filter(ImageFilter.GaussianBlur(radius)))[None] for radius in (0, 1, 2, 4)]
    values = [look(np.ascontiguousarray(images)).sharpness for images in blurred]
    assert values == sorted(values, reverse=True) and values[0] > 10 * values[-1]


def test_the_dct_is_that_of_the_definition() -> None:
    assert np.allclose(_DCT @ _DCT.T, np.eye(len(_DCT)), atol=1e-6)
    x = np.random.default_rng(0).normal(size=32)
    k = 5
    expected = np.sqrt(2 / 32) * sum(x[n] * np.cos(np.pi / 32 * (n + 0.5) * k) for n in range(32))
    assert (_DCT @ x)[k] == pytest.approx(expected, abs=1e-5)


def test_a_wave_sets_the_one_bit_of_its_frequency() -> None:
    wave = np.cos(np.pi / 64 * (np.arange(64) + 0.5) * 3)  # frequency (0, 3)
    values = [image_hash((128 + sign * 50 * np.tile(wave, (64, 1))).astype(np.float32)) for sign in (1, -1)]
    assert [value.bit_count() for value in values] == [1, 0]
    assert image_hash(np.full((64, 64), 77.0, np.float32)) == 0


def test_copies_share_a_hash_and_other_videos_do_not() -> None:
    videos = [textured(seed) for seed in range(8)]
    hashes = [look(video).hashes for video in videos]
    for video, own in zip(videos, hashes, strict=True):
        with get_backend("pyav").open(encode_mp4(video, 10, crf=30)) as reader:
            copy = reader.frames(range(6), size=(72, 72))
        assert bits(look(copy).hashes, own) <= 3
    others = [bits(a, b) for i, a in enumerate(hashes) for b in hashes[:i]]
    assert min(others) > 12


# ---- finding near hashes without comparing all pairs -----------------------------------------------------------------


def by_all_pairs(wanted: np.ndarray, among: np.ndarray, radius: int) -> tuple[list[int], list[int]]:
    distance = np.bitwise_count(wanted[:, None] ^ among[None]).sum(axis=2)
    best = distance.argmin(axis=1)
    least = distance.min(axis=1)
    return np.where(least <= radius, best, -1).tolist(), np.where(least <= radius, least, 0).tolist()


@pytest.mark.parametrize("radius", [0, 3, 15, 16, 24, 35])
def test_bands_find_what_all_pairs_find(radius: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("jepa_data.curate.hamming_index.FEW", 0)  # bands, although there are few
    monkeypatch.setattr("jepa_data.curate.hamming_index.PAIRS", 500)
    random = np.random.default_rng(radius)
    among = random.integers(0, 2**64, (300, 4), np.uint64)
    wanted = among[random.integers(0, 300, 200)].copy()
    for row in wanted:  # up to 40 bits of 256 are changed
        for bit in random.choice(256, int(random.integers(0, 41)), replace=False):
            row[bit // 64] ^= np.uint64(1) << np.uint64(bit % 64)
    place, distance = closest(wanted, among, radius)
    assert (place.tolist(), distance.tolist()) == by_all_pairs(wanted, among, radius)
    assert -1 in place.tolist() and (place >= 0).any()


def test_of_equally_near_hashes_the_first_is_given() -> None:
    among = np.array([[7, 0, 0, 0], [1, 0, 0, 0], [2, 0, 0, 0], [1, 0, 0, 0]], np.uint64)
    assert [x.tolist() for x in closest(np.zeros((1, 4), np.uint64), among, 1)] == [[1], [1]]
    assert closest(np.zeros((2, 4), np.uint64), among[:0], 9)[0].tolist() == [-1, -1]


def test_bands_compare_a_thousandth_of_all_pairs(monkeypatch: pytest.MonkeyPatch) -> None:
    compared, random = [], np.random.default_rng(0)
    from jepa_data.curate import hamming_index as bands

    real = bands._joined

    def counting(*parts: np.ndarray) -> object:
        for left, right in real(*parts):
            compared.append(len(left))
            yield left, right

    monkeypatch.setattr(bands, "_joined", counting)
    wanted, among = random.integers(0, 2**64, (2, 20_000, 4), np.uint64)
    among[:50] = wanted[-50:]
    place, _ = closest(wanted, among, 16)
    assert place[-50:].tolist() == list(range(50)) and (place[:-50] == -1).all()
    assert sum(compared) < 20_000**2 / 1000
