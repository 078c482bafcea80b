"""The benchmarks are not run by `make test`; what they import is there."""

from importlib import import_module
from pathlib import Path

import pytest

BENCH = Path(__file__).parents[1] / "bench"


@pytest.mark.parametrize("name", sorted(path.stem for path in BENCH.glob("*.py")))
def test_it_can_be_imported(name: str) -> None:
    import_module(f"tests.bench.{name}")
