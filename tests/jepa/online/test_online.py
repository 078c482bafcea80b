"""`jepa online`: collect, learn, imagine; a run that is stopped goes on with the same numbers."""

import csv
import shutil
from pathlib import Path
from typing import Any

import gymnasium
import numpy as np
import pytest
import torch
from safetensors.torch import load_file

import jepa
from jepa.agents.controller import Actor
from jepa.cli import main
from jepa.config import UserError, from_dict
from jepa.online.agent import load_agent
from jepa.online.config import OnlineConfig
from jepa.online.loop import Online, learn_online
from jepa.online.result import OnlineResult, table
from jepa_data.errors import DataError
from jepa_data.worlds import make_env

pytestmark = pytest.mark.usefixtures("one_thread")
ROOMS = {"world": "two-rooms", "image_size": 32, "max_steps": 8, "action_repeat": 2, "goal": [0.2, 0.3]}
POLE = {"world": "gym:CartPole-v1", "image_size": 16, "max_steps": 12}
RSSM = {"recurrent_size": 16, "hidden": 16, "blocks": 4, "categoricals": 4, "classes": 4}


class Blind(gymnasium.Env):
    """An environment without images: it takes no render_mode."""

    metadata = {"render_modes": ["rgb_array"]}  # noqa: RUF012 - Gymnasium's own form
    observation_space = gymnasium.spaces.Box(-1, 1, (2,))
    action_space = gymnasium.spaces.Discrete(2)


gymnasium.register("Blind-v0", Blind)


def describe(run: Path, **changes: Any) -> OnlineConfig:
    described = {
        "run": str(run),
        "environment": POLE,
        "encoder": {"channels": [4, 8]},
        "method": {"kind": "dreamer", "predictor": RSSM, "decoder_channels": 4},
        "controller": {"horizon": 3, "batch": 4, "hidden": 16},
        "replay": {"batch_size": 2, "sequence_frames": 6, "capacity": 60},
        "steps": 70,
        "random_steps": 24,
        "train_ratio": 2,
        "evaluate_every": 30,
        "evaluation_episodes": 2,
        "checkpoint_every": 20,
        "device": "cpu",
    }
    return from_dict(described | changes, OnlineConfig)


def rows(run: Path) -> list[dict[str, str]]:
    with (run / "logs" / "metrics.csv").open(newline="") as file:
        return list(csv.DictReader(file))


def test_a_stopped_run_goes_on_with_the_same_numbers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = learn_online(describe(tmp_path / "whole"))
    stopped = describe(tmp_path / "stopped")
    learn = Online._learn

    def stop(self: Online) -> dict[str, float]:
        if self.counts["steps"] > 55:
            raise KeyboardInterrupt
        return learn(self)

    monkeypatch.setattr(Online, "_learn", stop)
    with pytest.raises(KeyboardInterrupt):
        learn_online(stopped)
    monkeypatch.setattr(Online, "_learn", learn)
    saved = {path.name for path in (tmp_path / "stopped" / "replay").iterdir()}
    resumed = learn_online(stopped, resume=True)
    timed = {"seconds", "cpu_seconds"}
    assert resumed.model_dump(exclude=timed) == whole.model_dump(exclude=timed)
    assert rows(tmp_path / "stopped") == rows(tmp_path / "whole")
    for part in ("model", "model/actor"):
        first, second = (load_file(tmp_path / run / part / "model.safetensors") for run in ("whole", "stopped"))
        assert all(torch.equal(tensor, second[name]) for name, tensor in first.items())
    assert len(saved) > 1 and whole.updates > 5
    kept = sum(len(np.load(path)["rewards"]) for path in (tmp_path / "whole" / "replay").iterdir())
    assert kept <= 60


