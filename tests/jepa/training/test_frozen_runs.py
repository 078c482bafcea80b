"""`jepa pretrain` with V-JEPA 2-AC and DINO-WM, by config: what the run holds, and that every verb works on it."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from lightning.pytorch.callbacks import Callback
from safetensors.torch import load_file

import jepa
from jepa.cli import main
from jepa.config import ConfigError, UserError, from_dict
from jepa.config import load as load_config
from jepa.predictors.causal import CausalPredictor
from jepa.training.config import PretrainConfig
from jepa.training.pretrain import pretrain
from jepa_data.sources.rollouts import Recording, record
from jepa_probes.imagination.config import DreamConfig
from jepa_probes.imagination.dream import dream
from jepa_probes.planning.config import PlanConfig
from jepa_probes.planning.plan import plan
from jepa_probes.probing.config import ProbeConfig
from jepa_probes.probing.probe import probe

pytestmark = pytest.mark.usefixtures("one_thread")
TRAINER = {"steps": 6, "log_every": 2, "monitor_every": 6, "checkpoint_every": 3, "device": "cpu", "precision": "fp32"}
SMALL = {"hidden": 24, "depth": 1, "heads": 2}
VIT = {"kind": "video_vit", "patch": 16, "width": 24, "depth": 1, "heads": 2}
BACKBONE = {"kind": "frame", "model": "test_vit"}
FEW = {"samples": 8, "elites": 2, "iterations": 1}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("frozen")


@pytest.fixture(scope="module")
def rooms(folder: Path) -> Path:
    record(Recording("two-rooms", episodes=24, frames=16, image_size=32), folder / "rooms")
    return folder / "rooms"


@pytest.fixture(scope="module")
def video(folder: Path, rooms: Path) -> Path:
    """A run of V-JEPA, whose encoder others freeze."""
    method = {"kind": "vjepa", "predictor": {"width": 24, "depth": 1, "heads": 2}}
    pretrain(describe(folder / "video", rooms, method, VIT))
    return folder / "video"


def describe(run: Path, shards: Path, method: dict[str, Any], encoder: Any = None, **changes: Any) -> PretrainConfig:
    description = {
        "run": str(run),
        "data": {"shards": str(shards), "batch_size": 4, "clip_frames": 4},
        "method": method,
        "trainer": TRAINER,
    }
    if encoder is not None:
        description["encoder"] = encoder
    for key, value in changes.items():
        part, _, name = key.partition("__")
        description[part] = {**description[part], name: value} if name else value
    return from_dict(description, PretrainConfig)


def acting(run: Path, rooms: Path, video: Path, **changes: Any) -> PretrainConfig:
    return describe(run, rooms, {"kind": "vjepa_ac", "encoder_from": str(video), "predictor": SMALL}, **changes)


def patches(run: Path, rooms: Path, method: dict[str, Any] | None = None, **changes: Any) -> PretrainConfig:
    method = dict(method or {})
    predictor = SMALL | {"head_dim": 12, "window": 3} | method.pop("predictor", {})
    method = {"kind": "dino_wm", "predictor": predictor} | method
    return describe(run, rooms, method, changes.pop("encoder", BACKBONE), **changes)


@pytest.fixture(scope="module")
def runs(folder: Path, rooms: Path, video: Path) -> dict[str, Path]:
    """A run of each method; DINO-WM's with states, JEPA-WMs' rollout and actions that are standardized."""
    pretrain(acting(folder / "acting", rooms, video))
    states = {"states": ["agent.x", "agent.y"], "rollout_steps": 2, "predictor": {"normalize_states": True}}
    pretrain(patches(folder / "patches", rooms, states))
    return {"vjepa_ac": folder / "acting", "dino_wm": folder / "patches"}


@pytest.mark.parametrize("name", ["vjepa_ac", "dino_wm"])
def test_a_run_leaves_a_model_that_encodes_and_predicts_alike_after_loading(runs: dict[str, Path], name: str) -> None:
    model = jepa.load(runs[name])
    summary = json.loads((runs[name] / "pretrain.json").read_text())
    assert summary["method"] == name and not summary["warnings"]
    assert summary["parameters"] == sum(p.numel() for p in model.dynamics.parameters())  # pyright: ignore
    assert model.spec.frames_per_step == 1 and model.spec.tokens == 4 and model.spec.history == 3
    assert model.spec.states == (() if name == "vjepa_ac" else ("agent.x", "agent.y"))
    config = load_config(runs[name] / "config.yaml", PretrainConfig)
    assert config.encoder is not None and config.encoder.kind == ("per_frame" if name == "vjepa_ac" else "frame")
    again = jepa.load(runs[name] / "model")
    clips = torch.randint(0, 256, (2, 3, 3, 32, 32), dtype=torch.uint8)
    z = model.encode(clips)
    assert torch.equal(z, again.encode(clips))
    told = torch.rand(2, 3, 2) if model.spec.states else None
    for seen in (model, again):
        assert isinstance(seen.dynamics, CausalPredictor)
    one, other = (m.dynamics(z, torch.ones(2, 3, 2), told) for m in (model, again))  # pyright: ignore[reportCallIssue, reportOptionalCall]
    assert torch.equal(one, other)


def test_the_encoder_is_that_of_its_run_to_the_last_bit(runs: dict[str, Path], video: Path) -> None:
    theirs = load_file(video / "model" / "model.safetensors")
    ours = load_file(runs["vjepa_ac"] / "model" / "model.safetensors")
    mine = {name.removeprefix("encoder."): x for name, x in ours.items() if name.startswith("encoder.")}
    assert mine.keys() == theirs.keys()  # "encoder." of the stills, and of the model
    assert all(torch.equal(mine[name], x) for name, x in theirs.items())


@pytest.mark.parametrize("name", ["vjepa_ac", "dino_wm"])
def test_checkpoints_hold_what_is_trained_and_not_the_encoder(runs: dict[str, Path], name: str) -> None:
    found = torch.load(runs[name] / "checkpoints" / "last.ckpt", weights_only=True)
    assert found["state_dict"] and all(key.startswith("method.dynamics.") for key in found["state_dict"])
    assert set(found["frozen"]) == {"encoder"}


@pytest.mark.parametrize("name", ["vjepa_ac", "dino_wm"])
def test_every_verb_works_on_a_run(runs: dict[str, Path], name: str, capsys: pytest.CaptureFixture[str]) -> None:
    run = runs[name]
    scores = probe(run, ProbeConfig(supervised=False, clip_frames=4, clips_per_video=1, labels=()))
    assert {"pretrained", "random_init", "pixels"} <= set(scores.scores["state_r2"])
    assert set(scores.prediction) == {"1", "10"} and scores.prediction["1"].model > 0
    config = from_dict(
        {"tasks": 3, "steps": 4, "horizon": 2, "replan_every": 1, "planner": FEW, "simulator_tasks": 0, "gifs": 0}
        | {"inverse": {"updates": 3, "batch": 8}},
        PlanConfig,
    )
    result = plan(run, config)
    assert result.plans_per_task == 4 and len(result.distances) == 3
    assert {"random", "expert", "inverse_dynamics"} <= set(result.baselines)
    if name == "dino_wm":  # whose dynamics are told states
        with pytest.raises(SystemExit) as ended:
            main(["report", str(run), "--decoder-steps", "2"])
        assert ended.value.code == 0, capsys.readouterr().err
        assert (run / "figures" / "rollout.gif").is_file()
    with pytest.raises(SystemExit) as ended:
        main(["export", str(run), "--to", "openjepa", "--out", str(run / "elsewhere")])
    assert ended.value.code == 0
    assert jepa.load(run / "elsewhere").spec == jepa.load(run).spec


def test_controllers_learn_in_dreams_of_a_run_and_are_refused_where_states_would_be_missing(
    runs: dict[str, Path],
) -> None:
    config = from_dict(
        {"tasks": 2, "steps": 3, "controller": {"kind": "actor_critic", "updates": 2, "batch": 4, "horizon": 2}},
        DreamConfig,
    )
    result = dream(runs["vjepa_ac"], config)
    assert len(result.distances or ()) == 2
    with pytest.raises(UserError, match=r"read agent.x, agent.y, and dreams start from latents alone"):
        dream(runs["dino_wm"], config)


class PowerCutError(Exception):
    pass


class PowerCut(Callback):
    """In the fifth step; a checkpoint was written after the third."""

    def on_train_batch_end(self, trainer: Any, pl_module: Any, outputs: Any, batch: Any, batch_idx: int) -> None:
        if batch_idx == 4:
            raise PowerCutError


@pytest.mark.parametrize("name", ["vjepa_ac", "dino_wm"])
def test_a_run_that_goes_on_from_a_checkpoint_ends_with_the_same_weights(
    name: str, runs: dict[str, Path], rooms: Path, video: Path, tmp_path: Path
) -> None:
    """The checkpoint lacks the encoder: it is the one of the config again."""

    def make(run: Path, **changes: Any) -> PretrainConfig:
        return acting(run, rooms, video, **changes) if name == "vjepa_ac" else patches(run, rooms, **changes)

    pretrain(make(tmp_path / "whole"))
    with pytest.raises(PowerCutError):
        pretrain(make(tmp_path / "part"), callbacks=(PowerCut(),))
    assert not (tmp_path / "part" / "model").exists()
    pretrain(make(tmp_path / "part"), resume=True)
    one, other = (load_file(tmp_path / run / "model" / "model.safetensors") for run in ("whole", "part"))
    assert one.keys() == other.keys() and all(torch.equal(one[key], other[key]) for key in one)


def test_a_checkpoint_is_not_resumed_with_another_encoder(
    rooms: Path, video: Path, tmp_path: Path, folder: Path
) -> None:
    pretrain(acting(tmp_path / "run", rooms, video, trainer__steps=3))
    weights = video / "model" / "model.safetensors"
    description = video / "model" / "model.json"
    before = weights.read_bytes(), description.read_bytes()
    method = {"kind": "vjepa", "predictor": {"width": 24, "depth": 1, "heads": 2}}
    pretrain(describe(tmp_path / "other", rooms, method, VIT, seed=1))
    for file in (weights, description):
        file.write_bytes((tmp_path / "other" / "model" / file.name).read_bytes())
    try:
        with pytest.raises(UserError, match="made with another frozen encoder"):
            pretrain(acting(tmp_path / "run", rooms, video), resume=True)
        with pytest.raises(UserError, match=r"init_from: .*made with another frozen encoder"):
            pretrain(acting(tmp_path / "next", rooms, video, init_from=str(tmp_path / "run")))
    finally:
        weights.write_bytes(before[0])
        description.write_bytes(before[1])
    pretrain(acting(tmp_path / "then", rooms, video, init_from=str(tmp_path / "run"), trainer__steps=1))


def test_the_encoder_of_a_run_with_dynamics_serves_another(runs: dict[str, Path], rooms: Path, tmp_path: Path) -> None:
    """Here stills of a video ViT; and the run's own config is enough to start again."""
    method = {"kind": "dino_wm", "encoder_from": str(runs["vjepa_ac"]), "predictor": SMALL | {"head_dim": None}}
    pretrain(describe(tmp_path / "run", rooms, method))
    again = load_config(tmp_path / "run" / "config.yaml", PretrainConfig, [f"run={tmp_path / 'again'}"])
    pretrain(again)
    one, other = (load_file(tmp_path / run / "model" / "model.safetensors") for run in ("run", "again"))
    assert all(torch.equal(one[key], other[key]) for key in one)


