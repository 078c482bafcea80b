"""A played run without a network: it drives, drifts, is grounded, reaches goals, and records what can be trained on."""

import io
from pathlib import Path

import av
import numpy as np
import pytest

from jepa.config import UserError
from jepa.play.session import STRAYED
from jepa_data.inspect.check import check
from jepa_data.shards.index import ShardSet
from jepa_data.worlds import make_batch
from tests.jepa.play.dot_world import PERIOD, STEP, make_clips, make_ground, make_model, make_session, place

pytestmark = pytest.mark.usefixtures("one_thread")

RIGHT, LEFT, DOWN, STAY = (1.0, 0.0, 0.0), (-1.0, 0.0, 0.0), (0.0, 1.0, 0.0), (0.0, 0.0, 0.0)


def test_an_action_moves_what_is_imagined_and_the_truth_alike(tmp_path: Path) -> None:
    session = make_session(tmp_path)
    before = place(session.picture())
    session.step((0.0, 0.2, 0.0))
    session.step((0.0, 0.2, 0.0))
    after = place(session.picture())
    assert after[1] - before[1] == pytest.approx(2 * PERIOD * 0.2 * STEP, abs=1 / 60)
    assert after == pytest.approx(place(session.ground.picture()), abs=1 / 60)
    drift = session.drift(session.picture())
    assert drift is not None and drift.latent < 0.01 * drift.still


def test_drift_grows_at_a_wall_and_ends_with_grounding(tmp_path: Path) -> None:
    session = make_session(tmp_path)
    for _ in range(12):
        session.step(LEFT)
    picture = session.picture()
    drift = session.drift(picture)
    assert drift is not None and drift.latent > 1 and drift.latent > drift.still
    session.reground()
    grounded = session.drift(session.picture())
    assert grounded is not None and grounded.latent < 1e-6 and grounded.still == pytest.approx(0)
    assert session.steps == 0


def test_a_latent_far_from_all_of_video_is_told_once_until_it_is_grounded(tmp_path: Path) -> None:
    session = make_session(tmp_path)
    told = [session.step(LEFT) for _ in range(40)]
    first = next(i for i, notice in enumerate(told) if notice)
    distance = STRAYED**2 * session.latents.farthest
    assert float((session.z - 0.5).square().mean()) > distance and first > 5
    notice = told[first] or ""
    assert notice.startswith(f"dot: after {first + 1} steps, the imagined latent is") and "re-ground" in notice
    assert sum(notice is not None for notice in told) == 1
    session.reground()
    again = [session.step(LEFT) for _ in range(40)]
    assert sum(notice is not None for notice in again) == 1


def test_kept_grounded_it_never_leaves_the_room(tmp_path: Path) -> None:
    session = make_session(tmp_path)
    for _ in range(20):
        assert session.step(LEFT, keep_grounded=True) is None
    drift = session.drift(session.picture())
    assert drift is not None and drift.latent < 1


def test_a_clicked_goal_is_planned_to_and_reached_in_both_worlds(tmp_path: Path) -> None:
    session = make_session(tmp_path)
    assert session.readout is not None and session.readout.r2 > 0.99
    x, y = place(session.picture())
    goal = (x + (0.12 if x < 0.3 else -0.12), y + (0.2 if y < 0.5 else -0.2))
    session.set_goal(goal)
    for _ in range(30):
        session.step(STAY)
    info = session.goal_info()
    assert info is not None and info["status"] == "reached" and info["true_distance"] < 1.5
    assert place(session.picture()) == pytest.approx(goal, abs=0.08)
    assert len(info["path"]) == 4 and np.linalg.norm(np.subtract(info["path"][-1], goal)) < 0.1


def test_keys_take_over_from_a_goal(tmp_path: Path) -> None:
    session = make_session(tmp_path)
    session.set_goal(None)
    assert session.goal is not None and session.goal.image.shape == (64, 64, 3)
    session.step(STAY)
    assert session.goal.is_pursued
    session.step(DOWN)
    assert session.goal.status == "stopped"


def test_a_far_goal_is_given_up(tmp_path: Path) -> None:
    session = make_session(tmp_path, "max_goal_steps=2", "planner.std=0.001", "planner.min_std=0.001")
    session.set_goal((0.9, 0.9))
    for _ in range(4):
        session.step(STAY)
    assert session.goal is not None and session.goal.status == "given up"


