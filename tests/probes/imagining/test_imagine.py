"""Imagined futures from clips, files and worlds: what is true beside them, what they are told, and what is refused."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

import jepa
from jepa.config import UserError
from jepa_data.shards.encode import encode_mp4
from jepa_data.worlds import make_batch
from jepa_probes.imagining.actions import key_actions, per_frame, read_actions
from jepa_probes.imagining.imagine import Imagined

TRAINING = """
run: RUN
data: {shards: SHARDS, batch_size: 8, clip_frames: 8, fps: 5}
encoder: {kind: conv, width: 8, tubelet: 2, channels: 8, hidden: 32}
method: {kind: lewm, directions: 16, predictor: PREDICTOR}
trainer: {steps: 2, device: cpu}
"""

pytestmark = pytest.mark.usefixtures("one_thread")


def train(corpus: Path, folder: Path, predictor: str) -> Path:
    config = folder / "train.yaml"
    run = folder / "run"
    text = TRAINING.replace("RUN", str(run)).replace("SHARDS", str(corpus)).replace("PREDICTOR", predictor)
    config.write_text(text)
    jepa.pretrain(config)
    jepa.fit_decoder(run, None, ["steps=3", "clips=8", "test_clips=4"])
    return run


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Path:
    from jepa_data.sources.rollouts import Recording, record

    folder = tmp_path_factory.mktemp("corpus") / "shards"
    record(Recording("billiards-easy", episodes=12, frames=25, image_size=32), folder)
    return folder


@pytest.fixture(scope="module")
def run(corpus: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Dynamics that predict one future; a latent step is four frames of the world."""
    return train(corpus, tmp_path_factory.mktemp("point"), "{hidden: 16}")


@pytest.fixture(scope="module")
def stochastic(corpus: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return train(corpus, tmp_path_factory.mktemp("stochastic"), "{kind: mdn_rnn, hidden: 16, gaussians: 2}")


def imagine(run: Path, *settings: str, out: Path | None = None) -> Imagined:
    return jepa.imagine(run, None, settings, out=out)


def test_a_clip_is_imagined_beside_what_was_recorded(run: Path, tmp_path: Path) -> None:
    out = tmp_path / "future.gif"
    done = imagine(run, "horizon=4", "seen=2", out=out)
    assert done.latents.shape == (1, 4, 1, 8) and done.frames.shape == (1, 4, 3, 32, 32)
    assert done.true is not None and done.true.shape == (4, 3, 32, 32) and len(done.seen) == 2
    assert len(done.result.errors) == 4 and done.result.frames_per_second > 0
    assert [round(error.seconds, 3) for error in done.result.errors] == [0.4, 0.8, 1.2, 1.6]
    with Image.open(out) as image:
        assert image.n_frames == 6  # pyright: ignore[reportAttributeAccessIssue]
    written = json.loads(out.with_suffix(".json").read_text())
    assert written["errors"][0]["pixels"] == pytest.approx(done.result.errors[0].pixels)


def test_latents_are_those_of_a_rollout_of_the_recorded_actions(run: Path) -> None:
    from jepa.training.run_state.run_folder import run_config
    from jepa.world_model import block_actions, rollout
    from jepa_data.stream.loader import make_loader

    done = imagine(run, "horizon=3", "seen=1", "clip=1")
    model = jepa.load(run)
    changes = {"clip_frames": 8, "batch_size": 2, "start_seconds": 0.0}
    clips = next(iter(make_loader(run_config(run).data.model_copy(update=changes), "test", seed=0, shuffle=False)))
    z = model.encode_clips(clips.video)
    assert clips.actions is not None and model.dynamics is not None
    blocks = block_actions(clips.actions, 2)
    state = model.dynamics.initial_state(z[1:2, :1], blocks[1:2, :0])
    expected = rollout(model.dynamics, state, blocks[1:2, None])[0]
    assert torch.allclose(done.latents, expected, atol=1e-5)
    assert done.true is not None and torch.equal(done.true, clips.video[1, 3::2])


def test_other_actions_from_a_clip_are_played_in_its_world(run: Path, tmp_path: Path) -> None:
    path = tmp_path / "push.json"
    path.write_text(json.dumps({"actions": [[1.0, 0.0]] * 16}))  # one for each frame of the world
    done = imagine(run, f"actions={path}", "seen=1", "horizon=9")
    assert done.result.steps == 4 and done.true is not None
    recorded = imagine(run, "seen=1", "horizon=4")
    assert recorded.true is not None and torch.equal(done.seen, recorded.seen)
    assert not torch.equal(done.true, recorded.true)
    assert not torch.allclose(done.latents, recorded.latents)


def test_a_world_is_reset_and_simulated_with_the_same_actions(run: Path) -> None:
    done = imagine(run, "world=billiards-easy", "keys=dddd", "episode=7")
    world = make_batch("billiards-easy", np.array([7]), image_size=32)
    assert torch.equal(done.seen[0], torch.from_numpy(world.render()[0]).permute(2, 0, 1))
    images = []
    for frame in range(8):  # four frames of the model, each of two actions of the world
        world.step(np.array([[1.0, 0.0]]))
        if frame % 4 == 3:
            images.append(torch.from_numpy(world.render()[0]).permute(2, 0, 1))
    assert done.true is not None and torch.equal(done.true, torch.stack(images))
    policy = imagine(run, "world=billiards-easy", "actions=random", "horizon=3")
    assert policy.result.actions == "policy random" and policy.result.steps == 3


def test_a_file_has_no_truth(run: Path, tmp_path: Path) -> None:
    path = tmp_path / "a.mp4"
    frames = np.random.default_rng(0).integers(0, 255, (12, 32, 32, 3)).astype(np.uint8)
    path.write_bytes(encode_mp4(frames, 10))
    done = imagine(run, f"video={path}", "keys=wwAAss", out=tmp_path / "b.mp4")
    assert done.true is None and done.result.errors == [] and done.result.steps == 3
    assert (tmp_path / "b.mp4").stat().st_size > 100
    with pytest.raises(UserError, match="seen: a file has no actions"):
        imagine(run, f"video={path}", "keys=ww", "seen=2")


def test_samples_differ_and_the_seed_decides(stochastic: Path) -> None:
    first, again, other = (imagine(stochastic, "samples=3", "horizon=3", f"seed={seed}") for seed in (1, 1, 2))
    assert first.latents.shape[:2] == (3, 3) and first.frames.shape[:2] == (3, 3)
    assert torch.equal(first.latents, again.latents) and not torch.equal(first.latents, other.latents)
    assert not torch.allclose(first.latents[0], first.latents[1])
    cold = imagine(stochastic, "samples=3", "horizon=3", "seed=1", "temperature=0.01")
    assert cold.latents.std(0).mean() < first.latents.std(0).mean()
    mean = imagine(stochastic, "horizon=3")
    assert torch.equal(mean.latents, imagine(stochastic, "horizon=3", "seed=5").latents)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        (["samples=2"], r"dynamics \(mlp\) predict a single future"),
        (["clip=99"], "clip: expected a number below"),
        (["world=billiards-easy", "actions=expert"], "a policy of billiards-easy .random., found 'expert'"),
        (["world=billiards-easy", "keys=wx"], "keys: expected letters of .* found x"),
        (["world=billiards-easy", "keys=w"], "too few for one latent step"),
        (["keys=w", "actions=a.npy"], "actions and keys exclude each other"),
        (["actions=missing.npy"], "missing.npy: no such file"),
        (["video=a.mp4"], "a file has no actions"),
    ],
)
def test_mistakes_are_one_line(run: Path, settings: list[str], message: str) -> None:
    with pytest.raises(UserError, match=message) as error:
        imagine(run, *settings)
    assert "\n" not in str(error.value)


