"""Videos whose frames carry their own number, and small folders of shards made of them."""

from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from jepa_data.shards.encode import encode_mp4
from jepa_data.shards.write import ShardWriter

FPS = 10.0


def _numbered(count: int, first: int = 0, size: int = 64) -> NDArray[np.uint8]:
    """Images [count, size, size, 3] with 16 blocks, light or dark: the bits of `first + i`."""
    bits = (np.arange(first, first + count)[:, None] >> np.arange(16)) & 1
    blocks = (40 + 170 * bits).reshape(count, 4, 4).astype(np.uint8)
    side = size // 4
    return np.repeat(np.repeat(np.repeat(blocks, side, 1), side, 2)[..., None], 3, axis=3)


def _read_numbers(images: NDArray[np.uint8]) -> list[int]:
    """The numbers in images [..., h, w, C] of `numbered`, at any size."""
    h, w = images.shape[-3:-1]
    blocks = images.reshape(-1, 4, h // 4, 4, w // 4, 3).mean(axis=(2, 4, 5)).reshape(-1, 16)
    return ((blocks > 125) << np.arange(16)).sum(axis=1).tolist()


@pytest.fixture(scope="session")
def numbered() -> Callable[..., NDArray[np.uint8]]:
    return _numbered


@pytest.fixture(scope="session")
def read_numbers() -> Callable[[NDArray[np.uint8]], list[int]]:
    return _read_numbers


@pytest.fixture(scope="session")
def write_shards() -> Callable[..., Path]:
    """Writes a folder of shards; sample i is `ep-i`, its frames are numbered 100*i, 100*i + 1, ..."""

    def write(
        out: Path, lengths: Sequence[int], *, split: str = "train", actions: bool = True, shard_bytes: int = 2**20
    ) -> Path:
        with ShardWriter(
            out,
            fps=FPS,
            image_size=64,
            world=None,
            action_size=2 if actions else 0,
            state_names=["number"] if actions else [],
            label_names=["parity"],
            seed=0,
            shard_bytes=shard_bytes,
        ) as writer:
            for i, frames in enumerate(lengths):
                numbers = 100 * i + np.arange(frames, dtype=np.float32)
                writer.write(
                    split,
                    f"ep-{i}",
                    encode_mp4(_numbered(frames, 100 * i), FPS),
                    frames,
                    np.stack([numbers[:-1], numbers[1:]], axis=1) if actions else None,
                    numbers[:, None] if actions else None,
                    {"labels": {"parity": i % 2}},
                )
        return out

    return write