@pytest.mark.parametrize(
    ("method", "encoder", "changes", "message"),
    [
        ({}, VIT | {"tubelet": 2}, {}, r"it cannot be frozen: .*kind: per_frame"),
        ({"states": ["agent.x", "agnt.y"]}, BACKBONE, {}, r"no state 'agnt.y'; did you mean 'agent.y'\?"),
        ({"states": ["speed"]}, BACKBONE, {}, "no state 'speed'; there are agent.x, agent.y, wall.x, door.y"),
        ({"rollout_steps": 4}, BACKBONE, {}, "clip_frames is 4, 4 latent .* expected 5 or more"),
        ({}, BACKBONE, {"data__clip_frames": 1}, "clip_frames is 1, 1 latent .* expected 2 or more"),
        ({"rollout_steps": 1}, BACKBONE, {}, "a rollout of 1 step is teacher forcing itself"),
        ({"states": ["agent.x", "agent.x"]}, BACKBONE, {}, "each once"),
        ({"predictor": {"state_size": 2}}, BACKBONE, {}, "state_size is 2, and method.states names 0"),
        ({"predictor": {"camera_size": 6}}, BACKBONE, {}, "camera_size 0"),
        ({"predictor": {"normalize_states": True}}, BACKBONE, {}, "no states to normalize"),
        (
            {"states": ["agent.x"], "predictor": {"next_state": "add_action"}},
            BACKBONE,
            {},
            r"add_action moves states 2 wide, found 1 in method.states; let them be predicted",
        ),
        ({"encoder_from": "nowhere/at/all"}, BACKBONE, {}, "no such folder"),
        ({"encoder_from": "VIDEO"}, BACKBONE, {}, r"holds another one: kind 'per_frame' and not 'frame'"),
        ({"encoder_from": "VIDEO"}, {"kind": "per_frame", "of": VIT | {"width": 48}}, {}, "width 24 and not 48"),
        ({"encoder_from": "VIDEO"}, None, {"data__image_size": 24}, "24 px|patch"),
        ({}, None, {}, "encoder: missing; .*or name a run in method.encoder_from"),
    ],
)
def test_what_does_not_fit_is_reported_in_one_line(
    method: dict[str, Any],
    encoder: Any,
    changes: dict[str, Any],
    message: str,
    rooms: Path,
    video: Path,
    tmp_path: Path,
) -> None:
    method = {k: str(video) if v == "VIDEO" else v for k, v in method.items()}
    with pytest.raises((UserError, ConfigError), match=message) as caught:
        pretrain(patches(tmp_path / "run", rooms, method, encoder=encoder, **changes))
    assert "\n" not in str(caught.value)


