"""Every test runs with the shapes and types of public signatures checked (jaxtyping + beartype), for its first seconds.

Torch has two threads, and one in each of several processes (pytest -n 2): more threads than cores wait for each other.
"""

import os
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import GenericAlias, UnionType
from typing import Any, Self, Union, get_args, get_origin

# Before torch and OpenMP read them. Tests look for no GPU, and ask no model hub.
os.environ.setdefault("OMP_NUM_THREADS", "1" if "PYTEST_XDIST_WORKER" in os.environ else "2")
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
os.environ.setdefault("CUDA_VISIBLE_DEVICES", "")
os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("MPLBACKEND", "Agg")
os.environ.pop("JEPA_TRACEBACK", None)

import jaxtyping
import pytest
import torch
from beartype import beartype
from jaxtyping import install_import_hook

PACKAGES = ("jepa", "jepa_data", "jepa_probes")
CHECKED_SECONDS = 1.5  # of each test, and of what is set up for it


def check(function: Callable[..., Any]) -> Callable[..., Any]:
    """beartype on one function, for what can be checked while it runs."""
    function.__annotations__ = {name: checkable(hint) for name, hint in function.__annotations__.items()}
    return beartype(function)


def checkable(hint: Any) -> Any:
    """`hint` without `Self` (beartype knows it in whole classes only) and without protocols that have no isinstance.

    Both are left to pyright.
    """
    if hint is Self or (getattr(hint, "_is_protocol", False) and not getattr(hint, "_is_runtime_protocol", False)):
        return Any
    origin, parts = get_origin(hint), get_args(hint)
    if origin in (Union, UnionType):
        return Union[tuple(checkable(part) for part in parts)]  # noqa: UP007  built at run time
    if isinstance(hint, GenericAlias) and origin is not Callable:
        return origin[tuple(checkable(part) for part in parts)]
    return hint


_early = sorted(name for name in sys.modules if name.split(".")[0] in PACKAGES)
assert not _early, f"imported before their shapes could be checked: {_early}"
if os.environ.get("JEPA_CHECK_SHAPES", "1") != "0":  # `make bench` measures without the checks
    install_import_hook(PACKAGES, f"{__name__}.check")
torch.set_num_threads(int(os.environ["OMP_NUM_THREADS"]))


@contextmanager
def checked_at_first() -> Iterator[None]:
    """Shapes are checked for some seconds: later calls, in long trainings, are like the first ones, and take longer."""
    jaxtyping.config.update("jaxtyping_disable", False)
    timer = threading.Timer(CHECKED_SECONDS, jaxtyping.config.update, ("jaxtyping_disable", True))
    timer.daemon = True
    timer.start()
    try:
        yield
    finally:
        timer.cancel()


@pytest.hookimpl(wrapper=True)
def pytest_runtest_setup() -> Iterator[None]:
    with checked_at_first():
        return (yield)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_call() -> Iterator[None]:
    with checked_at_first():
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
