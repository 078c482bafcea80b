"""V-JEPA 2-AC's predictor: causal, exact when it goes step by step, and its published size, names and rotation."""

import math

import pytest
import torch
from torch import Tensor

from jepa.config import UserError
from jepa.encoders.video_vit import VideoViT
from jepa.models.meta_ac import predictor_state, to_state
from jepa.predictors.causal import CausalPredictor, CausalState, add_action
from jepa.predictors.gripper import angles, apply_delta_pose, rotation
from jepa.transformer import NORM_EPS, AdaptiveBlock
from jepa.world_model import Dynamics, rollout

B, S, D, A, X = 2, 5, 16, 3, 3


def make(grid: tuple[int, int] = (2, 3), **changes) -> CausalPredictor:
    torch.manual_seed(0)
    settings: dict = {"state_size": X, "hidden": 48, "depth": 3, "heads": 4, "normalize_actions": False} | changes
    predictor = CausalPredictor(CausalPredictor.Config(**settings), D, A, grid).eval()
    with torch.no_grad():  # larger than at the start of training, so that every token matters
        for parameter in predictor.parameters():
            parameter.add_(torch.randn_like(parameter) * 0.1)
    return predictor


def inputs(predictor: CausalPredictor, steps: int = S) -> tuple[Tensor, Tensor, Tensor | None]:
    g = torch.Generator().manual_seed(1)
    z = torch.randn(B, steps, predictor.tokens, D, generator=g)
    actions = torch.randn(B, steps, A, generator=g)
    states = torch.randn(B, steps, predictor.state_size, generator=g) if predictor.state_size else None
    return z, actions, states


@torch.no_grad()
@pytest.mark.parametrize("positions", ["rotary", "rotary_tiled"])
@pytest.mark.parametrize("conditioning", ["token", "adaln"])
@pytest.mark.parametrize(("grid", "state_size"), [((2, 3), X), ((1, 1), 0)])
def test_step_by_step_equals_the_whole_pass(
    positions: str, conditioning: str, grid: tuple[int, int], state_size: int
) -> None:
    predictor = make(grid, positions=positions, state_size=state_size, conditioning=conditioning)
    assert isinstance(predictor, Dynamics)
    z, actions, states = inputs(predictor)
    whole = predictor(z, actions, states)
    for seen in range(1, S + 1):
        state = predictor.initial_state(
            z[:, :seen], actions[:, : seen - 1], None if states is None else states[:, :seen]
        )
        _, next_latent = predictor.step(state, actions[:, seen - 1])
        torch.testing.assert_close(next_latent.mean(), whole[:, seen - 1], atol=1e-5, rtol=1e-5)


@torch.no_grad()
def test_an_imagined_rollout_equals_the_whole_pass_over_what_was_imagined() -> None:
    predictor = make(camera_size=4)
    z, actions, states = inputs(predictor)
    assert states is not None
    cameras = torch.randn(B, 1, 4).expand(-1, S, -1)
    state = predictor.initial_state(z[:, :2], actions[:, :1], states[:, :2], cameras[:, :2])
    ahead = rollout(predictor, state, actions[:, None, 1:])[:, 0]  # z2 … z5
    seen = torch.cat((z[:, :2], ahead[:, :-1]), 1)
    moved = [states[:, 0], states[:, 1]]
    for t in range(1, S - 1):
        moved.append(moved[-1] + actions[:, t])
    whole = predictor(seen, actions, torch.stack(moved, 1), cameras)
    torch.testing.assert_close(ahead, whole[:, 1:], atol=1e-5, rtol=1e-5)
    without = predictor(seen, actions, torch.stack(moved, 1))
    assert (without - whole).abs().max() > 1e-3  # the camera's token matters


@torch.no_grad()
def test_nothing_of_the_future_reaches_a_prediction() -> None:
    predictor = make()
    z, actions, states = inputs(predictor)
    assert states is not None
    before = predictor(z, actions, states)
    for t in range(S - 1):
        later = [x.clone() for x in (z, actions, states)]
        for x in later:
            x[:, t + 1 :] += 100
        assert torch.equal(predictor(*later)[:, : t + 1], before[:, : t + 1])
        assert not torch.equal(predictor(*later)[:, t + 1], before[:, t + 1])


