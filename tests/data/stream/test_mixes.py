"""Several corpora in one stream, images among them; and which part of a video, and of its images, a clip is."""

from collections import Counter
from collections.abc import Callable
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from jepa_data.config import StreamConfig
from jepa_data.errors import DataError
from jepa_data.shards.encode import encode_mp4
from jepa_data.shards.write import ShardWriter
from jepa_data.stream.loader import make_loader
from jepa_data.types import ClipBatch

Numbered = Callable[..., NDArray[np.uint8]]
ReadNumbers = Callable[[Any], list[int]]


def image(pixels: NDArray[np.uint8], codec: str) -> bytes:
    """One image [h, w, 3] as a PNG or JPEG file."""
    encoder: Any = av.CodecContext.create(codec, "w")
    encoder.width, encoder.height = pixels.shape[1], pixels.shape[0]
    encoder.pix_fmt = "rgb24" if codec == "png" else "yuvj444p"
    encoder.time_base = Fraction(1, 1)
    frame = av.VideoFrame.from_ndarray(np.ascontiguousarray(pixels), format="rgb24").reformat(format=encoder.pix_fmt)
    return b"".join(bytes(packet) for packet in [*encoder.encode(frame), *encoder.encode(None)])


def write(
    out: Path,
    media: list[tuple[bytes, int, str]],
    *,
    states: tuple[str, ...] = (),
    labels: dict[str, tuple[str, ...]] | None = None,
    actions: int = 0,
) -> Path:
    """Shards of samples (bytes, frames, ending) called v-0, v-1, …; every state is 7, every label 0."""
    labels = labels or {}
    with ShardWriter(
        out,
        fps=10.0,
        image_size=64,
        world=None,
        action_size=actions,
        state_names=states,
        label_names=sorted(labels),
        label_values=labels,
        seed=0,
    ) as writer:
        for i, (data, frames, ending) in enumerate(media):
            writer.write(
                "train",
                f"v-{i}",
                data,
                frames,
                np.zeros((frames - 1, actions), np.float32) if actions else None,
                np.full((frames, len(states)), 7, np.float32) if states else None,
                {"labels": dict.fromkeys(labels, 0)},
                ending=ending,
            )
    return out


@pytest.fixture(scope="module")
def videos(numbered: Numbered) -> Callable[..., list[tuple[bytes, int, str]]]:
    def make(count: int, first: int) -> list[tuple[bytes, int, str]]:
        return [(encode_mp4(numbered(12, first + 100 * i), 10.0), 12, "mp4") for i in range(count)]

    return make


@pytest.fixture(scope="module")
def is_image(tmp_path_factory: pytest.TempPathFactory, numbered: Numbered) -> Path:
    """Six images that carry the numbers 5000 … 5005, half of them PNG, half JPEG."""
    media = []
    for i in range(6):
        codec, ending = ("png", "png") if i % 2 else ("mjpeg", "jpg")
        media.append((image(numbered(1, 5000 + i)[0], codec), 1, ending))
    return write(tmp_path_factory.mktemp("is_image") / "s", media)


def config(*sources: tuple[Path, float], **settings: Any) -> StreamConfig:
    mixed = tuple({"shards": str(path), "weight": weight} for path, weight in sources)
    return StreamConfig.model_validate({"shards": mixed, "batch_size": 8, "clip_frames": 4} | settings)


def first_numbers(batch: ClipBatch, read_numbers: ReadNumbers) -> list[int]:
    """Number of the first frame of each clip."""
    return [read_numbers(clip[0].permute(1, 2, 0).numpy())[0] for clip in batch.video]


