"""Events from a recording to clips: drawn, stored beside the actions, kept by every tool, checked, and streamed."""

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from jepa.config import from_dict
from jepa_data.config import SourceConfig, StreamConfig
from jepa_data.curate import CurateConfig
from jepa_data.curate import curate as run_curate
from jepa_data.errors import DataError, DecodeError
from jepa_data.inspect.index import index
from jepa_data.inspect.summary import lines, summary
from jepa_data.inspect.verify import Problem, Verifier
from jepa_data.pack.pack import Packing, pack
from jepa_data.pack.recipe import Recipe
from jepa_data.shards.finite import check_events
from jepa_data.shards.index import ShardSet
from jepa_data.shards.manifest import EVENTS, Manifest
from jepa_data.shards.write import ShardWriter
from jepa_data.sources.repack import read_shards
from jepa_data.sources.rollouts import Recording, record
from jepa_data.stream.loader import make_loader
from jepa_data.worlds import make_batch

SMALL = Recording("two-rooms", episodes=8, frames=13, image_size=32, events=4)
NAMES = ("close-door", "open-door", "move-door-up", "move-door-down")


@pytest.fixture(scope="module")
def recorded(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("events") / "shards"
    record(SMALL, folder)
    return folder


def test_every_writer_names_its_events_in_each_sample(tmp_path: Path) -> None:
    """So that `index` finds them again, whoever wrote the shards."""
    from jepa_data.shards.encode import encode_mp4
    from jepa_data.shards.read import ShardFiles, read_metadata

    about = {"fps": 10, "image_size": 32, "world": "two-rooms", "action_size": 2, "state_names": (), "label_names": ()}
    with ShardWriter(tmp_path / "shards", **about, seed=0, events=NAMES) as writer:
        video = encode_mp4(np.zeros((3, 32, 32, 3), np.uint8), 10)
        writer.write("train", "a", video, 3, np.zeros((2, 2), np.float32), None, {}, events=np.array([[0], [2]]))
    shards = ShardSet.open(str(tmp_path / "shards"))
    members = ShardFiles(shards.store).read(next(iter(shards.samples)))
    assert read_metadata(members)["events"] == list(NAMES)


def clips(folder: Path, split: str = "train", **settings) -> list[Any]:
    config = StreamConfig(**{"shards": str(folder), "batch_size": 4, "clip_frames": 13} | settings)
    return list(make_loader(config, split, seed=0, shuffle=False))


def problems(folder: Path) -> list[Problem]:
    """What `jepa data check` finds in the samples."""
    shards = ShardSet.open(folder)
    verify = Verifier(shards.store, shards.manifest, "pyav")
    return [problem for sample in shards.samples for problem in verify(sample, lambda: None).problems]


def test_events_of_a_recording_are_those_that_made_its_images(recorded: Path) -> None:
    seen = 0
    for batch in clips(recorded):
        assert batch.events is not None and batch.events.shape == (len(batch), 12, 4)
        numbers = (batch.events * torch.arange(1, 5)).sum(-1).long().numpy()
        seen += int((numbers > 0).sum())
        world = make_batch("two-rooms", np.array([int(key[-6:]) for key in batch.keys]), image_size=32)
        for t in range(12):
            world.trigger(numbers[:, t])
            world.step(batch.actions[:, t].numpy())
        np.testing.assert_allclose(batch.states[:, -1].numpy(), world.states(), rtol=0, atol=1e-6)
        error = np.abs(batch.video[:, -1].permute(0, 2, 3, 1).numpy().astype(int) - world.render())
        assert error.mean() < 3
    assert 10 < seen < 50, "about four in each of seven episodes"


def test_events_leave_starts_and_actions_alone_and_none_leave_the_bytes_alone(recorded: Path, tmp_path: Path) -> None:
    record(replace(SMALL, events=0), tmp_path / "none")
    assert "events" not in json.loads((tmp_path / "none" / "manifest.json").read_text())
    for with_events, without in zip(clips(recorded), clips(tmp_path / "none"), strict=True):
        assert without.events is None
        assert torch.equal(with_events.actions, without.actions)
        assert torch.equal(with_events.states[:, 0], without.states[:, 0])


def test_rates_and_worlds_that_cannot_be_are_refused() -> None:
    with pytest.raises(DataError, match=r"from 0 to its 12 steps, found 12\.5"):
        replace(SMALL, events=12.5)
    with pytest.raises(DataError, match="camera has no events"):
        record(Recording("camera", 2, 4, 32, events=1), Path("nowhere"))


def _packed(recorded: Path, out: Path) -> None:
    pack(read_shards(recorded), out, Packing(Recipe(fps=5.0)), processes=1)


def _curated(recorded: Path, out: Path) -> None:
    run_curate(recorded, out, from_dict({"stages": [{"kind": "resample"}]}, CurateConfig), processes=1)


def _indexed(recorded: Path, out: Path) -> None:
    out.mkdir()
    for tar in recorded.glob("*.tar"):
        (out / tar.name).write_bytes(tar.read_bytes())
    index(out, workers=1)


@pytest.mark.parametrize(("make", "stride"), [(_packed, 2), (_curated, 1), (_indexed, 1)])
def test_tools_keep_events(make: Callable[[Path, Path], None], stride: int, recorded: Path, tmp_path: Path) -> None:
    make(recorded, tmp_path / "out")
    assert ShardSet.open(tmp_path / "out").manifest.events == NAMES and not problems(tmp_path / "out")
    frames = 13 if stride == 1 else 7
    before = {key: events for b in clips(recorded) for key, events in zip(b.keys, b.events, strict=True)}
    for batch in clips(tmp_path / "out", clip_frames=frames):
        for key, events in zip(batch.keys, batch.events, strict=True):
            expected = before[key].unflatten(0, (-1, stride)).amax(1)
            assert torch.equal(events, expected)


def test_a_clip_of_fewer_frames_has_the_events_of_all_that_it_skips(recorded: Path) -> None:
    for all_frames, some in zip(clips(recorded), clips(recorded, clip_frames=5, stride=3), strict=True):
        assert some.actions.shape == (len(some), 4, 6)
        assert torch.equal(some.events, all_frames.events.unflatten(1, (4, 3)).amax(2))


def test_events_can_be_left_out_and_sources_must_have_the_same(recorded: Path, tmp_path: Path) -> None:
    assert clips(recorded, events=False)[0].events is None
    record(replace(SMALL, world="billiards-easy"), tmp_path / "other")
    record(replace(SMALL, events=0, seed=1), tmp_path / "plain")
    mixed = (SourceConfig(shards=str(recorded)), SourceConfig(shards=str(tmp_path / "other")))
    with pytest.raises(DataError, match=r"different events \(.*close-door.*; .*gravity-left.*data.events=false"):
        make_loader(StreamConfig(shards=mixed, batch_size=4, clip_frames=13), "train", seed=0)
    mixed = (SourceConfig(shards=str(tmp_path / "plain")), SourceConfig(shards=str(recorded)))
    batch: Any = next(iter(make_loader(StreamConfig(shards=mixed, batch_size=8, clip_frames=13), "train", seed=0)))
    assert batch.events.shape == (8, 12, 4) and batch.events.any()


def test_an_index_of_tars_with_different_events_leaves_them_out(recorded: Path, tmp_path: Path) -> None:
    record(replace(SMALL, events=0, seed=1), tmp_path / "plain")
    (tmp_path / "both").mkdir()
    for number, folder in enumerate((recorded, tmp_path / "plain")):
        (tmp_path / "both" / f"train-{number}.tar").write_bytes((folder / "train-000000.tar").read_bytes())
    indexed = index(tmp_path / "both", workers=1)
    assert indexed.manifest.events == () and any(EVENTS in what for what in indexed.ignored)
    batches = clips(tmp_path / "both", max_bad_fraction=0.0)
    assert sum(map(len, batches)) == 14 and all(batch.events is None for batch in batches)


def test_check_and_inspect_tell_of_events(recorded: Path, tmp_path: Path) -> None:
    shards = ShardSet.open(recorded)
    assert any(line.strip() == f"events   {', '.join(NAMES)}" for line in lines(summary(shards)))
    with pytest.raises(DecodeError, match=r"0 for none, 1 close-door, .* found 5 at frame 1"):
        check_events(np.array([[0.0], [5.0]]), NAMES)
    with pytest.raises(DecodeError, match=r"found 0\.5 at frame 0"):
        check_events(np.array([[0.5]]), NAMES)
    manifest = Manifest.from_file((recorded / "manifest.json").read_text())
    _indexed(recorded, tmp_path / "fewer")  # a manifest that knows fewer events, or none, than its samples have
    for names, found in ((NAMES[:2], "its events are 0 for none"), ((), "the manifest knows none")):
        manifest.model_copy(update={"events": names}).save(tmp_path / "fewer")
        named = problems(tmp_path / "fewer")
        assert named and all(kind == EVENTS and found in detail for kind, detail in named)


def test_a_writer_takes_what_it_was_made_for(tmp_path: Path, recorded: Path) -> None:
    about = {"fps": 10, "image_size": 32, "world": None, "state_names": (), "label_names": (), "seed": 0}
    with pytest.raises(DataError, match=r"events \(gust\) stand beside actions"):
        ShardWriter(tmp_path / "a", action_size=0, events=("gust",), **about)
    shards = ShardSet.open(recorded)
    sample = shards.samples[0]
    media = shards.store.read(sample.shard, *sample.members["mp4"])
    writer = ShardWriter(tmp_path / "b", action_size=1, events=("gust",), **about)
    rest = (media, 13, np.zeros((12, 1), np.float32), None, {})
    for events, problem in (
        (None, "expected events, found none"),
        (np.zeros((11, 1), int), "expected 12 rows"),
        (np.full((12, 1), 2), "1 gust; found 2"),
    ):
        with pytest.raises(DataError, match=problem):
            writer.write("train", "key", *rest, events=events)
