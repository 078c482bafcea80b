"""Masks: every token is context or target, counts are equal, nothing is favored, the generator decides."""

import random
import statistics
import time

import pytest
import torch

from jepa.masks.causal import Causal
from jepa.masks.multiblock import MultiBlock
from jepa.masks.random_drop import RandomDrop
from jepa.masks.tube import Tube

SHORT_RANGE = MultiBlock(MultiBlock.Config(blocks=8, scale=0.15))  # V-JEPA 1 and 2
LONG_RANGE = MultiBlock(MultiBlock.Config(blocks=2, scale=0.7))

GRIDS = [(8, 16, 16), (4, 8, 8), (2, 4, 4), (3, 5, 7), (1, 2, 2), (8, 14, 14)]
MASKS = [
    SHORT_RANGE,
    LONG_RANGE,
    RandomDrop(RandomDrop.Config(ratio=0.95)),
    RandomDrop(RandomDrop.Config(ratio=0.3)),
    Tube(Tube.Config(ratio=0.75)),
]


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


@pytest.mark.parametrize("grid", GRIDS)
@pytest.mark.parametrize("mask", MASKS)
def test_context_and_target_partition_every_clip(mask, grid):
    context, target = mask(grid, 16, seeded())
    tokens = grid[0] * grid[1] * grid[2]
    together = torch.cat((context, target), 1).sort(1).values
    assert torch.equal(together, torch.arange(tokens).expand(16, -1))
    assert context.shape[1] >= 1
    assert (context.diff(dim=1) > 0).all() and (target.diff(dim=1) > 0).all()


@pytest.mark.parametrize("mask", MASKS)
def test_counts_never_change_from_step_to_step(mask):
    shapes = {tuple(x.shape for x in mask((4, 8, 8), 8, seeded(step))) for step in range(50)}
    assert len(shapes) == 1


@pytest.mark.parametrize("mask", MASKS)
def test_the_generator_decides(mask):
    first, again, other = (mask((8, 16, 16), 4, seeded(seed))[1] for seed in (3, 3, 4))
    assert torch.equal(first, again) and not torch.equal(first, other)
    generator = seeded()
    assert not torch.equal(mask((8, 16, 16), 4, generator)[1], mask((8, 16, 16), 4, generator)[1])
    assert not torch.equal(first[0], first[1])  # clips of a batch differ


