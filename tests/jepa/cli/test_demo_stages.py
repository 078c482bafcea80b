"""What a demo runs, and in which order."""

from pathlib import Path

import pytest

from jepa.cli.demos import _stages


@pytest.mark.parametrize(("method", "before"), [("salt", "teacher"), ("world-models", "encoder")])
def test_what_a_run_learns_from_is_trained_before_it(method: str, before: str, tmp_path: Path) -> None:
    commands = {name: command for name, command, _ in _stages(tmp_path, 3, method, False, False)}
    assert list(commands)[:3] == ["record", before, "pretrain"]
    assert f"run={tmp_path / before}" in commands[before]
    assert f"method.{before}_from={tmp_path / before}" in commands["pretrain"]
    assert all("seed=3" in commands[name] for name in (before, "pretrain"))


def test_world_models_end_in_a_dream(tmp_path: Path) -> None:
    name, command, _ = _stages(tmp_path, 0, "world-models", False, False)[-1]
    assert (name, command) == ("dream", f"jepa dream {tmp_path} --config configs/dream/take_cover.yaml")