def test_a_run_leaves_a_model_an_agent_and_returns(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    described = describe(tmp_path, environment=ROOMS, encoder={"channels": [4, 8, 8]}, steps=40, random_steps=16)
    result = learn_online(described)
    assert OnlineResult.read(tmp_path) == result
    assert [score.step for score in result.evaluations] == [32, 40]
    assert set(result.baselines) == {"random", "expert"}
    assert result.baselines["expert"].mean_return > result.baselines["random"].mean_return
    assert result.decisions == 12 and result.updates == 2
    assert any(line.startswith("learned online") for line in table(result))
    model = jepa.load(tmp_path)
    agent = load_agent(tmp_path)
    env = make_env("two-rooms", image_size=32)
    image, _ = env.reset(seed=0)
    actions = [agent.act(image) for _ in range(3)]
    assert actions[0].shape == (2,) and not np.array_equal(actions[0], actions[2])  # the state remembers
    agent.reset()
    np.testing.assert_array_equal(agent.act(image), actions[0])
    agent.reset()
    both = agent.act(np.stack([image, image]))
    np.testing.assert_allclose(both, [actions[0], actions[0]], rtol=1e-4, atol=1e-5)
    assert model.spec.action_size == 2 and model.dynamics is not None


def test_discrete_actions_are_one_hot_and_ends_are_learned(tmp_path: Path) -> None:
    config = describe(tmp_path)
    learn_online(config)
    online = Online(config)
    online.restore()
    for episode in online.replay.episodes.values():
        assert ((episode.actions[:-1] == 0) | (episode.actions[:-1] == 1)).all()
        assert (episode.actions[:-1].sum(-1) == 1).all() and (episode.actions[-1] == 0).all()
        assert np.isnan(episode.rewards[0]) and (episode.rewards[1:] == 1).all()
    assert {float(row["train/continue"]) for row in rows(tmp_path) if row["train/continue"]}


def test_imagination_changes_the_controller_alone(tmp_path: Path) -> None:
    online = Online(describe(tmp_path))
    for _ in range(2):
        online._collect()
    batch = online.replay.draw(2, 6, torch.Generator().manual_seed(0))
    method = online.learner.method
    _, features = method.learn(batch, torch.Generator().manual_seed(0))
    before = {name: value.clone() for name, value in method.state_dict().items()}
    actor: Actor = online.learner.actor
    weights = [p.clone() for p in actor.parameters()]
    online.learner._imagine(features, torch.zeros(2, 6, dtype=torch.bool))
    assert all(torch.equal(value, before[name]) for name, value in method.state_dict().items())
    assert any(not torch.equal(a, b) for a, b in zip(weights, actor.parameters(), strict=True))
    assert all(p.requires_grad and p.grad is None for p in method.parameters())


@pytest.mark.parametrize(
    ("changes", "error", "words"),
    [
        ({"method": {"kind": "lewm"}}, UserError, "expected kind dreamer with predict: rewards"),
        ({"method": {"kind": "dreamer", "predict": "nothing"}}, UserError, "expected kind dreamer with predict"),
        ({"controller": {"kind": "evolution"}}, UserError, "expected kind actor_critic"),
        ({"encoder": {"kind": "conv", "tubelet": 2}}, UserError, r"encoder.tubelet: expected 1"),
        ({"environment": POLE | {"world": "gym:NoSuch-v0"}}, DataError, "Gymnasium cannot make 'NoSuch-v0'"),
        ({"environment": POLE | {"world": "gym:Blind-v0"}}, DataError, r"Blind-v0' with render_mode='rgb_array'"),
        ({"environment": POLE | {"goal": [0.0]}}, UserError, "rewards by itself and sets no goals"),
        ({"environment": ROOMS | {"goal": None}}, UserError, r"expected 2 numbers \(agent.x, agent.y\), found none"),
        ({"environment": ROOMS | {"world": "camera", "goal": None}}, UserError, "no rewards and no goals"),
        (
            {"replay": {"sequence_frames": 64, "batch_size": 2}, "train_ratio": 64},
            UserError,
            "raise random_steps, or lower sequence_frames",
        ),
    ],
)
def test_bad_input_is_one_clear_line(tmp_path: Path, changes: dict, error: type[Exception], words: str) -> None:
    with pytest.raises(error, match=words) as raised:
        learn_online(describe(tmp_path / "run", **changes))
    assert "\n" not in str(raised.value)


def test_a_folder_is_neither_overwritten_nor_resumed_by_mistake(tmp_path: Path) -> None:
    config = describe(tmp_path, steps=30)
    with pytest.raises(UserError, match=r"no checkpoints/last\.ckpt to resume from"):
        learn_online(config, resume=True)
    learn_online(config)
    with pytest.raises(UserError, match="already holds a run"):
        learn_online(config)
    with pytest.raises(UserError, match="cannot be resumed with another seed, train_ratio"):
        learn_online(describe(tmp_path, steps=30, seed=1, train_ratio=3), resume=True)
    shutil.rmtree(tmp_path / "replay")
    with pytest.raises(UserError, match=r"000000.npz: missing or damaged"):
        learn_online(config, resume=True)


def test_the_command_prints_returns(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "online.yaml"
    path.write_text(describe(tmp_path / "run", steps=30).model_dump_json())
    with pytest.raises(SystemExit) as ended:
        main(["online", str(path), "seed=1"])
    assert ended.value.code == 0
    printed = capsys.readouterr().out
    assert "learned online" in printed and "random" in printed and "online.json" in printed