@pytest.mark.parametrize("workers", [0, 2])
def test_images_stream_beside_videos_as_clips_that_stand_still(
    workers: int,
    tmp_path: Path,
    is_image: Path,
    videos: Callable[..., list[tuple[bytes, int, str]]],
    read_numbers: ReadNumbers,
) -> None:
    moving = write(tmp_path / "m", videos(5, 0))
    loader = make_loader(config((moving, 3.0), (is_image, 1.0), workers=workers), "train", seed=0, total_batches=9)
    seen = Counter[int]()
    for batch in loader:
        assert batch.is_image is not None and batch.is_image.sum() == 2, "a quarter of every batch"
        for clip, still, seconds in zip(
            batch.video, batch.is_image.tolist(), batch.start_seconds.tolist(), strict=True
        ):
            numbers = read_numbers(clip.permute(0, 2, 3, 1).numpy())
            first = numbers[0]
            assert numbers == ([first] * 4 if still else list(range(first, first + 4)))
            assert (first >= 5000) == still and (not still or seconds == 0)
            seen[first] += still
    # Eighteen images drawn from six: each three times.
    assert {n: seen[n] for n in range(5000, 5006)} == dict.fromkeys(range(5000, 5006), 3)
    assert loader.stats.drawn == {str(moving): 54, str(is_image): 18}


def test_images_alone_can_be_streamed_and_evaluated(is_image: Path, read_numbers: ReadNumbers) -> None:
    settings = StreamConfig.model_validate({"shards": str(is_image), "batch_size": 4, "clip_frames": 3, "fps": 2.0})
    batches = list(make_loader(settings, "train", seed=0, shuffle=False))
    assert [n for b in batches for n in first_numbers(b, read_numbers)] == [5000 + i for i in range(6)]
    assert all(b.is_image is not None and b.is_image.all() and b.video.shape[1] == 3 for b in batches)


