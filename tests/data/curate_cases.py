"""A small folder of shards with something for every stage of a curation."""

import io
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, ImageFilter

from jepa.config import from_dict
from jepa_data.curate import CurateConfig
from jepa_data.shards.encode import encode_mp4
from jepa_data.shards.index import ShardSet
from jepa_data.shards.read import ShardFiles
from jepa_data.shards.write import ShardWriter

FPS = 10.0


def textured(seed: int, frames: int = 12, size: int = 64, speed: int = 3) -> np.ndarray:
    """Images [frames, size, size, 3] with shapes of all scales that drift by `speed` pixels a frame."""
    random, side = np.random.default_rng(seed), size + speed * frames
    image = np.zeros((side, side), np.float32)
    for cells in (4, 8, 16, 32):
        noise = random.normal(size=(cells, cells)).astype(np.float32) * 40
        image += np.asarray(Image.fromarray(noise).resize((side, side), Image.Resampling.BICUBIC))
    image = np.clip(128 + image, 0, 255).astype(np.uint8)
    return np.stack([np.repeat(image[speed * t :, :size, None][:size], 3, axis=2) for t in range(frames)])


def blurred(images: np.ndarray, radius: float) -> np.ndarray:
    return np.stack([np.asarray(Image.fromarray(p).filter(ImageFilter.GaussianBlur(radius))) for p in images])


def png(image: np.ndarray) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(image).save(buffer, "PNG")
    return buffer.getvalue()


def mixed_shards(out: Path) -> Path:
    """Thirteen samples in three splits; what is wrong with them is in their keys, and their class is 0 or 1."""
    videos = {f"good-{i}": textured(i) for i in range(5)}
    train = {
        **{key: encode_mp4(images, FPS) for key, images in videos.items()},
        "copy-of-good-0": encode_mp4(np.repeat(np.repeat(videos["good-0"], 2, axis=1), 2, axis=2), FPS, crf=26),
        "static": encode_mp4(textured(20, speed=0), FPS),
        "dark": encode_mp4(textured(21) // 12, FPS),
        "blurred": encode_mp4(blurred(textured(22, speed=8), 6), FPS),
        "short": encode_mp4(textured(23, frames=3), FPS),
        "broken": encode_mp4(textured(24), FPS),
        "copy-of-test": encode_mp4(textured(25), FPS, crf=24),
    }
    with ShardWriter(
        out,
        fps=None,
        image_size=None,
        world=None,
        action_size=0,
        state_names=[],
        label_names=["class"],
        label_values={"class": ["a", "b"]},
        seed=7,
        made={"command": "test"},
        shard_bytes=40_000,
    ) as writer:
        for number, (key, video) in enumerate(train.items()):
            frames = 3 if key == "short" else 12
            about = {"labels": {"class": number % 2}, "caption": f"the {key} one"}
            writer.write("train", key, video, frames, None, None, about, source={"url": f"{key}.mov"})
        image = png(textured(26, frames=1)[0])
        writer.write("train", "image", image, 1, None, None, {"labels": {"class": -1}}, ending="png")
        writer.write("val", "val-0", encode_mp4(textured(27), FPS), 12, None, None, {"labels": {"class": 0}})
        writer.write("test", "test-0", encode_mp4(textured(25), FPS), 12, None, None, {"labels": {"class": 1}})
    damage(out, "broken")
    return out


def damage(folder: Path, key: str) -> None:
    """Change a byte in the middle of a sample's video."""
    sample = next(sample for sample in ShardSet.open(folder).samples if sample.key == key)
    offset, size = sample.members[sample.media]
    tar = folder / sample.shard
    data = bytearray(tar.read_bytes())
    data[offset + size // 2] ^= 0xFF
    tar.write_bytes(data)


def described(*stages: dict[str, Any], **rest: Any) -> CurateConfig:
    return from_dict({"stages": list(stages), **rest}, CurateConfig)


def members(folder: Path) -> dict[str, dict[str, bytes]]:
    files = ShardFiles(folder)
    return {sample.key: files.read(sample) for sample in ShardSet.open(folder).samples if sample.key != "broken"}


STAGES: list[dict[str, Any]] = [
    {"kind": "too_short", "min_seconds": 1.0},
    {"kind": "static"},
    {"kind": "dark"},
    {"kind": "blurred", "min_sharpness": 20.0},
    {"kind": "near_duplicates"},
    {"kind": "balance", "label": "class", "max_samples": 2},
]