@torch.no_grad()
@pytest.mark.parametrize("which", [0, 1, 2])
def test_latent_action_and_state_of_the_present_and_the_past_matter(which: int) -> None:
    predictor = make()
    given = list(inputs(predictor))
    before = predictor(*given)
    changed = given[which]
    assert changed is not None
    given[which] = torch.cat((changed[:, :1], changed[:, 1:2] + 1, changed[:, 2:]), 1)
    difference = (predictor(*given) - before).abs().amax((0, 2, 3))
    assert difference[0] == 0 and (difference[1:] > 1e-4).all()


@torch.no_grad()
def test_candidates_share_their_beginning_and_the_state_stays_as_it_was() -> None:
    predictor = make()
    z, actions, states = inputs(predictor)
    assert states is not None
    state = predictor.initial_state(z[:, :4], actions[:, :3], states[:, :4])
    kept = [x.clone() for pair in state.past[0].pairs for x in pair] + [state.z.clone()]
    many = state.repeat(50)
    assert many.past[0].pairs[0][0] is state.past[0].pairs[0][0]
    assert many.nbytes() - many.z.nbytes < 1.2 * state.nbytes()
    plans = torch.randn(B, 50, 3, A)
    imagined = rollout(predictor, state, plans)
    assert all(
        torch.equal(a, b)
        for a, b in zip([x for pair in state.past[0].pairs for x in pair] + [state.z], kept, strict=True)
    )
    for b, k in ((0, 0), (0, 49), (1, 7)):
        single = state.gather(torch.tensor([b]))
        for h in range(3):
            single, next_latent = predictor.step(single, plans[b, k, h][None])
            torch.testing.assert_close(next_latent.mean()[0], imagined[b, k, h], atol=1e-5, rtol=1e-5)


@torch.no_grad()
def test_gathered_states_go_on_as_their_own_rows_did() -> None:
    predictor = make()
    z, actions, states = inputs(predictor)
    assert states is not None
    state = predictor.initial_state(z[:, :2], actions[:, :1], states[:, :2]).repeat(3)
    plans = torch.randn(2 * 3, 2, A)
    after, _ = predictor.step(state, plans[:, 0])
    chosen = torch.tensor([4, 4, 1])
    _, ahead = predictor.step(after, plans[:, 1])
    _, again = predictor.step(after.gather(chosen), plans[chosen, 1])
    torch.testing.assert_close(again.mean(), ahead.mean()[chosen], atol=1e-6, rtol=1e-6)


def test_gradients_reach_the_actions_through_the_cache_and_detach_cuts_them() -> None:
    predictor = make()
    z, actions, states = inputs(predictor)
    assert states is not None
    actions.requires_grad_()
    state = predictor.initial_state(z[:, :1], actions[:, :0], states[:, :1])
    for t in range(3):
        state, next_latent = predictor.step(state, actions[:, t])
    next_latent.mean().sum().backward()
    assert actions.grad is not None
    assert (actions.grad[:, :3].abs().amax((0, 2)) > 0).all() and (actions.grad[:, 3:] == 0).all()
    patchify = state.detach()
    assert not any(x.requires_grad for part in patchify.past for pair in part.pairs for x in pair)
    assert not patchify.z.requires_grad and torch.equal(patchify.z, state.z)


@torch.no_grad()
def test_conditioning_tokens_turn_by_time_alone_and_columns_are_spread_over_the_rows() -> None:
    """What facebookresearch/vjepa2 computes: angle = position * 10000^(-(channel mod n) / n) by axis, frames of 3 + 4x8
    tokens; columns stand at j * rows / columns."""
    predictor = make((4, 8), positions="rotary_tiled", hidden=64, heads=2, camera_size=4)
    table = predictor._rotary(first=2, steps=2, conditions=3, device=torch.device("cpu"))[0].unflatten(0, (2, 35))
    pairs = 32 // 3 // 2  # of an axis
    for frame, token, position in (
        (0, 0, (2, 0, 0)),
        (1, 2, (3, 0, 0)),
        (1, 3, (3, 0, 0)),
        (0, 3 + 8 + 3, (2, 1, 1.5)),
        (1, 3 + 31, (3, 3, 3.5)),
    ):
        turns = torch.stack(table[frame, token].angle().unbind(0), -1).flatten()  # channel by channel
        for axis, at in enumerate(position):
            for channel in range(2 * pairs):
                expected = at * 10000.0 ** (-(channel % pairs) / pairs)
                expected = (expected + math.pi) % (2 * math.pi) - math.pi
                assert turns[2 * pairs * axis + channel] == pytest.approx(expected, abs=1e-5)
        assert (turns[6 * pairs :] == 0).all()