@pytest.mark.parametrize("weights", [(1.0, 1.0, 1.0), (0.6, 0.3, 0.1)])
def test_three_sources_of_unlike_sizes_get_their_shares_and_each_its_own_epochs(
    weights: tuple[float, float, float],
    tmp_path: Path,
    videos: Callable[..., list[tuple[bytes, int, str]]],
    read_numbers: ReadNumbers,
) -> None:
    sizes = (2, 5, 3)
    folders = [write(tmp_path / str(i), videos(size, 1000 * i)) for i, size in enumerate(sizes)]
    batches = 40
    loader = make_loader(config(*zip(folders, weights, strict=True)), "train", seed=1, total_batches=batches)
    drawn: list[list[int]] = [[], [], []]
    for number, batch in enumerate(loader, 1):
        found = [n // 100 for n in first_numbers(batch, read_numbers)]  # ten a source
        for i, weight in enumerate(weights):
            drawn[i] += [n % 10 for n in found if n // 10 == i]
            assert abs(len(drawn[i]) - 8 * number * weight / sum(weights)) < 2
    for size, order in zip(sizes, drawn, strict=True):
        for first in range(0, len(order) - size + 1, size):
            assert sorted(order[first : first + size]) == list(range(size)), "all of a source, then all of it again"
    assert loader.position["epochs"] == pytest.approx(
        [8 * batches * w / sum(weights) / size for w, size in zip(weights, sizes, strict=True)], abs=0.5
    )


def test_two_corpora_with_the_same_names_of_samples_are_distinguished(
    tmp_path: Path, videos: Callable[..., list[tuple[bytes, int, str]]], read_numbers: ReadNumbers
) -> None:
    one, two = write(tmp_path / "one", videos(3, 0)), write(tmp_path / "two", videos(3, 1000))
    for cache in (0, 64):
        for batch in make_loader(config((one, 1.0), (two, 1.0), cache_mib=cache), "train", seed=0, total_batches=6):
            numbers = first_numbers(batch, read_numbers)
            assert sum(n < 1000 for n in numbers) == 4
            assert all(f"v-{n % 1000 // 100}" == key for n, key in zip(numbers, batch.keys, strict=True))
    for folder in (one, two):  # the same sample of both, broken: two bad samples, not one
        tar = folder / "train-000000.tar"
        tar.write_bytes(tar.read_bytes().replace(b"mdat", b"dust", 1))
    loader = make_loader(config((one, 1.0), (two, 1.0), max_bad_fraction=0.5), "train", seed=0, total_batches=6)
    list(loader)
    assert loader.stats.bad == 2 and sorted(bad.source for bad in loader.bad.values()) == [0, 1]


def test_states_and_labels_that_sources_do_not_share_are_left_out_and_said(
    tmp_path: Path, videos: Callable[..., list[tuple[bytes, int, str]]]
) -> None:
    ball = write(tmp_path / "ball", videos(3, 0), states=("x",), labels={"color": ("red", "blue")})
    cart = write(
        tmp_path / "cart", videos(3, 1000), states=("angle",), labels={"color": ("blue", "red"), "size": ("s",)}
    )
    plain = write(tmp_path / "plain", videos(3, 2000))
    alone = make_loader(config((ball, 1.0)), "train", seed=0)
    assert alone.notes == () and next(iter(alone)).states is not None
    mixed = make_loader(config((ball, 1.0), (cart, 1.0), (plain, 1.0)), "train", seed=0, total_batches=4)
    assert [note.split(": ", 1)[1] for note in mixed.notes] == [
        "the sources have different states; batches carry none",
        "the classes of the label 'color' have other numbers in other sources",
        "the label 'size' is -1 in the sources that do not have it",
    ]
    for batch in mixed:
        assert batch.states is None, "one number each, of other things"
        assert sorted(batch.labels) == ["color", "size"], "the same in every batch"
    values = {value for batch in mixed for value in batch.labels["size"].tolist()}
    assert values == {0, -1}


def test_sources_whose_actions_differ_are_refused(
    tmp_path: Path, is_image: Path, videos: Callable[..., list[tuple[bytes, int, str]]]
) -> None:
    two, three = (write(tmp_path / str(n), videos(2, 0), actions=n) for n in (2, 3))
    for other, width in ((three, 3), (is_image, 0)):
        with pytest.raises(DataError, match=rf"actions of the sources have different widths.*: 2.*: {width}\)"):
            make_loader(config((two, 1.0), (other, 1.0)), "train", seed=0)
    assert make_loader(config((two, 1.0), (two, 2.0)), "train", seed=0).action_size == 2


@pytest.mark.parametrize("clips", [1, 2, 3])
def test_spread_clips_each_start_in_their_own_part_of_the_video(tmp_path: Path, numbered: Numbered, clips: int) -> None:
    folder = write(tmp_path / "s", [(encode_mp4(numbered(27), 10.0), 27, "mp4")])
    settings = StreamConfig.model_validate(
        {"shards": str(folder), "batch_size": clips, "clip_frames": 4, "clips_per_video": clips, "start": "spread"}
    )
    found: list[set[int]] = [set() for _ in range(clips)]
    for batch in make_loader(settings, "train", seed=0, total_batches=150):
        starts = sorted(round(10 * s) for s in batch.start_seconds.tolist())
        for part, start in enumerate(starts):
            found[part].add(start)
    parts = [range(24 * part // clips, 24 * (part + 1) // clips) for part in range(clips)]  # 24 starts are possible
    assert found == [set(part) for part in parts], "every start of each part, and no other"


def test_a_stride_takes_every_so_many_th_frame(tmp_path: Path, numbered: Numbered, read_numbers: ReadNumbers) -> None:
    folder = write(tmp_path / "s", [(encode_mp4(numbered(n), 10.0), n, "mp4") for n in (10, 13)])
    settings = StreamConfig.model_validate({"shards": str(folder), "batch_size": 2, "clip_frames": 4, "stride": 3})
    starts = set()
    for batch in make_loader(settings, "train", seed=0, total_batches=40):
        for clip, key in zip(batch.video, batch.keys, strict=True):
            numbers = read_numbers(clip.permute(0, 2, 3, 1).numpy())
            assert numbers == [numbers[0] + 3 * i for i in range(4)]
            starts.add((key, numbers[0]))
    assert starts == {("v-0", 0), ("v-1", 0), ("v-1", 1), ("v-1", 2), ("v-1", 3)}


@pytest.fixture(scope="module")
def ramps(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Wide and tall videos whose red and green grow from 0 to 240 with x and y."""
    media = []
    for height, width in ((48, 96), (96, 64)):
        x, y = np.meshgrid(np.linspace(0, 240, width), np.linspace(0, 240, height))
        frame = np.stack([x, y, np.full_like(x, 128)], axis=-1).astype(np.uint8)
        media.append((encode_mp4(np.repeat(frame[None], 9, 0), 10.0, crf=0), 9, "mp4"))
    return write(tmp_path_factory.mktemp("ramps") / "s", media)


def edges(clip: torch.Tensor) -> tuple[float, float, float, float]:
    """Left, right, top and bottom edge of what a clip of `ramps` shows, as shares of the whole image."""
    frame = clip[0].float() / 240
    left, right = frame[0, :, 0].mean(), frame[0, :, -1].mean()
    top, bottom = frame[1, 0].mean(), frame[1, -1].mean()
    return float(left), float(right), float(top), float(bottom)


def test_other_shapes_become_square_by_their_middle_or_out_of_proportion(ramps: Path) -> None:
    expected = {
        "crop": [(0.25, 0.75, 0, 1), (0, 1, 1 / 6, 5 / 6)],
        "stretch": [(0, 1, 0, 1), (0, 1, 0, 1)],
    }
    for fit, boxes in expected.items():
        settings = StreamConfig.model_validate(
            {"shards": str(ramps), "batch_size": 2, "clip_frames": 4, "image_size": 32, "fit": fit}
        )
        (batch,) = make_loader(settings, "train", seed=0, shuffle=False)
        assert batch.video.shape == (2, 4, 3, 32, 32)
        for clip, box in zip(batch.video, boxes, strict=True):
            assert edges(clip) == pytest.approx(box, abs=0.05)
    plain = StreamConfig.model_validate({"shards": str(ramps), "batch_size": 2, "clip_frames": 4})
    with pytest.raises(DataError, match=r"videos of different sizes in one batch .* Set data.image_size"):
        list(make_loader(plain, "train", seed=0))
    one_by_one = [b.video.shape[-2:] for b in make_loader(plain.model_copy(update={"batch_size": 1}), "train", seed=0)]
    assert sorted(one_by_one) == [(48, 96), (96, 64)], "as stored"


@pytest.mark.parametrize("clips", [1, 2])
def test_the_decoder_cuts_a_random_part_that_a_clip_keeps(ramps: Path, clips: int) -> None:
    settings = StreamConfig.model_validate(
        {
            "shards": str(ramps),
            "batch_size": 4,
            "clip_frames": 4,
            "image_size": 32,
            "clips_per_video": clips,
            "crop": {"scale": (0.2, 0.6), "ratio": (0.75, 1.5)},
        }
    )
    shapes, boxes = {"v-0": (48, 96), "v-1": (96, 64)}, set()
    for batch in make_loader(settings, "train", seed=0, total_batches=20):
        for clip, key in zip(batch.video, batch.keys, strict=True):
            left, right, top, bottom = edges(clip)
            height, width = shapes[key]
            share, ratio = (right - left) * (bottom - top), (right - left) * width / ((bottom - top) * height)
            assert 0.2 * 0.85 < share < 0.6 * 1.1 and 0.75 * 0.85 < ratio < 1.5 * 1.15
            assert (clip.float() - clip[:1].float()).abs().max() <= 2, "the same part in every frame"
            boxes.add((key, round(left, 2), round(top, 2)))
    assert len(boxes) > 70, "another part in every clip"
    middle = make_loader(settings, "train", seed=0, shuffle=False)
    whole = [edges(clip) for batch in middle for clip in batch.video]
    assert whole[0] == pytest.approx((0.25, 0.75, 0, 1), abs=0.05), "evaluation takes the middle"
