"""Rotary positions: what a turn depends on, which channels turn, and in which precision."""

import pytest
import torch

from jepa.transformer import grid_positions, rotary_table, rotate, sincos_table


def test_a_score_depends_on_the_offset_of_two_tokens_only():
    query, key = torch.randn(2, 1, 1, 64)
    offset = torch.tensor([2.0, 3.0, 1.0])
    at = torch.tensor([[0.0, 0, 0], [5, 2, 9], [31, 15, 0], [7, 23, 40]])

    def turned(x, positions):
        return rotate(x.expand(1, len(positions), -1), rotary_table(positions[None], 64))

    scores = (turned(query, at) * turned(key, at + offset)).sum(-1)
    assert (scores - scores[0, 0]).abs().max() < 1e-5
    other = (turned(query, at) * turned(key, at + offset.flip(0))).sum(-1)
    assert (other - scores).abs().min() > 1e-3


def test_each_axis_turns_its_own_channels_and_the_rest_stand_still():
    x = torch.ones(1, 1, 64)
    for axis, channels in enumerate((slice(0, 20), slice(20, 40), slice(40, 60))):
        position = torch.zeros(1, 1, 3)
        position[..., axis] = 3
        moved = (rotate(x, rotary_table(position, 64)) - x)[0, 0].abs() > 1e-4
        assert (
            moved[channels].any() and not moved[[i for i in range(64) if not channels.start <= i < channels.stop]].any()
        )


def test_the_rotary_table_stays_fp32_under_autocast():
    with torch.autocast("cpu", torch.bfloat16):
        table = rotary_table(grid_positions(torch.arange(4096)[None], (16, 16, 16)), 64)
        turned = rotate(torch.ones(1, 4096, 64, dtype=torch.bfloat16), table)
    assert table.dtype == torch.complex64 and turned.dtype == torch.bfloat16


def test_rows_and_columns_are_spread_over_the_position_grid():
    index = torch.arange(2 * 3 * 5)[None]
    positions = grid_positions(index, (2, 3, 5), 16).unflatten(1, (2, 3, 5))[0]
    assert positions[:, 0, 0, 0].tolist() == [0, 1]  # steps are not rescaled
    assert positions[1, :, 4, 1].tolist() == [0, 7.5, 15] and positions[1, 2, :, 2].tolist() == [
        0,
        3.75,
        7.5,
        11.25,
        15,
    ]
    assert torch.equal(
        grid_positions(torch.arange(512)[None], (2, 16, 16), 16), grid_positions(torch.arange(512)[None], (2, 16, 16))
    )
    assert grid_positions(torch.arange(3)[None], (1, 1, 3), 16)[0, :, 1].tolist() == [0, 0, 0]  # one row


@pytest.mark.parametrize("head_dim", [16, 24, 64, 80])
def test_a_score_is_the_same_wherever_two_tokens_of_one_offset_stand(head_dim):
    generator = torch.Generator().manual_seed(0)
    query, key = torch.randn(2, 1, 1, head_dim, generator=generator) / head_dim**0.5
    at = torch.randint(0, 64, (200, 3), generator=generator).float()
    offset = torch.tensor([1.0, -4.0, 7.0])

    def scores(kind):
        turned = [
            rotate(x.expand(1, 200, -1), rotary_table(place[None], head_dim, kind))
            for x, place in ((query, at), (key, at + offset))
        ]
        return (turned[0] * turned[1]).sum(-1)

    assert scores("rotary").std() < 1e-5
    assert scores("rotary_tiled").std() > 1e-3  # V-JEPA 2's as released is not relative


def test_fixed_positions_tell_all_tokens_of_a_grid_apart():
    table = sincos_table(grid_positions(torch.arange(8 * 4 * 4)[None], (8, 4, 4)), 48)[0]
    distances = torch.cdist(table, table) + torch.eye(128) * 9
    assert table.abs().max() <= 1 and distances.min() > 0.1
