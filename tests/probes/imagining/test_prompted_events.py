"""Events that are prompted in imagined futures: in the world, in the model, and refused where they are not known."""

from pathlib import Path

import numpy as np
import pytest
import torch

import jepa
from jepa.config import UserError
from jepa_data.sources.rollouts import Recording, record
from jepa_probes.imagining.events import parse_events
from jepa_probes.imagining.imagine import Imagined

TRAINING = """
run: RUN
data: {shards: SHARDS, batch_size: 8, clip_frames: 8}
encoder: {kind: conv, width: 8, tubelet: 1, channels: 8, hidden: 32}
method: {kind: lewm, directions: 16, predictor: {hidden: 16}}
trainer: {steps: 2, device: cpu}
"""

pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture(scope="module", params=[3, 0], ids=["events", "plain"])
def run(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model of two-rooms, trained with events or without."""
    folder = tmp_path_factory.mktemp("events")
    record(Recording("two-rooms", episodes=10, frames=20, image_size=32, events=request.param), folder / "shards")
    run = folder / "run"
    config = folder / "train.yaml"
    config.write_text(TRAINING.replace("RUN", str(run)).replace("SHARDS", str(folder / "shards")))
    jepa.pretrain(config)
    jepa.fit_decoder(run, None, ["steps=3", "clips=8", "test_clips=2"])
    return run


def imagine(run: Path, *settings: str) -> Imagined:
    return jepa.imagine(run, None, settings)


def knows_events(run: Path) -> bool:
    return bool(jepa.load(run).spec.events)


def test_an_event_happens_in_the_world_and_in_the_model(run: Path) -> None:
    start = ["world=two-rooms", "episode=7", "horizon=4"]
    if not knows_events(run):
        with pytest.raises(UserError, match="the model has no events, found 'close-door'"):
            imagine(run, *start, "events={2: close-door}")
        return
    without, prompted = imagine(run, *start), imagine(run, *start, "events={2: close-door}")
    assert without.true is not None and prompted.true is not None
    assert torch.equal(prompted.true[:2], without.true[:2]) and not torch.equal(prompted.true[2], without.true[2])
    assert torch.allclose(prompted.latents[:, :2], without.latents[:, :2], atol=1e-5)
    assert not torch.allclose(prompted.latents[:, 2], without.latents[:, 2], atol=1e-5)


def test_what_was_recorded_is_played_again_with_its_events(run: Path) -> None:
    """A prompt at the last step leaves those before as they were recorded, events and all."""
    recorded = imagine(run, "clip=0", "seen=1", "horizon=18")
    if not knows_events(run):
        assert len(recorded.result.errors) == 18
        return
    again = imagine(run, "clip=0", "seen=1", "horizon=18", "events={17: move-door-up}")
    assert recorded.true is not None and again.true is not None and again.result.actions == "recorded"
    difference = (again.seen.float() - recorded.seen.float()).abs().mean()
    assert difference == 0 and torch.allclose(again.latents[:, 0], recorded.latents[:, 0], atol=1e-5)


def test_the_truth_about_recorded_clips_has_their_events(tmp_path: Path) -> None:
    from jepa_data.shards.index import ShardSet
    from jepa_data.shards.read import ShardFiles, read_array
    from jepa_data.shards.store import open_store
    from jepa_probes.decoding.replay import world_after

    record(Recording("two-rooms", episodes=6, frames=16, image_size=32, events=6), tmp_path / "shards")
    shards = ShardSet.open(open_store(str(tmp_path / "shards"), None))
    final = [read_array(ShardFiles(shards.store).read(s), "states.npy", 16)[-1] for s in shards.samples]  # pyright: ignore[reportOptionalSubscript]
    played = [world_after(shards, s.key, 15, 32).states()[0] for s in shards.samples]  # pyright: ignore[reportOptionalMemberAccess]
    assert np.allclose(final, played, atol=1e-5)


def test_prompts_are_written_as_frame_and_name() -> None:
    assert parse_events("12: close-door, 20:open-door") == {12: "close-door", 20: "open-door"}
    for text in ("close-door", "1 close-door", "-1: a", "", "1: a, 1: b"):
        with pytest.raises(UserError, match="events: "):
            parse_events(text)


def test_an_event_after_the_end(run: Path) -> None:
    with pytest.raises(UserError, match=r"at frame 40 is after the last of 4|no events"):
        imagine(run, "world=two-rooms", "horizon=4", "events={40: close-door}")