def test_states_that_are_missing_in_some_episodes_are_refused(corpus: Path, tmp_path: Path) -> None:
    method = {"kind": "dino_wm", "predictor": SMALL | {"head_dim": None}, "states": ["body1.x"]}
    with pytest.raises(UserError, match=r"body1.x is missing \(NaN\) in [\d.]+% of the data"):
        pretrain(describe(tmp_path / "run", corpus, method, BACKBONE))


def test_video_without_actions_is_refused(rooms: Path, tmp_path: Path) -> None:
    from jepa.training.build_method import build_method

    with pytest.raises(UserError, match=r"has no actions, and method dino_wm learns from them"):
        build_method(patches(tmp_path / "run", rooms), 32, 0)


def test_an_encoder_is_computed_from_the_clips_before_training_and_kept_by_runs_that_take_it(
    folder: Path, rooms: Path
) -> None:
    method = {"kind": "latent_dynamics", "predictor": {"kind": "mlp", "hidden": 16}}
    first, second = folder / "components", folder / "other"
    model = pretrain(describe(first, rooms, method, {"kind": "pca", "width": 6, "side": 8}, data__fps=2))
    components = model.encoder.state_dict()["components.weight"]
    assert torch.equal(jepa.load(first).encoder.state_dict()["components.weight"], components)
    rows = components @ components.T
    assert (rows - rows.diag().diag()).abs().max() < 1e-3 * rows.diag().max(), "they are orthogonal"
    taken = pretrain(describe(second, rooms, method | {"encoder_from": str(first)}, seed=7))
    assert torch.equal(taken.encoder.state_dict()["components.weight"], components)