def test_the_published_predictor_has_305_million_parameters() -> None:
    published = CausalPredictor.Config(
        state_size=7,
        positions="rotary_tiled",
        camera_size=6,
        layer_norm_out=True,
        next_state="apply_delta_pose",
        normalize_actions=False,
    )
    with torch.device("meta"):
        predictor = CausalPredictor(published, 1408, 7, (16, 16))
    count = sum(parameter.numel() for parameter in predictor.parameters())
    assert count == 305_220_992  # 305.2 M, with the camera's encoder, which the checkpoint holds though it is not used
    assert len(predictor.predictor_blocks) == 24 and predictor.tokens == 256


def test_metas_names_there_and_back_are_bit_identical() -> None:
    ours = make(camera_size=4)
    theirs = predictor_state(ours)
    assert {
        "module.predictor_embed.weight",
        "module.action_encoder.bias",
        "module.state_encoder.weight",
        "module.extrinsics_encoder.weight",
        "module.predictor_blocks.2.attn.qkv.weight",
        "module.predictor_blocks.0.mlp.fc2.bias",
        "module.predictor_norm.weight",
        "module.predictor_proj.bias",
    } <= set(theirs)
    other = make(camera_size=4, depth=3)
    for parameter in other.parameters():
        parameter.data.zero_()
    other.load_state_dict({name.removeprefix("module."): tensor for name, tensor in theirs.items()})
    assert all(torch.equal(a, b) for a, b in zip(ours.parameters(), other.parameters(), strict=True))


@torch.no_grad()
def test_predictions_are_layer_normed_where_the_latents_are() -> None:
    predictor = make(layer_norm_out=True)
    out = predictor(*inputs(predictor))
    assert out.mean(-1).abs().max() < 1e-5
    torch.testing.assert_close(out.var(-1, correction=0), torch.ones(out.shape[:-1]), atol=1e-2, rtol=0)


def test_wrong_widths_are_reported() -> None:
    predictor = make()
    z, actions, states = inputs(predictor)
    with pytest.raises(ValueError, match=r"latents \[6, 16\], found \[5, 16\]"):
        predictor(z[:, :, :5], actions, states)
    with pytest.raises(ValueError, match="actions 3 wide"):
        predictor(z, actions[..., :2], states)
    with pytest.raises(ValueError, match="states 3 wide at every frame, found None"):
        predictor.initial_state(z, actions[:, 1:])
    with pytest.raises(ValueError, match="camera poses 0 wide, found 4"):
        predictor(z, actions, states, torch.zeros(B, S, 4))
    with pytest.raises(ValueError, match="next_state"):
        add_action(torch.zeros(1, 3), torch.zeros(1, 2))


def test_a_gripper_turns_by_the_product_of_rotations() -> None:
    g = torch.Generator().manual_seed(0)
    state, action = ((torch.rand(64, 7, generator=g, dtype=torch.float64) - 0.5) * 2 for _ in range(2))
    after = apply_delta_pose(state, action)
    axes = torch.tensor(
        [[[0, 0, 0], [0, 0, -1], [0, 1, 0]], [[0, 0, 1], [0, 0, 0], [-1, 0, 0]], [[0, -1, 0], [1, 0, 0], [0, 0, 0]]]
    )

    def turn(three: Tensor) -> Tensor:
        about_x, about_y, about_z = (torch.linalg.matrix_exp(three[:, i, None, None] * axes[i]) for i in range(3))
        return about_z @ about_y @ about_x

    torch.testing.assert_close(turn(after[:, 3:6]), turn(action[:, 3:6]) @ turn(state[:, 3:6]))
    torch.testing.assert_close(after[:, :3], state[:, :3] + action[:, :3])
    assert after[:, 6].min() >= 0 and after[:, 6].max() <= 1
    torch.testing.assert_close(angles(rotation(state[:, 3:6])), state[:, 3:6])


@torch.no_grad()
def test_a_predictor_may_know_how_its_state_moves() -> None:
    torch.manual_seed(0)
    predictor = CausalPredictor(
        CausalPredictor.Config(state_size=7, hidden=24, depth=1, heads=2, next_state="apply_delta_pose"),
        D,
        7,
        grid=(2, 2),
    )
    state = predictor.initial_state(torch.randn(1, 1, 4, D), torch.zeros(1, 0, 7), torch.zeros(1, 1, 7))
    after, _ = predictor.step(state, torch.full((1, 7), 0.6))
    after, _ = predictor.step(after, torch.full((1, 7), 0.6))
    assert isinstance(after, CausalState)
    assert after.state is not None and after.state[0, 6] == 1 and after.state[0, 0] == pytest.approx(1.2)


