"""`jepa dream` in worlds that set no tasks: rewards and ends are learned from recordings; what is earned is told."""

import json
from collections.abc import Callable, Iterator
from pathlib import Path

import gymnasium
import numpy as np
import pytest
import torch
from gymnasium import spaces

import jepa
from jepa.agents.imagination.mdn_memory import Memory
from jepa.agents.imagination.policy import ImaginationPolicy
from jepa.cli import main
from jepa.config import UserError, load
from jepa.models.model import load as load_model
from jepa.predictors.mlp import MLPPredictor
from jepa.training.config import PretrainConfig
from jepa_data.config import StreamConfig
from jepa_data.sources.rollouts import Recording, record
from jepa_data.worlds import make_env
from jepa_probes.imagination.dream import load_controller, table
from jepa_probes.imagination.result import DreamResult
from jepa_probes.imagination.reward_data import collected_rewards

pytestmark = pytest.mark.usefixtures("one_thread")
Jepa = Callable[..., str]
TRAINING = """
run: {run}
data: {{shards: {data}, batch_size: 16, short: skip, cache_mib: 100, {clips}}}
encoder: {{kind: conv, width: 8, channels: 8, hidden: 32, tubelet: {tubelet}}}
method: {{kind: lewm, directions: 32, predictor: {predictor}}}
optimizer: {{lr: 4e-3}}
trainer: {{steps: {steps}, checkpoint_every: 1000, device: cpu}}
"""


class Drift(gymnasium.Env):
    """A bar slides ever further to the side on which it is; pushed too far, it falls. Each step is worth `worth`."""

    metadata = {"render_modes": ["rgb_array"], "render_fps": 10}  # noqa: RUF012 - Gymnasium's own form

    def __init__(self, render_mode=None, discrete=False, counts=False):
        self.render_mode, self.counts = render_mode, counts
        self.observation_space = spaces.Box(-2, 2, (1,))
        self.action_space = spaces.Discrete(2) if discrete else spaces.Box(-1, 1, (1,))

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.x, self.steps = self.np_random.uniform(-0.4, 0.4), 0
        return np.float32([self.x]), {}

    def step(self, action):
        push = 2.0 * action - 1 if isinstance(action, int) else float(action[0])
        self.x, self.steps = 1.1 * self.x + 0.15 * push, self.steps + 1
        worth = float(self.steps) if self.counts else 1 - abs(self.x)
        return np.float32([self.x]), worth, abs(self.x) > 1, False, {}

    def render(self):
        where = 16 + 14 * np.clip(self.x, -1.1, 1.1)
        columns = 255 * np.exp(-((np.arange(32) - where) ** 2) / 8)
        return np.broadcast_to(columns[None, :, None], (32, 32, 3)).astype(np.uint8)


@pytest.fixture(scope="module", autouse=True)
def worlds() -> Iterator[None]:
    names = {"Drift-v0": {}, "DriftChoice-v0": {"discrete": True}, "DriftCount-v0": {"counts": True}}
    for name, settings in names.items():
        gymnasium.register(name, entry_point=Drift, kwargs=settings, disable_env_checker=True, order_enforce=False)
    yield
    for name in names:
        gymnasium.registry.pop(name)


def trained(
    folder: Path,
    world: str,
    *,
    steps: int,
    episodes: int = 80,
    tubelet: int = 1,
    clips: str = "clip_frames: 6",
    predictor: str = "{hidden: 64}",
) -> Path:
    record(Recording(world, episodes=episodes, frames=30, image_size=32), folder / "data")
    config = folder / "train.yaml"
    config.write_text(
        TRAINING.format(
            run=folder / "run", data=folder / "data", steps=steps, tubelet=tubelet, clips=clips, predictor=predictor
        )
    )
    with pytest.raises(SystemExit) as ended:
        main(["pretrain", str(config)])
    assert ended.value.code == 0
    return folder / "run"


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return trained(tmp_path_factory.mktemp("drift"), "gym:DriftChoice-v0", steps=60, episodes=50)


