"""`jepa probe` on recordings that users bring: states of any name, infinite ones, and none at all."""

from pathlib import Path

import numpy as np
import pytest
import torch

from jepa.config import UserError, from_dict
from jepa.encoders.conv import ConvEncoder
from jepa.models import checkpoint
from jepa.models.build import build_encoder
from jepa.world_model import LatentSpec, LatentWorldModel, Preprocessing
from jepa_data.config import StreamConfig
from jepa_data.shards.encode import encode_mp4
from jepa_data.shards.write import ShardWriter
from jepa_data.stream.loader import make_loader
from jepa_probes.clips import state_names
from jepa_probes.probing.config import ProbeConfig
from jepa_probes.probing.probe import probe, state_row
from jepa_probes.probing.result import ProbeResult

pytestmark = pytest.mark.usefixtures("one_thread")
SIDE, FPS, FRAMES = 16, 10.0, 6
ROBOT = ("observation.state.0", "observation.state.1", "joint.elbow", "gripper")


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An encoder that was never trained, in a model folder of its own."""
    torch.manual_seed(0)
    config = ConvEncoder.Config(width=8, channels=4, hidden=16)
    spec, seen = LatentSpec(1, 8, 2 / FPS, 2), Preprocessing(SIDE, FPS, (0.5, 0.5, 0.5), (0.25, 0.25, 0.25))
    world = LatentWorldModel(build_encoder(config, SIDE, FRAMES), None, spec, seen)
    described = {
        "method": "none",
        "encoder": config.model_dump(mode="json"),
        "dynamics": None,
        "frames": FRAMES,
        "spec": vars(spec),
        "preprocessing": vars(seen),
    }
    checkpoint.save(folder := tmp_path_factory.mktemp("model"), world, described)
    return folder


def write(folder: Path, names: tuple[str, ...], *, broken: bool = False) -> Path:
    """Episodes whose brightness is the last state; the label says whether they begin bright."""
    random = np.random.default_rng(0)
    writer = ShardWriter(
        folder,
        fps=FPS,
        image_size=SIDE,
        world=None,
        action_size=0,
        state_names=names,
        label_names=("bright",),
        seed=0,
    )
    with writer:
        for number in range(30):
            states = random.uniform(-1, 1, (FRAMES, max(1, len(names)))).astype(np.float32)
            states[:, -1] = np.sort(states[:, -1])[:: (-1) ** number]
            gray = np.repeat((127 + 120 * states[:, -1]).astype(np.uint8), SIDE * SIDE * 3)
            video = encode_mp4(gray.reshape(FRAMES, SIDE, SIDE, 3), FPS)
            if broken and number in (3, 28):
                states[-1, 0] = np.inf
            split, metadata = "train" if number < 20 else "test", {"labels": {"bright": number % 2}}
            writer.write(split, f"episode-{number}", video, FRAMES, None, states if names else None, metadata)
    return folder


def probed(model: Path, shards: Path, out: Path, **settings: object) -> ProbeResult:
    config = from_dict({"shards": str(shards), "clips_per_video": 1} | settings, ProbeConfig)
    return probe(model, config, out=out)


def test_recordings_of_a_robot_are_probed_whatever_its_states_are_called(
    model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    # Shards that others wrote may hold infinite states; ours refuses to.
    monkeypatch.setattr("jepa_data.shards.write.check_states", lambda states, names: ())
    result = probed(model, write(tmp_path / "robot", ROBOT, broken=True), tmp_path / "out")
    scores = result.scores
    rows = {f"state.{name}" for name in (*ROBOT, "observation.state", "joint")}
    assert {"state_r2", "class.bright.linear.accuracy", *rows} <= set(scores)
    assert all({"pretrained", "random_init", "pixels", "pca_pixels", "floor"} == set(scores[row]) for row in rows)
    assert scores["state.gripper"]["pixels"] > 0.9 > 0.2 > scores["state.joint.elbow"]["pixels"]
    known = [scores[f"state.{name}"]["pixels"] for name in ROBOT]
    assert scores["state_r2"]["pixels"] == pytest.approx(np.mean(known))
    assert "state observation.state.0: infinite" in caplog.messages[-1]
    assert "(1 in training and 1 in testing)" in caplog.messages[-1]
    assert result.dropped["state_infinite"] == {s: {"observation.state.0": 1} for s in ("train", "test")}
    assert result.dropped["state_dropped"]["observation.state.0"] == 1
    assert ProbeResult.read(tmp_path / "out") == result
    assert state_row(result).startswith("state R²")


def test_without_states_the_labels_are_scored(model: Path, tmp_path: Path) -> None:
    result = probed(model, write(tmp_path / "plain", ()), tmp_path / "out")
    assert result.scores and all(row.startswith("class.bright.") for row in result.scores)
    assert "classification only" in state_row(result)


def test_a_mix_of_corpora_with_different_states_is_probed_for_its_labels_alone(tmp_path: Path) -> None:
    sources = tuple({"shards": str(write(tmp_path / names[0], names))} for names in (ROBOT, ("a.x", "a.y")))
    data = StreamConfig.model_validate({"shards": sources, "batch_size": 4, "clip_frames": FRAMES})
    loaders = {split: make_loader(data, split, seed=0, shuffle=False) for split in ("train", "test")}
    assert state_names(loaders) == ()


def test_the_headline_is_the_mean_of_the_groups_that_the_config_names(model: Path, tmp_path: Path) -> None:
    shards = write(tmp_path / "robot", ROBOT)
    scores = probed(model, shards, tmp_path / "out", headline=["joint", "gripper"]).scores
    for column, r2 in scores["state_r2"].items():
        assert r2 == pytest.approx((scores["state.joint"][column] + scores["state.gripper"][column]) / 2)
    with pytest.raises(UserError, match=r"headline: .*gripper, joint, observation\.state\), found puck\.position"):
        probed(model, shards, tmp_path / "none", headline=["puck.position", "joint"])


def test_finer_pixels_are_other_features_in_the_same_folder(model: Path, tmp_path: Path) -> None:
    shards = write(tmp_path / "robot", ROBOT)
    one, *others = (probed(model, shards, tmp_path / "out", pixel_side=side) for side in (1, 8, 1))
    assert one.scores == others[1].scores != others[0].scores
