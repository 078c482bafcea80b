"""Latents computed once by `jepa data tokenize`, and what is trained on them in place of video."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from typer.testing import CliRunner

import jepa
from jepa.cli.app import app
from jepa.config import UserError, from_dict
from jepa.training.config import PretrainConfig
from jepa.training.pretrain import pretrain
from jepa.training.tokenize import tokenize
from jepa_data.config import StreamConfig
from jepa_data.errors import DataError, DecodeError
from jepa_data.shards.index import ShardSet
from jepa_data.sources.rollouts import Recording, record
from jepa_data.stream.latents import Latents, to_stored
from jepa_data.stream.loader import make_loader

pytestmark = pytest.mark.usefixtures("one_thread")
TRAINER = {"steps": 8, "log_every": 1, "monitor_every": 4, "checkpoint_every": 8, "device": "cpu", "precision": "fp32"}
CONV = {"kind": "conv", "width": 8, "channels": 8, "hidden": 16}


def config(run: Path, shards: Path, method: dict[str, Any], **parts: Any) -> PretrainConfig:
    data = {"shards": str(shards), "batch_size": 4, "clip_frames": 8} | parts.pop("data", {})
    return from_dict({"run": str(run), "data": data, "method": method, "trainer": TRAINER} | parts, PretrainConfig)


@pytest.fixture(scope="module")
def rooms(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("tokenize") / "rooms"
    record(Recording("two-rooms", episodes=16, frames=16, image_size=32), out)
    return out


@pytest.fixture(scope="module")
def trained(rooms: Path) -> Path:
    """A run whose encoder sees two frames at a time."""
    run = rooms.parent / "lewm"
    pretrain(config(run, rooms, {"kind": "lewm", "predictor": {"hidden": 16}}, encoder=CONV | {"tubelet": 2}))
    return run


@pytest.fixture(scope="module")
def latents(rooms: Path, trained: Path) -> Path:
    out = rooms.parent / "latents"
    result = CliRunner().invoke(app, ["data", "tokenize", str(rooms), str(out), "--model", str(trained)])
    assert result.exit_code == 0, result.output
    assert f"method.encoder_from={trained} method.latents_from={out}" in result.output
    return out


def dynamics(trained: Path, **settings: Any) -> dict[str, Any]:
    return {
        "kind": "latent_dynamics",
        "encoder_from": str(trained),
        "predictor": {"kind": "mlp", "hidden": 16},
    } | settings


def losses(run: Path) -> np.ndarray:
    lines = (run / "logs" / "metrics.csv").read_text().splitlines()
    column = lines[0].split(",").index("train/loss")
    return np.array([float(line.split(",")[column]) for line in lines[1:] if line.split(",")[column]])


def test_clips_of_latents_are_the_encoded_clips_of_video(rooms: Path, trained: Path, latents: Path) -> None:
    stream = from_dict({"shards": str(rooms), "batch_size": 4, "clip_frames": 8}, StreamConfig)
    model = jepa.load(trained)
    for split, shuffle in (("train", True), ("test", False)):
        video = make_loader(stream, split, seed=3, total_batches=3, shuffle=shuffle)
        stored = make_loader(stream, split, seed=3, total_batches=3, shuffle=shuffle, latents=str(latents))
        for a, b in zip(video, stored, strict=True):
            assert a.keys == b.keys and torch.equal(a.start_seconds, b.start_seconds)
            assert a.actions is not None and b.actions is not None and torch.equal(a.actions, b.actions)
            assert b.latents is not None and b.video.shape[-2:] == (0, 0)
            torch.testing.assert_close(b.latents, model.encode_clips(a.video), rtol=2**-7, atol=2**-7)


def test_a_predictor_learns_from_latents_what_it_learns_through_the_encoder(
    rooms: Path, trained: Path, latents: Path
) -> None:
    through, stored = rooms.parent / "through", rooms.parent / "stored"
    pretrain(config(through, rooms, dynamics(trained)))
    pretrain(config(stored, rooms, dynamics(trained, latents_from=str(latents))))
    np.testing.assert_allclose(losses(through), losses(stored), rtol=0.02)
    both = [load_file(run / "model" / "model.safetensors") for run in (through, stored)]
    assert both[0].keys() == both[1].keys()
    for name, value in both[0].items():
        torch.testing.assert_close(value, both[1][name], rtol=0.05, atol=0.02)


def test_int8_takes_half_the_bytes_and_keeps_a_hundredth(rooms: Path, trained: Path) -> None:
    out = rooms.parent / "int8"
    about = tokenize(str(rooms), out, str(trained), precision="int8")
    sample = ShardSet.open(rooms).samples[0]
    whole = Latents.open(out, ShardSet.open(rooms).manifest).rows(sample.shard, sample.key, np.arange(16))
    assert whole.shape == (8, about.tokens, about.width)
    z = torch.randn(5, 2, 64, generator=torch.Generator().manual_seed(0))
    stored = to_stored(z, "int8")
    apart = (stored[""] * stored[".scale"] - z).abs().amax() / z.abs().amax()
    assert stored[""].dtype == torch.int8 and apart < 0.01


def test_latents_of_other_shards_or_another_encoder_and_damaged_ones_are_refused(
    rooms: Path, trained: Path, latents: Path, tmp_path: Path
) -> None:
    other = tmp_path / "other"
    record(Recording("two-rooms", episodes=16, frames=16, image_size=32, seed=1), other)
    with pytest.raises(DataError, match="latents of other shards"):
        pretrain(config(tmp_path / "a", other, dynamics(trained, latents_from=str(latents))))
    pretrain(config(tmp_path / "second", rooms, {"kind": "lewm"}, encoder=CONV | {"tubelet": 2}, seed=1))
    with pytest.raises(UserError, match="holds latents of another encoder"):
        pretrain(config(tmp_path / "b", rooms, dynamics(tmp_path / "second", latents_from=str(latents))))
    with pytest.raises(DataError, match=r"omit data\.crop and data\.augment"):
        pretrain(
            config(tmp_path / "c", rooms, dynamics(trained, latents_from=str(latents)), data={"augment": {"color": 1}})
        )
    damaged = tmp_path / "damaged"
    damaged.mkdir()
    for file in latents.iterdir():
        (damaged / file.name).write_bytes(file.read_bytes())
    one = next(damaged.glob("*.safetensors"))
    one.write_bytes(one.read_bytes()[:-1] + b"?")
    with pytest.raises(DataError, match="damaged: its bytes are not those that were written"):
        pretrain(config(tmp_path / "d", rooms, dynamics(trained, latents_from=str(damaged))))
    with pytest.raises(DataError, match=r"no latents .* make them with `jepa data tokenize"):
        pretrain(config(tmp_path / "e", rooms, dynamics(trained, latents_from=str(tmp_path / "none"))))
    with pytest.raises(DataError, match="the folder is not empty"):
        tokenize(str(rooms), latents, str(trained))


def test_frames_that_the_encoder_saw_otherwise_are_refused(rooms: Path, latents: Path) -> None:
    shards = ShardSet.open(rooms)
    sample = shards.samples[0]
    opened = Latents.open(latents, shards.manifest)
    with pytest.raises(DecodeError, match="are not 1 apart"):
        opened.rows(sample.shard, sample.key, np.arange(0, 16, 2))
    with pytest.raises(DecodeError, match="has no such latents"):
        opened.rows(sample.shard, "nobody", np.arange(4))
    with pytest.raises(DecodeError, match="has no such latents"):
        opened.rows(sample.shard, sample.key, np.arange(14, 20))


def test_latents_that_are_not_finite_are_not_stored() -> None:
    with pytest.raises(DataError, match="not finite"):
        to_stored(torch.full((1, 1, 2), torch.nan), "bf16")
