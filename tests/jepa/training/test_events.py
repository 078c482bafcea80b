"""Models that are trained with events: saved with their names, prompted by name, planned with plain actions."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import jepa
from jepa.agents.policy import PlanSettings, Policy
from jepa.config import UserError, from_dict
from jepa.events import append_events
from jepa.normalize import Standardize
from jepa.planners.random_shooting import RandomShooting
from jepa.predictors.mlp import MLPPredictor
from jepa.training.config import PretrainConfig
from jepa.training.pretrain import pretrain
from jepa.world_model import LatentWorldModel, block_actions, rollout
from jepa_data.sources.rollouts import Recording, record
from jepa_probes.planning.recordings import clip_loader
from tests.edited import write_edited

pytestmark = pytest.mark.usefixtures("one_thread")
NAMES = ("close-door", "open-door", "move-door-up", "move-door-down")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("events")
    record(Recording("two-rooms", 10, 16, 32, events=4), out / "rooms")
    record(Recording("billiards-easy", 10, 16, 32, events=4), out / "table")
    record(Recording("two-rooms", 10, 16, 32), out / "plain")
    return out


def config(run: Path, shards: Path, **changes: Any) -> PretrainConfig:
    described: dict[str, Any] = {
        "run": str(run),
        "data": {"shards": str(shards), "batch_size": 4, "clip_frames": 8},
        "encoder": {"kind": "conv", "width": 12, "channels": 8, "hidden": 16, "tubelet": 2},
        "method": {"kind": "lewm", "directions": 8, "predictor": {"kind": "mlp", "hidden": 24}},
        "trainer": {"steps": 2, "device": "cpu", "precision": "fp32"},
    }
    return from_dict(described | changes, PretrainConfig)


@pytest.fixture(scope="module")
def model(folder: Path) -> LatentWorldModel:
    pretrain(config(folder / "run", folder / "rooms"))
    return jepa.load(folder / "run")


def test_names_are_saved_and_actions_stay_as_wide_as_the_worlds(model: LatentWorldModel, folder: Path) -> None:
    assert model.spec.events == NAMES
    assert (model.spec.action_size, model.spec.block_size) == (2, 4)
    assert isinstance(model.dynamics, MLPPredictor) and model.dynamics.action_size == 12
    scale = model.dynamics.scale_actions
    assert isinstance(scale, Standardize)
    block = scale.mean.unflatten(0, (2, 6)), scale.std.unflatten(0, (2, 6))
    assert not block[0][:, 2:].any() and (block[1][:, 2:] == 1).all()
    assert (block[1][:, :2] != 1).all(), "actions are standardized, events are not"
    pretrain(config(folder / "without", folder / "plain"))
    assert "events" not in json.loads((folder / "without" / "model" / "model.json").read_text())["spec"]
    pretrain(config(folder / "ignored", folder / "rooms", data=_data(folder, events=False)))
    assert jepa.load(folder / "ignored").spec.events == ()


def _data(folder: Path, **changes: Any) -> dict[str, Any]:
    return {"shards": str(folder / "rooms"), "batch_size": 4, "clip_frames": 8} | changes


def test_an_event_is_prompted_by_name_number_or_column_and_changes_what_follows(model: LatentWorldModel) -> None:
    actions = torch.rand(3, 7, 2)
    by_name = model.condition(actions, [None, "close-door", None, None, 4, None, None])
    numbers = torch.tensor([0, 1, 0, 0, 4, 0, 0])
    assert by_name.shape == (3, 7, 6) and torch.equal(by_name[..., :2], actions)
    assert torch.equal(by_name, model.condition(actions, numbers))
    assert torch.equal(by_name, model.condition(actions, numbers.expand(3, 7)))
    assert torch.equal(by_name, model.condition(actions, by_name[..., 2:]))
    assert not model.condition(actions)[..., 2:].any()
    z = torch.randn(3, 1, 1, 12)
    assert model.dynamics is not None
    state = model.dynamics.initial_state(z, torch.zeros(3, 0, 4))
    futures = [
        rollout(model.dynamics, state, block_actions(a, 2)[:, None])
        for a in (by_name, model.condition(actions), actions)
    ]
    torch.testing.assert_close(futures[1], futures[2])
    assert not torch.allclose(futures[0], futures[1])


@pytest.mark.parametrize(
    ("events", "problem"),
    [
        (["close-dor"] + [None] * 6, r"the model has no event 'close-dor' \(did you mean 'close-door'\?\); there are"),
        (torch.tensor([5] + [0] * 6), "knows 1 close-door, .* found 5"),
        (torch.tensor([-1] + [0] * 6), "found -1"),
        (["close-door"], "for each of 7 actions"),
        (torch.zeros(3, 7, 3), "a column for each of 4 events"),
    ],
)
def test_unknown_events_are_refused(model: LatentWorldModel, events: Any, problem: str) -> None:
    with pytest.raises(UserError, match=problem):
        model.condition(torch.zeros(3, 7, 2), events)


def test_a_model_without_events_knows_none() -> None:
    actions = torch.zeros(3, 7, 2)
    assert append_events(actions, None, ()) is actions
    with pytest.raises(UserError, match="the model has no events, found 'gust'"):
        append_events(actions, ["gust"] + [None] * 6, ())


def test_a_model_with_events_plans_with_plain_actions(model: LatentWorldModel) -> None:
    image = np.zeros((2, 32, 32, 3), np.uint8)
    planner = RandomShooting(RandomShooting.Config(samples=8))
    policy = Policy(model, image, PlanSettings(planner=planner, horizon=2))
    assert np.shape(policy.act(image)) == (2, 2)


def test_shards_of_another_worlds_events_are_refused_by_name(model: LatentWorldModel, folder: Path) -> None:
    with pytest.raises(UserError, match="has the event 'gravity-left'; the model knows close-door, open-door"):
        clip_loader(model, config(folder / "x", folder / "table").data, "test", 0, {})
    clip_loader(model, config(folder / "x", folder / "plain").data, "test", 0, {})
    renamed = json.loads((folder / "rooms" / "manifest.json").read_text())
    renamed["events"] = ["close-gate", *NAMES[1:]]
    (folder / "renamed").mkdir()
    for file in (folder / "rooms").iterdir():
        (folder / "renamed" / file.name).write_bytes(file.read_bytes())
    write_edited(folder / "renamed" / "manifest.json", renamed)
    with pytest.raises(UserError, match=r"data\.shards has the event 'close-gate'; init_from: .* knows close-door"):
        pretrain(config(folder / "next", folder / "renamed", init_from=str(folder / "run")))


def test_methods_of_plain_video_ignore_events(folder: Path) -> None:
    method = {"kind": "levjepa"}
    encoder = {"kind": "video_vit", "width": 24, "depth": 1, "heads": 2, "patch": 16, "tubelet": 2}
    pretrain(config(folder / "video", folder / "rooms", method=method, encoder=encoder))
    assert jepa.load(folder / "video").spec.events == ()
