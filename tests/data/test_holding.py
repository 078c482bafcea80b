"""Two processes never write to one folder: the second one is refused, and a killed one leaves no lock behind."""

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from jepa.cli import main
from jepa_data.errors import DataError
from jepa_data.writable import holding

HOLDER = """
import sys, time
from pathlib import Path
from jepa_data.writable import holding
with holding(Path(sys.argv[1])):
    print("held", flush=True)
    time.sleep(100)
"""


@pytest.fixture
def holder(tmp_path: Path) -> Iterator["subprocess.Popen[str]"]:
    """Another process, which holds tmp_path / "out"."""
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)}
    command = [sys.executable, "-c", HOLDER, str(tmp_path / "out")]
    with subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None and process.stdout.readline() == "held\n"
        yield process
        process.kill()


@pytest.mark.parametrize(
    "command",
    [
        "pretrain {config} run={out}",
        "pretrain {config} run={out} --overwrite",
        "data record billiards-easy {out} --episodes 2 --frames 4 --image-size 32 --overwrite",
        "data pack {corpus} {out} --overwrite",
        "data curate {corpus} {out} --config {curate} --overwrite",
    ],
)
def test_the_second_process_is_refused_in_one_line(
    command: str,
    holder: "subprocess.Popen[str]",
    corpus: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    config = tmp_path / "c.yaml"
    config.write_text(
        f"run: x\ndata: {{shards: {corpus}, batch_size: 4, clip_frames: 8}}\nencoder: {{kind: conv}}\n"
        "method: {kind: lewm}\ntrainer: {steps: 1, device: cpu}\n"
    )
    curate = tmp_path / "curate.yaml"
    curate.write_text("stages: [{kind: dark}]\n")
    before = sorted((tmp_path / "out").iterdir())
    with pytest.raises(SystemExit) as ended:
        main(command.format(config=config, curate=curate, corpus=corpus, out=tmp_path / "out").split())
    told = capsys.readouterr().err.splitlines()
    assert ended.value.code == 2 and len(told) == 1, told
    assert f"{tmp_path / 'out'}: another process writes to it" in told[0]
    assert sorted((tmp_path / "out").iterdir()) == before


def test_a_process_that_was_killed_leaves_no_lock(holder: "subprocess.Popen[str]", tmp_path: Path) -> None:
    out = tmp_path / "out"
    with pytest.raises(DataError, match="another process"), holding(out):
        pass
    os.kill(holder.pid, signal.SIGKILL)
    holder.wait()
    with holding(out), pytest.raises(DataError, match="another process"), holding(out):
        pass
    assert list(out.iterdir()) == []


def test_a_folder_in_which_nothing_was_written_is_given_back(tmp_path: Path) -> None:
    with holding(tmp_path / "new"):
        assert (tmp_path / "new").is_dir()
    assert not (tmp_path / "new").exists()
    (tmp_path / "there").mkdir()
    with holding(tmp_path / "there"):
        pass
    with holding(tmp_path / "used"):
        (tmp_path / "used" / "file").write_text("")
    assert (tmp_path / "there").is_dir() and [path.name for path in (tmp_path / "used").iterdir()] == ["file"]
