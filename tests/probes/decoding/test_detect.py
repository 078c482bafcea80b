"""Objects are found where the world says they are, are missed where they are not drawn, and moved ones are off."""

from pathlib import Path

import numpy as np
import pytest
import torch

from jepa_data.config import StreamConfig
from jepa_data.shards.index import ShardSet
from jepa_data.sources.rollouts import Recording, record
from jepa_data.stream.loader import make_loader
from jepa_data.worlds import make_batch
from jepa_probes.decoding.clips import last_frames
from jepa_probes.decoding.detect import find_objects
from jepa_probes.decoding.quality import psnr, ssim
from jepa_probes.decoding.replay import Truth, objects_of, true_masks, world_after

STEPS = 4


def scene(name: str, episodes: int = 6) -> tuple[torch.Tensor, Truth]:
    """Frames [E, S, 3, 32, 32] of a world under its default policy, and their masks."""
    world = make_batch(name, np.arange(episodes), image_size=32)
    generators = [np.random.default_rng(i) for i in range(episodes)]
    actions = world.act(world.policies[0], generators, STEPS)
    images, masks = [], []
    for step in range(STEPS):
        images.append(world.render())
        masks.append(world.spatial("mask"))
        if step < STEPS - 1:
            world.step(actions[:, step])
    video = torch.from_numpy(np.stack(images, 1)).movedim(-1, 2).contiguous()
    return video, Truth(np.stack(masks, 1), *objects_of(world))


WORLDS = ["two-rooms-random-wall", "billiards-medium"]


@pytest.mark.parametrize("name", WORLDS)
def test_true_frames_show_every_object_in_its_place(name: str) -> None:
    video, truth = scene(name)
    found = find_objects(video, video, truth, 2.0)
    assert set(found) == set(truth.objects)
    for each in found.values():
        assert each.found == each.near == 1.0 and each.p90 is not None and each.p90 < 0.75


@pytest.mark.parametrize("name", WORLDS)
def test_frames_without_the_objects_show_none(name: str) -> None:
    video, truth = scene(name)
    empty = video.clone()
    for clip in range(len(video)):  # the color of the floor in the place of all objects and what is around them
        floor = video[clip].movedim(1, -1)[torch.from_numpy(truth.masks[clip] == 0)].float().median(0).values.byte()
        there = torch.from_numpy(np.isin(truth.masks[clip], [truth.names.index(n) for n in truth.objects]))
        wide = torch.nn.functional.max_pool2d(there[:, None].float(), 7, 1, 3)[:, 0] > 0
        empty[clip] = torch.where(wide[:, None], floor[:, None, None], video[clip])
    for each in find_objects(video, empty, truth, 2.0).values():
        assert each.found == 0.0 and each.near == 0.0


def test_a_moved_dot_is_off_by_as_much_and_a_faint_one_is_still_found() -> None:
    video, truth = scene("two-rooms")
    red = torch.zeros_like(video)
    red[:, :, 0] = video[:, :, 0]
    walls = video - red
    moved = find_objects(video, walls + red.roll(4, -1), truth, 2.0)["agent"]
    assert moved.found == 1.0 and moved.near == 0.0
    assert moved.median == pytest.approx(4.0, abs=0.3)
    faint = find_objects(video, walls + (red.float() * 0.7).byte(), truth, 2.0)["agent"]
    assert faint.near == 1.0
    gone = find_objects(video, walls + (red.float() * 0.3).byte(), truth, 2.0)["agent"]
    assert gone.found == 0.0


def test_objects_of_one_color_are_not_looked_for() -> None:
    video = torch.zeros(1, 2, 3, 16, 16, dtype=torch.uint8)
    masks = np.zeros((1, 2, 16, 16), np.uint8)
    for number, (place, channel) in enumerate([(1, 0), (6, 0), (11, 1)], 1):  # two red squares and a green one
        video[..., channel, place : place + 3, place : place + 3] = 200
        masks[..., place : place + 3, place : place + 3] = number
    names = ("floor", "one", "other", "green")
    found = find_objects(video, video, Truth(masks, names, names[1:]), 2.0)
    assert set(found) == {"green"} and found["green"].near == 1.0


@pytest.mark.parametrize(("fps", "tubelet"), [(None, 1), (5.0, 2)])
def test_replayed_masks_are_those_that_were_recorded(tmp_path: Path, fps: float | None, tubelet: int) -> None:
    record(Recording("billiards-easy", 6, frames=12, image_size=32, spatial=("mask",)), tmp_path / "data")
    frames = 4
    config = StreamConfig(shards=str(tmp_path / "data"), batch_size=8, clip_frames=frames, fps=fps, spatial=("mask",))
    clips = next(iter(make_loader(config, "train", seed=0, shuffle=False)))
    starts = clips.start_seconds.double().numpy()
    truth = true_masks(config, clips.keys, starts, frames // tubelet, tubelet, 32)
    assert truth is not None
    assert np.array_equal(truth.masks, clips.spatial["mask"][:, tubelet - 1 :: tubelet].numpy())
    assert last_frames(clips.video, tubelet).shape[1] == truth.masks.shape[1]


def test_a_recording_is_played_again_up_to_a_frame(corpus: Path) -> None:
    shards = ShardSet.open(corpus)
    config = StreamConfig(shards=str(corpus), batch_size=1, clip_frames=12)
    clip = next(iter(make_loader(config, "test", seed=0, shuffle=False)))
    world = world_after(shards, clip.keys[0], 7, 32)
    assert world is not None and clip.states is not None
    assert np.allclose(world.states()[0], clip.states[0, 7].numpy(), atol=1e-5, equal_nan=True)
    assert world_after(shards, clip.keys[0], 100, 32) is None


def test_shards_without_a_world_have_no_truth(corpus: Path) -> None:
    config = StreamConfig(shards=str(corpus), batch_size=1, clip_frames=4)
    assert true_masks(config, (), np.zeros(0), 4, 1, 500) is None  # the world is not drawn at this size


def test_equal_frames_have_the_best_scores_and_noise_lowers_them() -> None:
    video, _ = scene("billiards-easy", 2)
    frames = video.flatten(0, 1)
    noisy = (frames.int() + torch.randint(-20, 20, frames.shape)).clamp(0, 255).byte()
    assert (psnr(frames, frames) == 60).all() and ssim(frames, frames) == pytest.approx(1.0)
    assert (psnr(noisy, frames) < 30).all() and ssim(noisy, frames) < 0.9
