"""Every test runs with the shapes and types of all signatures checked, in the first calls of each function.

Torch has two threads, and one in each of several processes (pytest -n 2): more threads than cores wait for each other.
"""

import gc
import os
import sys
from collections.abc import Iterator
from pathlib import Path

# Before torch and OpenMP read them. Tests look for no GPU, and ask no model hub.
os.environ.setdefault("OMP_NUM_THREADS", "1" if "PYTEST_XDIST_WORKER" in os.environ else "2")
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
os.environ.setdefault("CUDA_VISIBLE_DEVICES", "")
os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("MPLBACKEND", "Agg")
os.environ.pop("JEPA_TRACEBACK", None)

gc.disable()  # until all tests are imported: a million objects that stay are not gone through again and again

import lightning  # noqa: F401 - what modules of ours would import first, jaxtyping's hook would compile again
import pytest
import timm  # noqa: F401
import torch

from tests.shapes import check_again, check_shapes

PACKAGES = ("jepa", "jepa_data", "jepa_probes")
_early = sorted(name for name in sys.modules if name.split(".")[0] in PACKAGES)
assert not _early, f"imported before their shapes could be checked: {_early}"
if os.environ.get("JEPA_CHECK_SHAPES", "1") != "0":  # `make bench` measures without the checks
    check_shapes(PACKAGES)
torch.set_num_threads(int(os.environ["OMP_NUM_THREADS"]))


def pytest_collection_finish() -> None:
    gc.freeze()
    gc.enable()


@pytest.hookimpl(wrapper=True)
def pytest_runtest_setup() -> Iterator[None]:
    check_again()
    return (yield)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_call() -> Iterator[None]:
    check_again()
    return (yield)


@pytest.fixture(scope="session")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Shards of a few short billiards episodes at 32 px; not to be changed."""
    from jepa_data.sources.rollouts import Recording, record

    folder = tmp_path_factory.mktemp("corpus") / "shards"
    record(Recording("billiards-easy", episodes=24, frames=12, image_size=32), folder)
    return folder


@pytest.fixture(scope="module")
def one_thread() -> Iterator[None]:
    """For models so small that a second thread waits more than it works.

    Of a module: its other fixtures train with one thread too, for more threads sum in another order.
    """
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)