def test_names_of_videos_end_in_a_known_way(run: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"ends in \.mp4 or \.gif"):
        imagine(run, out=tmp_path / "a.avi")


def test_actions_are_read_from_files(tmp_path: Path) -> None:
    rows = np.array([[0.5, -1.0], [0.25, 0.0]], np.float32)
    np.save(tmp_path / "a.npy", rows)
    (tmp_path / "a.csv").write_text("x,y\n0.5,-1\n0.25,0\n")
    (tmp_path / "a.json").write_text("[[0.5, -1], [0.25, 0]]")
    for name in ("a.npy", "a.csv", "a.json"):
        assert np.array_equal(read_actions(tmp_path / name), rows)
    for name, content in (("b.csv", "1,2\n3\n"), ("b.json", "{}"), ("c.json", "[1, 2]"), ("c.csv", "nan,1\n")):
        (tmp_path / name).write_text(content)
        with pytest.raises(UserError, match=name):
            read_actions(tmp_path / name)
    np.save(tmp_path / "b.npy", np.array([{}], dtype=object), allow_pickle=True)
    with pytest.raises(UserError, match=r"b\.npy"):
        read_actions(tmp_path / "b.npy")


def test_rows_of_the_world_are_put_side_by_side() -> None:
    rows = np.arange(10, dtype=np.float32).reshape(5, 2)
    assert per_frame(rows, 4, 2, "a").tolist() == [[0, 1, 2, 3], [4, 5, 6, 7]]
    assert per_frame(rows, 2, 1, "a") is rows
    with pytest.raises(UserError, match="expected rows of 3, one for each frame of the world, or 6 numbers, found 2"):
        per_frame(rows, 6, 2, "a")
    assert key_actions("wD.", 2).tolist() == [[0, -1], [0.5, 0], [0, 0]]
    with pytest.raises(UserError, match="two directions, and these actions have 3"):
        key_actions("w", 3)
