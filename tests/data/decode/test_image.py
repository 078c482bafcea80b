"""Still images come back upright, in RGB of 8 bits, or are turned away by name."""

import io
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from jepa_data.decode import Limits
from jepa_data.decode.image import decode_image, probe_image
from jepa_data.errors import DecodeError

RANDOM = np.random.default_rng(0)
COLOURS = RANDOM.integers(0, 256, (24, 36, 3), dtype=np.uint8)
SMOOTH = np.stack(np.broadcast_arrays(*np.ogrid[0:240:6, 0:250:5], 128), axis=-1).astype(np.uint8)  # [40, 50, 3]


def stored(image: Image.Image | NDArray[np.generic], kind: str = "png", **options: object) -> bytes:
    buffer = io.BytesIO()
    image = image if isinstance(image, Image.Image) else Image.fromarray(image)
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def turned(orientation: int) -> Image.Exif:
    exif = Image.Exif()
    exif[0x0112] = orientation
    return exif


def test_a_png_comes_back_bit_for_bit_and_a_jpeg_nearly() -> None:
    np.testing.assert_array_equal(decode_image(stored(COLOURS)), COLOURS)
    jpeg = decode_image(stored(SMOOTH, "jpeg", quality=95))
    assert np.abs(jpeg.astype(int) - SMOOTH).max() < 12
    index = probe_image(stored(COLOURS, "jpeg"))
    assert (index.frames, index.height, index.width, index.codec, index.fps) == (1, 24, 36, "jpeg", 0.0)


def test_every_kind_of_pixel_becomes_rgb_of_8_bits() -> None:
    gray = COLOURS[..., 0]
    np.testing.assert_array_equal(decode_image(stored(gray)), np.repeat(gray[..., None], 3, axis=2))
    fine = (np.arange(24 * 36, dtype=np.uint16) * 75).reshape(24, 36)
    assert np.abs(decode_image(stored(fine))[..., 1] - fine / 257).max() < 0.51
    palette = Image.fromarray(COLOURS).quantize(16)
    np.testing.assert_array_equal(decode_image(stored(palette)), np.asarray(palette.convert("RGB")))
    np.testing.assert_array_equal(decode_image(stored(Image.fromarray(gray > 99)))[..., 2], (gray > 99) * 255)
    cmyk = decode_image(stored(Image.fromarray(SMOOTH).convert("CMYK"), "jpeg", quality=95))
    assert cmyk.shape == SMOOTH.shape and np.abs(cmyk.astype(int) - SMOOTH).mean() < 4


def test_what_is_transparent_is_white() -> None:
    alpha = np.zeros((24, 36), np.uint8)
    alpha[:, :18] = 255
    image = decode_image(stored(np.dstack([COLOURS, alpha])))
    np.testing.assert_array_equal(image[:, :18], COLOURS[:, :18])
    assert (image[:, 18:] == 255).all()


@pytest.mark.parametrize("orientation", range(1, 9))
def test_an_image_is_shown_as_the_camera_was_held(orientation: int) -> None:
    upright = SMOOTH.copy()
    upright[:8, :8] = 255
    # How each orientation is stored: which edge of the image row 0 is, and which column 0 (EXIF 2.3, 4.6.4 A).
    lying = {
        1: upright,
        2: upright[:, ::-1],
        3: upright[::-1, ::-1],
        4: upright[::-1],
        5: upright.transpose(1, 0, 2),
        6: np.rot90(upright),
        7: upright[::-1, ::-1].transpose(1, 0, 2),
        8: np.rot90(upright, -1),
    }[orientation]
    for kind in ("png", "jpeg"):
        data = stored(
            np.ascontiguousarray(lying), kind, exif=turned(orientation), **({"quality": 95} if kind == "jpeg" else {})
        )
        assert np.abs(decode_image(data).astype(int) - upright).mean() < 4
        small = decode_image(data, size=(20, 25))
        assert small.shape == (20, 25, 3) and small[:3, :3].min() > 200
        index = probe_image(data)
        assert (index.height, index.width) == (40, 50)


def test_an_image_is_cropped_then_scaled() -> None:
    data = stored(COLOURS)
    np.testing.assert_array_equal(decode_image(data, crop=(3, 5, 10, 12)), COLOURS[3:13, 5:17])
    wide = stored(np.kron(SMOOTH, np.ones((8, 8, 1), np.uint8)), "jpeg", quality=95)  # large enough to be made smaller
    small = decode_image(wide, size=(40, 50))
    assert np.abs(small.astype(int) - SMOOTH).max() < 12
    part = decode_image(wide, size=(20, 25), crop=(160, 200, 160, 200))
    assert np.abs(part.astype(int) - SMOOTH[20:, 25:]).max() < 12
    with pytest.raises(DecodeError, match="beyond") as caught:
        decode_image(data, crop=(20, 0, 5, 5))
    assert caught.value.kind == "out of range"


@pytest.mark.parametrize("kind", ["png", "jpeg"])
def test_an_image_cut_at_any_byte_is_named(kind: str) -> None:
    whole = stored(COLOURS, kind)
    for length in range(0, len(whole) - 12, 5):
        with pytest.raises(DecodeError) as caught:
            decode_image(whole[:length])
        assert caught.value.kind in ("empty", "not an image", "truncated")
    assert caught.value.kind == "truncated"


def test_a_damaged_png_never_gives_other_pixels() -> None:
    whole = stored(COLOURS)
    for _ in range(200):
        data = bytearray(whole)
        data[RANDOM.integers(len(data))] ^= 1 << int(RANDOM.integers(8))
        with pytest.raises(DecodeError):
            decode_image(bytes(data))


def test_a_damaged_jpeg_is_an_image_of_the_same_size_or_named() -> None:
    whole, named = stored(COLOURS, "jpeg", exif=turned(1)), 0
    for _ in range(300):
        data = bytearray(whole)
        data[RANDOM.integers(len(data) // 2)] ^= 1 << int(RANDOM.integers(8))
        try:
            assert decode_image(bytes(data)).dtype == np.uint8
        except DecodeError:
            named += 1
    assert named > 5


def test_what_is_no_image_or_too_large_is_named(tmp_path: Path) -> None:
    for data in (b"text that is no image", RANDOM.bytes(500), stored(COLOURS, "gif")):
        with pytest.raises(DecodeError, match="neither JPEG nor PNG") as caught:
            decode_image(data)
        assert caught.value.kind == "not an image"
    with pytest.raises(DecodeError, match="of 36x24; at most 800") as caught:
        decode_image(stored(COLOURS), limits=Limits(max_pixels=800))
    assert caught.value.kind == "too large"
    for side in (11_000, 20_000):  # 121 and 400 million pixels in a file of a few kB: never unpacked
        bomb = stored(Image.new("1", (side, side)))
        assert len(bomb) < 100_000
        with pytest.raises(DecodeError) as caught:
            probe_image(bomb)
        assert caught.value.kind == "too large"
    with pytest.raises(DecodeError) as caught:
        decode_image(stored(COLOURS), limits=Limits(max_bytes=100))
    assert caught.value.kind == "too large"
