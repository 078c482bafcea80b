"""Plans that start from several latents: which ones, encoded once, with what was done and what the body said."""

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from jepa.agents.policy import PlanSettings, Policy, history_of
from jepa.config import UserError
from jepa.encoders.conv import ConvEncoder
from jepa.encoders.video_vit import VideoViT
from jepa.models.model import imported
from jepa.planners.cem import CEM
from jepa.planners.cost import goal_distance
from jepa.planners.grasp import GRASP
from jepa.planners.random_shooting import RandomShooting
from jepa.predictors.causal import CausalPredictor
from jepa.predictors.gru import GRUPredictor
from jepa.world_model import LatentSpec, LatentWorldModel, Preprocessing

pytestmark = pytest.mark.usefixtures("one_thread")
SIZE, D, A, B = 32, 8, 2, 3
RGB = (0.5, 0.5, 0.5)
CHEAP = CEM(CEM.Config(samples=8, elites=2, iterations=1))


class Watched(ConvEncoder):
    """Counts the frames it is shown."""

    frames = 0

    def forward(self, video: Tensor) -> Tensor:
        self.frames += video.shape[0] * video.shape[1]
        return super().forward(video)


class Told(CausalPredictor):
    """Notes what plans start from."""

    def initial_state(
        self, z: Tensor, actions: Tensor, states: Tensor | None = None, cameras: Tensor | None = None
    ) -> Any:
        self.starts = [*getattr(self, "starts", []), (z.clone(), actions.clone(), states)]
        return super().initial_state(z, actions, states, cameras)


def model(history: int, window: int | None = None, tubelet: int = 1, states: tuple[str, ...] = ()) -> LatentWorldModel:
    torch.manual_seed(0)
    encoder = Watched(Watched.Config(width=D, tubelet=tubelet, channels=8, hidden=16), SIZE, 4)
    sizes: dict[str, Any] = {"hidden": 24, "depth": 2, "heads": 2}
    config = Told.Config(state_size=len(states), window=window, next_state="predicted", **sizes)
    dynamics = Told(config, D, A * tubelet)
    spec = LatentSpec(1, D, 0.1 * tubelet, tubelet, A, history=history, states=states)
    return LatentWorldModel(encoder, dynamics, spec, Preprocessing(SIZE, 10.0, RGB, RGB)).eval().requires_grad_(False)


def images(count: int, batch: int = B) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (count, batch, SIZE, SIZE, 3), dtype=np.uint8)


def frames(array: np.ndarray) -> Tensor:
    """[T, B, h, w, 3] as [B, T, 3, h, w]."""
    return torch.from_numpy(array).permute(1, 0, 4, 2, 3)


