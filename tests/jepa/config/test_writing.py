"""A file that is replaced is the old one or the new one, whatever happens in between."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from jepa.config.writing import replacing, write_text


def test_a_writer_that_fails_leaves_the_old_file_and_nothing_beside_it(tmp_path: Path) -> None:
    path = tmp_path / "result.json"
    write_text(path, "old")
    with pytest.raises(ValueError, match="encode"), replacing(path) as partial:
        partial.write_bytes(b"half of the n" + "\udc80".encode())
    assert path.read_text() == "old" and list(tmp_path.iterdir()) == [path]


def test_a_writer_that_is_killed_leaves_the_old_file_and_the_next_one_clears_its_rest(tmp_path: Path) -> None:
    path = tmp_path / "result.json"
    write_text(path, "old")
    script = (
        "import os, signal, sys\nfrom pathlib import Path\nfrom jepa.config.writing import replacing\n"
        "with replacing(Path(sys.argv[1])) as partial:\n"
        "    partial.write_text('half of the n')\n    os.kill(os.getpid(), signal.SIGKILL)\n"
    )
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)}
    ended = subprocess.run([sys.executable, "-c", script, path], env=environment, timeout=60, check=False)
    assert ended.returncode == -signal.SIGKILL
    assert path.read_text() == "old" and (tmp_path / "result.json.partial").read_text() == "half of the n"
    write_text(path, "new")
    assert path.read_text() == "new" and list(tmp_path.iterdir()) == [path]


def test_what_a_link_points_to_is_never_written(tmp_path: Path) -> None:
    foreign = tmp_path / "foreign"
    foreign.write_text("not ours")
    path = tmp_path / "result.json"
    path.symlink_to(foreign)
    (tmp_path / "result.json.partial").symlink_to(foreign)
    write_text(path, "ours")
    assert foreign.read_text() == "not ours"
    assert path.read_text() == "ours" and not path.is_symlink()


def test_files_have_the_mode_of_any_new_file(tmp_path: Path) -> None:
    (tmp_path / "any").write_text("")
    with replacing(tmp_path / "weights") as partial:
        save_file({"w": torch.zeros(2)}, partial)  # which makes files for their owner alone
    assert (tmp_path / "weights").stat().st_mode == (tmp_path / "any").stat().st_mode


def test_what_is_no_file_is_not_replaced(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(OSError, match="not a file"):
        write_text(tmp_path / "pipe", "text")
    assert (tmp_path / "pipe").is_fifo()