@torch.no_grad()
@pytest.mark.parametrize("conditioning", ["token", "adaln"])
@pytest.mark.parametrize("window", [1, 2, 3])
def test_with_a_window_the_cache_is_exact_also_after_it_slid_and_stops_growing(window: int, conditioning: str) -> None:
    predictor = make(window=window, conditioning=conditioning)
    z, actions, states = inputs(predictor, steps=9)
    assert states is not None
    whole = predictor(z, actions, states)
    for seen in (1, 4):
        state, sizes = predictor.initial_state(z[:, :seen], actions[:, : seen - 1], states[:, :seen]), []
        for t in range(seen - 1, 9):  # what was seen takes the place of what was imagined
            state = CausalState(state.past, state.steps, z[:, t], states[:, t])
            state, next_latent = predictor.step(state, actions[:, t])
            torch.testing.assert_close(next_latent.mean(), whole[:, t], atol=1e-5, rtol=1e-5)
            sizes.append(state.nbytes())
        assert len(set(sizes[window - 1 :])) == 1, sizes


@torch.no_grad()
def test_a_window_hides_what_is_older_from_a_single_block_and_lets_depth_reach_further() -> None:
    for depth, reached in ((1, {0, 1}), (2, {0, 1, 2}), (3, {0, 1, 2, 3})):
        predictor = make(window=2, depth=depth)
        z, actions, states = inputs(predictor, steps=6)
        other = z.clone()
        other[:, 0] += 1.0
        change = (predictor(z, actions, states) - predictor(other, actions, states)).abs().amax((0, 2, 3))
        assert set(change.nonzero().flatten().tolist()) == reached


def test_a_window_of_no_frames_is_refused() -> None:
    with pytest.raises(ValueError, match=r"window\n.*greater than 0"):
        make(window=0)


@torch.no_grad()
def test_modulation_starts_at_nothing_and_an_action_reaches_every_patch_of_its_frame_and_later_ones() -> None:
    torch.manual_seed(0)
    fresh = CausalPredictor(
        CausalPredictor.Config(state_size=X, hidden=48, depth=3, heads=4, conditioning="adaln"), D, A, grid=(2, 3)
    ).eval()
    z, actions, states = inputs(fresh)
    assert torch.equal(fresh(z, actions, states), fresh(z, -actions, states)), "gates are closed"
    passed_on = fresh.predictor_proj(fresh.predictor_norm(fresh.predictor_embed(z)))
    torch.testing.assert_close(fresh(z, actions, states), passed_on)
    trained = make(conditioning="adaln")
    other = actions.clone()
    other[:, 2] += 1.0
    change = (trained(z, actions, states) - trained(z, other, states)).abs().amax((0, 3))
    assert (change[:2] == 0).all() and (change[2:] > 0).all()


@torch.no_grad()
def test_an_adaptive_block_equals_its_formula() -> None:
    torch.manual_seed(0)
    block = AdaptiveBlock(24, 3)
    x, condition = torch.randn(2, 4, 24), torch.randn(2, 2, 24)  # two frames of two tokens
    found = block.step(x, None, lambda key, value: (key, value), condition=condition)
    scale1, shift1, gate1, scale2, shift2, gate2 = (
        part[:, [0, 0, 1, 1]] for part in block.modulation(torch.nn.functional.silu(condition)).split(24, -1)
    )

    def normed(x: Tensor) -> Tensor:
        return (x - x.mean(-1, keepdim=True)) / (x.var(-1, correction=0, keepdim=True) + NORM_EPS).sqrt()

    x = x + gate1 * block.attn(normed(x) * (1 + scale1) + shift1, None)
    x = x + gate2 * block.mlp(normed(x) * (1 + scale2) + shift2)
    torch.testing.assert_close(found, x)


def test_meta_has_no_modulated_predictor() -> None:
    with pytest.raises(UserError, match="conditioning tokens"):
        to_state(
            VideoViT(VideoViT.Config(patch=8, tubelet=2, width=24, depth=1, heads=2), 16, frames=4),
            make(conditioning="adaln"),
        )
