"""Measuring on a local cluster of Ray gives what processes give; a worker that dies costs only what killed it."""

import os
import signal
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from jepa.config import from_dict
from jepa_data.curate import CurateConfig, curate
from jepa_data.curate.measure import Measured, Measurer
from jepa_data.curate.run import measure
from jepa_data.errors import DataError
from jepa_data.shards.index import ShardSet
from jepa_data.shards.manifest import Sample
from tests.data.curate_cases import STAGES, mixed_shards

# Ray warns of itself: its own settings that it reads, ...
pytestmark = [pytest.mark.filterwarnings("ignore::DeprecationWarning:ray.data.context")]
CONFIG = from_dict({"stages": STAGES}, CurateConfig)


@pytest.fixture(scope="module")
def cluster() -> Iterator[None]:
    """A cluster of one core."""
    os.environ["RAY_USAGE_STATS_ENABLED"] = "0"
    import ray

    ray.init(num_cpus=1, include_dashboard=False, configure_logging=False, log_to_driver=False)
    yield
    ray.shutdown()


@pytest.mark.slow
def test_a_cluster_that_is_started_for_it_finds_what_processes_find(tmp_path: Path) -> None:
    folder = mixed_shards(tmp_path / "shards")
    told: list[int] = []
    for name, engine in (("a", "pool"), ("b", "ray")):
        curate(
            folder, tmp_path / name, CONFIG, engine=engine, processes=1, progress=lambda w, done, n: told.append(done)
        )
    for file in ("curation.json", "manifest.json", "train-000000.tar"):
        assert (tmp_path / "a" / file).read_bytes() == (tmp_path / "b" / file).read_bytes()
    assert told.count(15) >= 2
    import ray

    assert not ray.is_initialized()


@dataclass(frozen=True)
class Deadly(Measurer):
    """One sample kills the process that measures it, as a decoder's defect would."""

    def __call__(self, sample: Sample) -> Measured:
        if sample.key == "good-2":
            os.kill(os.getpid(), signal.SIGKILL)
        return super().__call__(sample)


@pytest.mark.slow
def test_a_sample_that_kills_its_process_is_named_and_the_others_are_measured(cluster: None, tmp_path: Path) -> None:
    shards = ShardSet.open(mixed_shards(tmp_path / "shards"))
    parts = (shards.store, shards.manifest, CONFIG.look, None)
    expected = measure(shards, Measurer(*parts), "pool", 0, 60.0, lambda done: None)
    for engine in ("pool", "ray"):
        found = measure(shards, Deadly(*parts), engine, 1, 60.0, lambda done: None)
        assert found[2].problem == ("crashed", "its decoder ended the process (SIGKILL)")
        for number, (one, other) in enumerate(zip(expected, found, strict=True)):
            if number != 2:
                assert (one.problem, one.motion, one.sharpness) == (other.problem, other.motion, other.sharpness)


def test_without_ray_it_is_reported_how_to_install_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "ray", None)  # as if it were not there
    folder = mixed_shards(tmp_path / "shards")
    with pytest.raises(DataError, match=r"--engine ray: Ray Data cannot be imported .* pip install 'openjepa\[ray\]'"):
        curate(folder, tmp_path / "o", CONFIG, engine="ray", processes=1)
