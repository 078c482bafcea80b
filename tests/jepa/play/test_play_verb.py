"""From run folders to a page: what `jepa play` opens, and what it refuses, in one line."""

import socket
from collections.abc import Callable
from io import BytesIO
from pathlib import Path

import numpy as np
import pytest

import jepa
from jepa.cli import main
from jepa.config import UserError
from jepa.play.ground import HeldOutClip, TrueWorld
from jepa.play.load import open_session
from jepa_data.shards.index import ShardSet
from jepa_data.shards.write import ShardWriter
from jepa_probes.reporting import run_decoder
from tests.jepa.play.dot_world import make_config

LEWM = """
encoder: {kind: conv, width: 8, tubelet: 2, channels: 8}
method: {kind: lewm, directions: 8, predictor: {hidden: 16}}
"""
VJEPA = "encoder: {kind: video_vit, patch: 8, width: 24, depth: 1, heads: 2, size: null}\nmethod: {kind: vjepa}\n"


def trained(folder: Path, shards: Path, parts: str) -> Path:
    config = folder / "train.yaml"
    config.write_text(
        f"run: {folder / 'run'}\ndata: {{shards: {shards}, batch_size: 4, clip_frames: 6}}\n{parts}"
        "trainer: {steps: 1, device: cpu}\n"
    )
    jepa.pretrain(config)
    return folder / "run"


@pytest.fixture(scope="module")
def run(corpus: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return trained(tmp_path_factory.mktemp("play"), corpus, LEWM)


@pytest.fixture
def refused(capsys: pytest.CaptureFixture[str]) -> Callable[..., str]:
    def call(*arguments: object) -> str:
        with pytest.raises(SystemExit) as ended:
            main(["play", *map(str, arguments)])
        error = capsys.readouterr().err
        assert ended.value.code == 2 and error.startswith("error: ") and error.count("\n") == 1
        return error

    return call


@pytest.fixture(autouse=True)
def few_steps(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of the decoder's fit."""
    monkeypatch.setattr(run_decoder, "STEPS", 2)


def test_a_run_in_a_world_is_played_there(run: Path) -> None:
    session = open_session(run, make_config(), run_decoder.pixel_decoder)
    assert isinstance(session.ground, TrueWorld) and session.ground.world.name == "billiards-easy"
    assert session.about()["clickable"] and session.readout is not None and session.latents.unrelated > 0
    session.step((0.5, 0.0, 0.0))
    assert session.picture().shape == session.ground.picture().shape == (32, 32, 3)
    assert session.recorder.folder == run / "play" / "001"


def test_a_run_on_other_video_is_played_from_held_out_clips(corpus: Path, tmp_path: Path) -> None:
    shards = without_world(corpus, tmp_path / "shards")
    session = open_session(trained(tmp_path, shards, LEWM), make_config(), run_decoder.pixel_decoder)
    assert isinstance(session.ground, HeldOutClip) and not session.about()["has_truth"]
    before = session.picture()
    session.step((1.0, 0.0, 0.0))
    assert (session.picture() != before).any()


def without_world(corpus: Path, out: Path) -> Path:
    """A copy of shards, as of a camera: with actions, in no simulated world."""
    shards = ShardSet.open(corpus)
    with ShardWriter(
        out, fps=10, image_size=32, world=None, action_size=2, state_names=(), label_names=(), seed=0
    ) as writer:
        for number, sample in enumerate(list(shards.samples)[:12]):
            files = {name: shards.store.read(sample.shard, *where) for name, where in sample.members.items()}
            actions = np.load(BytesIO(files["actions.npy"]))
            split = "test" if number % 3 == 2 else "train"
            writer.write(split, sample.key, files[sample.media], len(actions) + 1, actions, None, {})
    return out


def test_a_run_that_cannot_be_played_is_told_the_command_that_helps(
    run: Path, corpus: Path, tmp_path: Path, refused: Callable[..., str]
) -> None:
    still = trained(tmp_path, corpus, VJEPA)
    assert f"jepa pretrain configs/pretrain/latent_dynamics.yaml method.encoder_from={still}" in refused(
        still, "--port", 0
    )
    with pytest.raises(UserError, match=r"no square grid.*jepa compress"):
        open_session(run, make_config(), lambda *_: None)


def test_mistakes_on_the_command_line_are_one_line(run: Path, tmp_path: Path, refused: Callable[..., str]) -> None:
    assert "at least one run folder" in refused("fps=3")
    assert "no such folder" in refused(tmp_path / "nowhere", "--port", 0)
    assert "speed" in refused(run, "speed=3")
    assert "--out is one folder" in refused(run, run, "--out", tmp_path)
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        assert "--port" in refused(run, "--port", taken.getsockname()[1])