@pytest.fixture
def run_jepa(capsys: pytest.CaptureFixture[str]) -> Jepa:
    def call(*arguments: object, fails: bool = False) -> str:
        with pytest.raises(SystemExit) as ended:
            main([str(argument) for argument in arguments])
        told = capsys.readouterr()
        assert ended.value.code == (2 if fails else 0), told.err
        return told.err if fails else told.out

    return call


OWN = ["reward={kind: world, heads: {updates: 400, batch: 64, hidden: 32, lr: 4e-3}}", "tasks=20", "steps=30"]
ACTOR = "controller={kind: actor_critic, updates: 40, batch: 64, horizon: 12, hidden: 32, lr: 4e-3, discount: 0.95}"
EVOLUTION = "controller={kind: evolution, generations: 10, population: 8, rollouts: 8, horizon: 12, mirrored: 0.25}"


@pytest.mark.parametrize(
    "controller",
    [pytest.param(ACTOR, marks=pytest.mark.slow, id="actor"), pytest.param(EVOLUTION, id="evolution")],
)
def test_it_learns_from_the_worlds_own_reward_and_stays_alive(run: Path, run_jepa: Jepa, controller: str) -> None:
    told = run_jepa("dream", run, *OWN, controller)
    result = json.loads((run / "dream.json").read_text())
    floor = result["baselines"]["random"]
    assert result["low"] > floor["high"] and result["length"] > 1.3 * floor["length"]
    assert result["low"] < result["return"] < result["high"]
    assert result["episodes"] == len(result["collected_rewards"]) == 20
    assert result["return"] == pytest.approx(np.mean(result["collected_rewards"]))
    assert result["heads"]["reward_r2"] > 0.5
    assert result["heads"]["goes_on_at_ends"] < 0.5 < 0.8 < result["heads"]["goes_on_elsewhere"]
    whole = result["returns"]["task"]
    assert whole["steps"] == 30 and whole["world"] == pytest.approx(result["return"], abs=1e-3)
    assert result["returns"]["horizon"]["steps"] == 12
    assert all(line in told for line in table(DreamResult.read(run))) and "in the world" in told
    assert result["protocol"]["world"] == "gym:DriftChoice-v0" and result["planner"] is None


def test_its_controller_acts_in_the_environment_without_a_goal(run: Path, run_jepa: Jepa) -> None:
    few = ["reward={kind: world, heads: {updates: 2}}", "tasks=2", "steps=4"]
    run_jepa("dream", run, *few, EVOLUTION.replace("generations: 10", "generations: 1"))
    env = make_env("gym:DriftChoice-v0", image_size=32, max_steps=5)
    image, _ = env.reset(seed=0)
    learned = load_controller(run)
    assert learned.normalizer.actor_inputs == "latent" and learned.space.bounds == "choice"
    policy = ImaginationPolicy(jepa.load(run), learned, fps=10.0)
    for _ in range(5):
        action = policy.act(image)
        assert sorted(action.tolist()) == [0, 1]
        image = env.step(action)[0]


@torch.no_grad()
def test_with_memory_the_controller_sees_in_the_world_what_it_saw_in_recordings(tmp_path: Path, run_jepa: Jepa) -> None:
    folder = trained(tmp_path, "gym:DriftChoice-v0", steps=3, episodes=12, predictor="{kind: mdn_rnn, hidden: 6}")
    sampled = ["reward={kind: world, memory: true, heads: {updates: 2}}", "sampled=true", "temperatures=[0.5]"]
    few = ["controller={kind: evolution, generations: 1, population: 4, rollouts: 2, checks: 4, horizon: 3}", "tasks=3"]
    told = run_jepa("dream", folder, *sampled, *few, "steps=5")
    assert "temperature" in told
    learned, model = load_controller(folder), load_model(folder)
    assert learned.normalizer.actor_inputs == "memory" and learned.normalizer.size == 8 + 2 * 6
    found = collected_rewards(model, load(folder / "config.yaml", PretrainConfig).data, 1)
    seen = Memory(model.dynamics, 1, 8).along(found.latents, found.actions, torch.zeros(len(found.latents)).long())
    policy = ImaginationPolicy(model, learned, fps=10.0)
    latents, blocks = iter(found.latents[:, None]), iter(found.actions[1:, None])
    model.encode = lambda clip: next(latents)[None]  # pyright: ignore[reportAttributeAccessIssue]
    for expected in seen:
        policy.act(np.zeros((32, 32, 3), np.uint8))
        assert policy.latent is not None
        torch.testing.assert_close(policy.latent[0], expected, atol=1e-5, rtol=1e-5)
        policy._block = next(blocks, None)
    model.dynamics = MLPPredictor(MLPPredictor.Config(), 8, 2)
    with pytest.raises(ValueError, match="expected dynamics of kind mdn_rnn"):
        ImaginationPolicy(model, learned, fps=10.0)