@pytest.mark.parametrize(("replan_every", "tubelet"), [(1, 1), (2, 1), (3, 1), (1, 2), (2, 2)])
def test_a_plan_starts_from_the_last_latents_and_what_was_done_between_them(replan_every: int, tubelet: int) -> None:
    world, count = model(3, window=3, tubelet=tubelet), 8 * tubelet
    seen = images(count)
    policy = Policy(world, seen[0], PlanSettings(horizon=3, replan_every=replan_every, planner=CHEAP))
    done = np.stack([policy.act(image) for image in seen], 1)  # [B, T, A]
    encoder, dynamics = world.encoder, world.dynamics
    assert isinstance(dynamics, Told) and isinstance(encoder, Watched) and policy.history == 3
    shown = encoder.frames
    starts = dynamics.starts
    assert len(starts) == policy.plans == -(-8 // replan_every)
    # a latent step ends where actions of a step begin: at frame 0 (which stands still before), at tubelet, …
    for number, (z, actions, states) in enumerate(starts):
        now = number * replan_every  # in latent steps
        first = max(0, now - 2)
        assert z.shape[1] == now - first + 1 and actions.shape[1] == now - first and states is None
        for step in range(first, now + 1):
            last = step * tubelet
            clip = [max(0, f) for f in range(last - tubelet + 1, last + 1)]
            with torch.no_grad():
                alone = world.encode(frames(seen[clip]))[:, 0]
            torch.testing.assert_close(z[:, step - first], alone, atol=1e-5, rtol=1e-5)
        taken = torch.from_numpy(done[:, first * tubelet : now * tubelet]).unflatten(1, (-1, tubelet)).flatten(2)
        assert torch.equal(actions, taken)
    goal = B * tubelet
    new = {1: 8, 2: 7, 3: 7}[replan_every]  # steps up to the last plan
    assert shown == goal + B * tubelet * new, "each step is encoded once"


def test_a_model_of_one_latent_encodes_only_what_it_plans_from() -> None:
    world = model(1)
    policy = Policy(world, images(1)[0], PlanSettings(horizon=4, replan_every=4, planner=CHEAP))
    for image in images(8):
        policy.act(image)
    assert isinstance(world.encoder, Watched) and world.encoder.frames == B + 2 * B
    assert isinstance(world.dynamics, Told) and {z.shape[1] for z, _, _ in world.dynamics.starts} == {1}


def test_history_is_what_training_had_and_is_never_read_beyond() -> None:
    assert history_of(model(3, window=3), horizon=6) == 3, "what is older slides out of sight"
    assert history_of(model(7), horizon=6) == 2, "two true ones and five imagined make seven"
    assert history_of(model(7), horizon=9) == 1 and history_of(model(7), horizon=1) == 7
    world = model(1)
    world.dynamics = GRUPredictor(GRUPredictor.Config(), D, A)
    assert history_of(world, horizon=6) == 1
    policy = Policy(model(7), images(1)[0], PlanSettings(horizon=6, replan_every=1, planner=CHEAP, history=4))
    assert policy.history == 4, "asked for"
    with pytest.raises(ValueError, match=r"history 1.* found 0"):
        PlanSettings(history=0)


def test_a_new_episode_forgets_the_last_one() -> None:
    world, seen = model(3, window=3), images(4)
    policy = Policy(world, seen[0], PlanSettings(horizon=2, replan_every=1, planner=CHEAP))
    for image in seen:
        policy.act(image)
    policy.reset()
    policy.act(seen[1])
    assert isinstance(world.dynamics, Told)
    z, actions, _ = world.dynamics.starts[-1]
    assert z.shape[1] == 1 and actions.shape[1] == 0


def test_states_are_reported_at_the_same_steps_as_latents() -> None:
    world, seen = model(2, window=2, states=("agent.x", "agent.y")), images(5)
    policy = Policy(world, seen[0], PlanSettings(horizon=2, replan_every=2, planner=CHEAP))
    said = np.random.default_rng(1).normal(size=(5, B, 2))
    for image, state in zip(seen, said, strict=True):
        policy.act(image, state)
    assert isinstance(world.dynamics, Told)
    starts = world.dynamics.starts
    assert len(starts) == 3
    for number, (z, _, states) in enumerate(starts):
        now = 2 * number
        expected = torch.from_numpy(said[max(0, now - 1) : now + 1]).float().transpose(0, 1)
        assert states is not None and torch.equal(states, expected) and z.shape[1] == states.shape[1]
    one = Policy(world, seen[0, 0], PlanSettings(horizon=2, replan_every=1, planner=CHEAP))
    assert one.act(seen[0, 0], said[0, 0]).shape == (A,)


@pytest.mark.parametrize(
    ("states", "given", "message"),
    [
        (("agent.x", "agent.y"), None, r"its state as well, \[3, 2\]: agent.x, agent.y; found none"),
        (("agent.x",), np.zeros((3, 2)), r"\[3, 1\]: agent.x; found a state \[3, 2\]"),
        ((), np.zeros((3, 1)), r"reads images alone; found a state \[3, 1\]"),
    ],
    ids=["missing", "wide", "surplus"],
)
def test_a_state_that_is_missing_or_of_another_width_is_refused(states, given, message: str) -> None:
    policy = Policy(model(1, states=states), images(1)[0], PlanSettings(horizon=2, replan_every=1, planner=CHEAP))
    with pytest.raises(UserError, match=message):
        policy.act(images(1)[0], given)


def test_dynamics_that_read_no_states_are_reported_so() -> None:
    dynamics = GRUPredictor(GRUPredictor.Config(), D, A)
    with pytest.raises(ValueError, match="GRUPredictor reads no states, found 2 at every step"):
        dynamics.initial_state(torch.zeros(1, 1, 1, D), torch.zeros(1, 0, A), torch.zeros(1, 1, 2))


def test_imported_weights_of_v_jepa_2_ac_plan_with_the_gripper() -> None:
    """Without a conversion; the gripper is moved by the actions that are imagined."""
    torch.manual_seed(0)
    vit = VideoViT(
        VideoViT.Config(patch=16, tubelet=2, width=24, depth=1, heads=2, positions="rotary_tiled"), SIZE, frames=4
    )
    sizes: dict[str, Any] = {"hidden": 24, "depth": 1, "heads": 2, "positions": "rotary_tiled"}
    predictor = CausalPredictor(
        CausalPredictor.Config(
            state_size=7, **sizes, layer_norm_out=True, camera_size=6, next_state="apply_delta_pose"
        ),
        24,
        7,
        (2, 2),
    )
    world = imported("meta", vit, fps=4.0, predictor=predictor).world
    assert world.spec.states[0] == "gripper.x" and len(world.spec.states) == 7
    policy = Policy(world, images(1)[0, 0], PlanSettings(horizon=2, replan_every=1, planner=CHEAP))
    actions = [policy.act(image, np.zeros(7)) for image in images(3)[:, 0]]
    assert policy.plans == 3 and all(action.shape == (7,) and np.isfinite(action).all() for action in actions)
    with pytest.raises(UserError, match=r"\[1, 7\]: gripper.x, .*; found none"):
        policy.act(images(1)[0, 0])


def test_a_horizon_of_zero_is_refused_by_a_policy() -> None:
    with pytest.raises(ValueError, match=r"the planning horizon is 0"):
        Policy(model(1), images(1)[0], PlanSettings(horizon=0, replan_every=1, planner=CHEAP))


class Counted(CausalPredictor):
    """Notes how many rows are imagined at once."""

    most = 0

    def step(self, state: Any, action: Tensor, noise: Tensor | None = None) -> Any:
        self.most = max(self.most, len(action))
        return super().step(state, action, noise)


@pytest.mark.parametrize("history", [1, 3])
def test_plans_of_many_tokens_are_imagined_in_parts_that_fit_the_memory(history: int) -> None:
    torch.manual_seed(0)
    dynamics = Counted(Counted.Config(hidden=24, depth=2, heads=2, window=3), D, A, (4, 4)).eval().requires_grad_(False)
    z, goal = torch.randn(2, history, 16, D), torch.randn(2, 16, D)
    state = dynamics.initial_state(z, torch.randn(2, history - 1, A))
    plans = torch.randn(2, 50, 4, A)
    whole = goal_distance(dynamics, state, goal)
    expected = whole(plans)
    assert dynamics.most == 2 * 50
    parts = replace(goal_distance(dynamics, state, goal), max_bytes=2**20)
    at_once = parts.plans_at_once(plans)
    assert 1 < at_once < 50
    dynamics.most = 0
    torch.testing.assert_close(parts(plans), expected, atol=1e-6, rtol=1e-5)
    assert dynamics.most == 2 * at_once
    # what they take, counted from below: latents of all steps, and keys and values of all blocks
    keys = 4 * 2 * 24 * (16 + 1) * 2  # bytes of a frame: fp32, keys and values, width, tokens, blocks
    assert at_once * 2 * (4 * (16 * D * 4) + min(4, 2) * keys) <= 2**20
    tight = replace(goal_distance(dynamics, state, goal), max_bytes=1)
    assert tight.plans_at_once(plans) == 1
    torch.testing.assert_close(tight(plans), expected, atol=1e-6, rtol=1e-5)


def test_plans_in_parts_are_the_plans_that_they_are_at_once() -> None:
    torch.manual_seed(0)
    dynamics = (
        CausalPredictor(CausalPredictor.Config(hidden=24, depth=1, heads=2), D, A, grid=(2, 2))
        .eval()
        .requires_grad_(False)
    )
    state, goal = dynamics.initial_state(torch.randn(2, 1, 4, D), torch.zeros(2, 0, A)), torch.randn(2, 4, D)
    found = []
    for most in (2**30, 1):
        cost = replace(goal_distance(dynamics, state, goal), max_bytes=most)
        planner = RandomShooting(RandomShooting.Config(samples=64))
        plan = planner.plan(cost, torch.zeros(2, 3, A), torch.Generator().manual_seed(0))
        found.append(plan.actions)
    torch.testing.assert_close(*found)


def test_where_gradients_are_followed_nothing_is_split() -> None:
    torch.manual_seed(0)
    dynamics = (
        CausalPredictor(CausalPredictor.Config(hidden=24, depth=1, heads=2), D, A, grid=(2, 2))
        .eval()
        .requires_grad_(False)
    )
    state, goal = dynamics.initial_state(torch.randn(1, 1, 4, D), torch.zeros(1, 0, A)), torch.randn(1, 4, D)
    cost = replace(goal_distance(dynamics, state, goal), max_bytes=1)
    assert cost.plans_at_once(torch.zeros(1, 5, 3, A, requires_grad=True)) == 5
    planner = GRASP(GRASP.Config(steps=3, starts=2, sync_every=3))
    plan = planner.plan(cost, torch.zeros(1, 3, A), torch.Generator().manual_seed(0))
    assert plan.actions.shape == (1, 3, A)