@pytest.mark.parametrize("mask", MASKS)
def test_every_step_of_time_is_supervised_alike(mask):
    steps = 8
    _, target = mask((steps, 6, 6), 10_000, seeded())
    share = torch.bincount(target.flatten() // 36, minlength=steps) / target.numel() * steps
    assert (share - 1).abs().max() < 0.02


def test_blocks_span_the_whole_clip_and_favor_no_side():
    _, target = SHORT_RANGE((3, 9, 9), 10_000, seeded())
    assert torch.equal(
        target[:, : target.shape[1] // 3] + 81, target[:, target.shape[1] // 3 : 2 * target.shape[1] // 3]
    )
    covered = torch.bincount(target.flatten() % 81, minlength=81).view(9, 9) / 30_000
    assert (covered - covered.flip(0)).abs().max() < 0.03
    assert (covered - covered.flip(1)).abs().max() < 0.03
    assert (covered - covered.T).abs().max() < 0.06  # aspects of 0.75 to 1.5 are a little taller than wide


def test_random_drop_favors_no_token():
    context, _ = RandomDrop(RandomDrop.Config(ratio=0.9))((4, 5, 5), 20_000, seeded())
    kept = torch.bincount(context.flatten(), minlength=100) / 20_000
    assert (kept - 0.1).abs().max() < 0.01


def test_a_tube_hides_the_same_cells_at_every_step_and_favors_none():
    _, target = Tube(Tube.Config(ratio=0.5))((3, 4, 5), 20_000, seeded())
    cells = (target % 20).view(-1, 3, 10)
    assert torch.equal(cells[:, 0], cells[:, 1]) and torch.equal(cells[:, 0], cells[:, 2])
    assert (torch.bincount(target.flatten(), minlength=60) / 20_000 - 0.5).abs().max() < 0.015


def test_a_causal_mask_predicts_the_later_steps_from_the_earlier_ones():
    context, target = Causal(Causal.Config(context=(0.25, 0.25)))((8, 3, 3), 4, seeded())
    assert torch.equal(context, torch.arange(18).expand(4, -1)) and torch.equal(target[0], torch.arange(18, 72))
    drawn = Causal(Causal.Config(context=(0.2, 0.8)))
    seen = [drawn((10, 2, 2), 2, seeded(seed))[0].shape[1] // 4 for seed in range(200)]
    assert min(seen) == 2 and max(seen) == 8 and set(seen) == set(range(2, 9))


def test_nothing_is_dropped_where_the_ratio_is_zero():
    context, target = RandomDrop(RandomDrop.Config(ratio=0.0))((2, 2, 2), 3, seeded())
    assert context.shape == (3, 8) and target.shape == (3, 0)


def test_a_single_block_is_a_rectangle_of_the_asked_size_and_aspect():
    _, target = MultiBlock(MultiBlock.Config(blocks=1, scale=0.25, aspect=(1.0, 1.0)))((1, 16, 16), 100, seeded())
    rows, columns = target // 16, target % 16
    assert target.shape[1] == 64
    assert (rows.amax(1) - rows.amin(1) == 7).all() and (columns.amax(1) - columns.amin(1) == 7).all()


@pytest.mark.parametrize("mask", [SHORT_RANGE, LONG_RANGE])
def test_the_count_is_the_mean_cover_of_blocks_painted_one_by_one(mask):
    draw, covered = random.Random(0), []
    for _ in range(300):
        cells = set()
        for _ in range(mask.blocks):
            aspect = draw.uniform(*mask.aspect)
            height = min(round((mask.scale * 256 * aspect) ** 0.5), 16)
            width = min(round((mask.scale * 256 / aspect) ** 0.5), 16)
            top, left = draw.randint(0, 16 - height), draw.randint(0, 16 - width)
            cells |= {(y, x) for y in range(top, top + height) for x in range(left, left + width)}
        covered.append(len(cells))
    _, target = mask((1, 16, 16), 1, seeded())
    assert target.shape[1] == pytest.approx(statistics.mean(covered), rel=0.03)


def test_64_masks_of_2048_tokens_take_some_milliseconds():
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        for mask in (
            SHORT_RANGE,
            LONG_RANGE,
            RandomDrop(RandomDrop.Config(ratio=0.95)),
            Tube(Tube.Config(ratio=0.9)),
            Causal(Causal.Config()),
        ):
            generator, seconds = seeded(), []
            for _ in range(20):
                start = time.process_time()  # other processes on the machine do not count
                mask((8, 16, 16), 64, generator)
                seconds.append(time.process_time() - start)
            assert min(seconds) < 50e-3, f"{mask}: {min(seconds) * 1e3:.1f} ms"
    finally:
        torch.set_num_threads(threads)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: MultiBlock(MultiBlock.Config(blocks=0, scale=0.15)), r"blocks\n.*greater than"),
        (lambda: MultiBlock(MultiBlock.Config(blocks=8, scale=1.0)), "scale < 1"),
        (lambda: MultiBlock(MultiBlock.Config(blocks=8, scale=0.15, aspect=(1.5, 0.75))), "aspect"),
        (lambda: RandomDrop(RandomDrop.Config(ratio=1.0)), "below 1, found 1.0"),
        (lambda: Tube(Tube.Config(ratio=1.0)), "between 0 and 1, found 1.0"),
        (lambda: Causal(Causal.Config(context=(0.8, 0.2))), "min, max"),
        (lambda: Causal(Causal.Config())((1, 4, 4), 2, seeded()), "at least 2 latent steps, found 1"),
        (lambda: Tube(Tube.Config())((4, 1, 1), 2, seeded()), "at least 2 cells"),
    ],
)
def test_impossible_settings_are_refused_in_words(make, message):
    with pytest.raises(ValueError, match=message):
        make()
