"""Two processes never write to one folder: the second one is refused, and a killed one leaves no lock behind."""

import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from jepa.cli import main
from jepa.config import from_dict
from jepa.training.config import PretrainConfig
from jepa.training.pretrain import pretrain
from jepa_data.errors import DataError
from jepa_data.writable import holding, holding_file
from jepa_probes.embedding.embed import embed

CONFIGS = Path(__file__).parents[2] / "configs"
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


@pytest.fixture(scope="module")
def model(corpus: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    run = tmp_path_factory.mktemp("model") / "run"
    data = {"shards": str(corpus), "batch_size": 4, "clip_frames": 8}
    small = {"encoder": {"kind": "conv", "width": 8, "channels": 8}, "method": {"kind": "lewm"}}
    trainer = {"steps": 1, "device": "cpu"}
    pretrain(from_dict({"run": str(run), "data": data, "trainer": trainer} | small, PretrainConfig))
    return run


@pytest.mark.parametrize(
    "command",
    [
        "pretrain {config} run={out}",
        "pretrain {config} run={out} --overwrite",
        "data record billiards-easy {out} --episodes 2 --frames 4 --image-size 32 --overwrite",
        "data pack {corpus} {out} --overwrite",
        "data curate {corpus} {out} --config {curate} --overwrite",
        "data tokenize {corpus} {out} --model {model}",
        "data index {out} --overwrite",
        "embed {corpus} --model {model} --out {out}",
        "online {configs}/online/cartpole.yaml run={out} --overwrite",
        "compare {configs}/compare/two_rooms.yaml out={out} --overwrite",
    ],
)
def test_the_second_process_is_refused_in_one_line(
    command: str,
    holder: "subprocess.Popen[str]",
    corpus: Path,
    model: Path,
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
    tar = next(corpus.glob("*.tar"))
    if " index " in command:
        shutil.copy(tar, tmp_path / "out")
    before = sorted((tmp_path / "out").iterdir())
    paths = {"config": config, "curate": curate, "corpus": corpus, "model": model, "configs": CONFIGS}
    with pytest.raises(SystemExit) as ended:
        main(command.format(**paths, out=tmp_path / "out").split())
    told = capsys.readouterr().err.splitlines()
    assert ended.value.code == 2 and len(told) == 1, told
    assert f"{tmp_path / 'out'}: another process writes to it" in told[0]
    assert sorted((tmp_path / "out").iterdir()) == before


def test_a_file_is_held_as_well(model: Path, corpus: Path, tmp_path: Path) -> None:
    out = tmp_path / "new" / "features.npz"
    with holding_file(out), pytest.raises(DataError, match=r"features\.npz: another process writes to it"):
        embed(corpus, model, out)
    assert not out.parent.exists()
    embed(corpus, model, out)
    assert [path.name for path in out.parent.iterdir()] == ["features.npz"]


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