def test_a_recording_is_a_video_and_shards_of_the_true_world(tmp_path: Path) -> None:
    session = make_session(tmp_path / "played")
    for number, axes in enumerate((DOWN, RIGHT)):
        assert session.record(True) is None
        for _ in range(6):
            session.step(axes)
            session.recorder.add_picture([session.picture(), session.ground.picture()], 24)
        written = session.record(False)
        assert written is not None and f"{number + 1} episode" in written
        session.reset()
    with av.open(tmp_path / "played" / "played-001.mp4") as video:
        stream = video.streams.video[0]
        assert (stream.frames, stream.height, stream.width) == (6, 256, 512) and stream.average_rate == 24
    shards = ShardSet.open(tmp_path / "played" / "shards")
    manifest = shards.manifest
    assert manifest.world == "two-rooms" and manifest.splits["train"].frames == 2 * (6 * PERIOD + 1)
    checked = check(tmp_path / "played" / "shards", workers=1)
    assert checked.sound == checked.samples == 2 and not checked.findings


def test_what_was_recorded_is_what_the_world_does(tmp_path: Path) -> None:
    """The actions of the shards, played again in the same episode, end where the recording did."""
    session = make_session(tmp_path, ground=(ground := make_ground(make_model())))
    session.record(True)
    for _ in range(4):
        session.step((0.3, 0.6, 0.0))
        session.recorder.add_picture([session.picture()], 24)
    session.record(False)
    shards = ShardSet.open(tmp_path / "shards")
    sample = shards.samples[0]
    actions = np.load(io.BytesIO(shards.store.read(sample.shard, *sample.members["actions.npy"])))
    world = make_batch("two-rooms", np.array([0]))
    for action in actions:
        world.step(action[None])
    assert np.allclose(world.states(), ground.world.states())


def test_an_event_happens_in_the_true_world_and_in_a_model_that_knows_it(tmp_path: Path) -> None:
    ignorant = make_session(tmp_path / "a")
    assert ignorant.about()["events"][0] == {"name": "close-door", "known": False}
    ignorant.record(True)
    before = ignorant.ground.picture().copy(), place(ignorant.picture())
    ignorant.step(STAY, event=1)
    assert (ignorant.ground.picture() != before[0]).sum() > 10  # the door is closed
    assert place(ignorant.picture()) == before[1]
    ignorant.recorder.add_picture([ignorant.picture()], 24)
    ignorant.record(False)
    manifest = ShardSet.open(tmp_path / "a" / "shards").manifest
    assert manifest.events == ignorant.events
    knowing = make_session(tmp_path / "b", events=ignorant.events)
    knowing.step(STAY, event=1)
    assert place(knowing.picture()) == pytest.approx((0.5, 0.5), abs=0.02)
    knowing.step(RIGHT)
    assert place(knowing.picture())[0] > 0.6


def test_recorded_clips_are_driven_without_a_truth(tmp_path: Path) -> None:
    session = make_session(tmp_path, ground=make_clips(make_model()))
    about = session.about()
    assert not about["has_truth"] and not about["clickable"] and about["has_goals"]
    before = session.picture()
    session.step(DOWN)
    assert (session.picture() != before).any() and session.drift(before) is None
    session.set_goal(None)
    session.reset()
    session.record(True)
    session.step(DOWN)
    session.recorder.add_picture([session.picture()], 24)
    written = session.record(False)
    assert written is not None and "no true world" in written
    with pytest.raises(UserError, match="goals"):
        session.set_goal((0.5, 0.5))


def test_a_batch_of_worlds_reads_the_frames_that_training_read(tmp_path: Path) -> None:
    """Moments of several episodes at once are those of each alone."""
    model = make_model()
    together = make_ground(model, 0, 1)
    alone = make_ground(model, 1)
    actions = np.random.default_rng(0).uniform(-1, 1, (2, PERIOD, 2)).astype(np.float32)
    together.step(actions)
    alone.step(actions[1:])
    assert np.allclose(together.latent()[1], alone.latent()[0])
    assert alone.past().blocks.shape == (1, 0, 2 * PERIOD)  # history 1: the dynamics read one latent