def test_each_moment_has_the_rewards_since_the_last_one_and_episodes_end_where_they_did(tmp_path: Path) -> None:
    """Steps are worth 1, 2, 3, …; the model sees every second frame, two of them in a latent step."""
    folder = trained(tmp_path, "gym:DriftCount-v0", steps=2, episodes=12, tubelet=2, clips="fps: 5, clip_frames: 4")
    config, model = load(folder / "config.yaml", PretrainConfig), load_model(folder)
    found = collected_rewards(model, config.data, None)
    lengths = []
    for name in dict.fromkeys(found.episodes):
        rows = [i for i, key in enumerate(found.episodes) if key == name]
        rewards, ended = found.rewards[rows], found.terminated[rows]
        assert rewards[0].isnan()  # the first image, standing still
        last = int((rewards[-1] / 4 + 1.5).item())  # t + t-1 + t-2 + t-3 = 4 t - 6
        expected = [4 * t - 6 if t > 3 else float("nan") for t in range(last, 1, -4)][::-1]
        np.testing.assert_allclose(rewards[1:], expected)
        assert not ended[:-1].any() and ended[-1] == (last < 29)
        lengths.append(last + 1)
    assert len(lengths) == 10 and min(lengths) < 30  # of the training episodes; some fell
    assert len(set(collected_rewards(model, config.data, 3).episodes)) == 3


def test_a_world_whose_episodes_never_end_has_no_continue_head(tmp_path: Path, run_jepa: Jepa) -> None:
    folder = trained(tmp_path, "gym:Pendulum-v1", steps=2, episodes=4)
    few = ["tasks=3", "steps=6", "reward={kind: world, heads: {updates: 2}}"]
    run_jepa("dream", folder, *few, "controller={kind: actor_critic, updates: 1, batch: 4, horizon: 2, hidden: 8}")
    result = json.loads((folder / "dream.json").read_text())
    assert set(result["heads"]) == {"reward_r2"} and result["length"] == 6 and result["return"] < 0
    assert load_controller(folder).space.bounds == "box"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "gym:DriftChoice-v0 sets no goals; learn from its own reward: 'reward={kind: world}'"),
        (["world=gym:Drift-v0", *OWN], "world is 'gym:Drift-v0' in the config"),
        ([*OWN, "clips=1"], "two are needed, found one"),
        ([*OWN, "temperature=0.5"], "set sampled: true"),
        (["reward={kind: world, memory: true}"], "expected dynamics of kind mdn_rnn"),
        (["reward={kind: own}"], "reward"),
    ],
)
def test_a_mistake_is_reported_in_one_line(arguments: list[str], message: str, run: Path, run_jepa: Jepa) -> None:
    told = run_jepa("dream", run, *arguments, fails=True)
    assert message in told and told.startswith("error: ") and told.count("\n") == 1


def test_a_controller_that_sees_the_goal_wants_one(run: Path, corpus: Path) -> None:
    from jepa.agents.controller import ActionSpace, Linear, ObservationNormalizer

    with pytest.raises(UserError, match="give an image of it"):
        ImaginationPolicy(jepa.load(run), Linear(ObservationNormalizer(1, 8), ActionSpace(2)), fps=10.0)
    data = StreamConfig.model_validate({"shards": str(corpus), "batch_size": 4, "clip_frames": 6})
    with pytest.raises(UserError, match="no rewards were recorded"):
        collected_rewards(jepa.load(run), data, None)
