"""Small files that ask for too much are one line, before anything large is built."""

import json
from pathlib import Path
from typing import Any

import pytest
from torch import nn

from jepa.config import ConfigError, UserError, source
from jepa.config import load as load_config
from jepa.models.checkpoint import DESCRIPTION, check_sizes, read_description, save
from jepa.training.config import PretrainConfig
from jepa_data.decode.base import from_runs
from jepa_data.errors import DecodeError


@pytest.mark.parametrize(
    "content",
    [
        "[" * 100_000 + "]" * 100_000,
        "a: &a [x,x,x,x,x,x,x,x,x,x]\n"
        + "".join(f"{b}: &{b} [{','.join(['*' + a] * 9)}]\n" for a, b in zip("abcdefghi", "bcdefghij", strict=True)),
    ],
)
def test_a_config_that_is_nested_too_deeply_or_grows_by_aliases_is_refused(
    content: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(source, "MAX_VALUES", 2000)  # fewer than shipped: types are checked at every call here
    path = tmp_path / "c.yaml"
    path.write_text("run: " + content if content[0] == "[" else content)
    with pytest.raises(ConfigError, match=r"nested too deeply|more than 2000 values") as caught:
        load_config(path, PretrainConfig)
    assert len(str(caught.value).splitlines()) == 1


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    save(tmp_path, nn.Linear(4, 4), {"encoder": {"depth": 1, "width": 4}})
    return tmp_path


@pytest.mark.parametrize(("key", "value"), [("depth", 100_000), ("depth", 3), ("width", 10**7), ("patch", 10**9)])
def test_a_description_with_numbers_that_its_tensors_cannot_have_is_refused(key: str, value: int, folder: Path) -> None:
    description: dict[str, Any] = read_description(folder)
    check_sizes(folder, description)
    with pytest.raises(UserError, match=rf"{DESCRIPTION}: {key} is {value}, more than the 2 tensors"):
        check_sizes(folder, description | {"encoder": {"parts": [{key: value}]}})


def test_a_deeply_nested_description_is_refused(folder: Path) -> None:
    (folder / DESCRIPTION).write_text('{"a":' * 200_000 + "1" + "}" * 200_000)
    with pytest.raises(UserError, match="not readable as JSON"):
        read_description(folder)


@pytest.mark.parametrize("runs", [[[0, 1, 10**11]], [[0, 1, 5], [0, 1, -5]], [[0, 1, 9_000_000]] * 2])
def test_an_index_with_too_many_frames_is_damaged(runs: list[list[int]]) -> None:
    with pytest.raises(DecodeError, match="more than 10000000 frames"):
        from_runs(runs)
    assert json.loads(json.dumps(from_runs([[0, 2, 3]]).tolist())) == [0, 2, 4]
