"""`jepa launch`: what Slurm is asked for, by programs that stand in for its own; and runs as local jobs of submitit."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
import torch
import yaml

from jepa.cli.app import main
from jepa.config import UserError, from_dict
from jepa.training.config import PretrainConfig
from jepa.training.launch import LaunchConfig, launch

pytest.importorskip("submitit")
SBATCH = """#!/bin/sh
cp "$1" "{folder}/script.sh"
echo "Submitted batch job 77"
"""


def tree(run: Path, corpus: Path) -> dict:
    return {
        "run": str(run),
        "data": {"shards": str(corpus), "batch_size": 4, "clip_frames": 8, "workers": 2},
        "encoder": {"kind": "conv", "width": 8, "channels": 8, "hidden": 32},
        "method": {"kind": "lewm", "directions": 16, "predictor": {"hidden": 32}},
        "trainer": {"steps": 4, "log_every": 1, "device": "cpu"},
    }


def describe(run: Path, corpus: Path, *changes: str) -> PretrainConfig:
    return from_dict(tree(run, corpus), PretrainConfig, changes)


@pytest.fixture
def slurm(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where sbatch leaves the script that it got."""
    for name, text in {"sbatch": SBATCH.format(folder=tmp_path), "srun": "#!/bin/sh\n"}.items():
        (tmp_path / "bin").mkdir(exist_ok=True)
        (tmp_path / "bin" / name).write_text(text)
        (tmp_path / "bin" / name).chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path / 'bin'}:{os.environ['PATH']}")
    return tmp_path / "script.sh"


def test_slurm_is_asked_for_an_array_of_jobs_with_the_machines_and_devices_of_the_config(
    slurm: Path, corpus: Path, tmp_path: Path
) -> None:
    config = describe(tmp_path / "run", corpus, "trainer.device=cuda", "trainer.nodes=2", "trainer.devices=8")
    options = from_dict({"seeds": [3, 5], "submitit": {"timeout_min": 60, "slurm_partition": "gpu"}}, LaunchConfig)
    launched = launch(config, options, "slurm")
    assert [each.run.name for each in launched] == ["run-3", "run-5"]
    assert [each.job.job_id for each in launched] == ["77_0", "77_1"]
    asked = dict(re.findall(r"^#SBATCH --([\w-]+)=(.*)$", slurm.read_text(), re.MULTILINE))
    assert asked["nodes"] == "2" and asked["ntasks-per-node"] == "8" and asked["gpus-per-node"] == "8"
    assert asked["cpus-per-task"] == "3" and asked["time"] == "60" and asked["partition"] == "gpu"
    assert asked["array"].startswith("0-1") and asked["job-name"] == "run" and asked["signal"] == "USR1@120"
    described = [yaml.safe_load((tmp_path / "run.jobs" / f"run-{seed}.yaml").read_text()) for seed in (3, 5)]
    assert [each["seed"] for each in described] == [3, 5]
    assert [each["run"] for each in described] == [str(each.run) for each in launched]


def test_a_run_that_is_there_is_gone_on_with_only_if_asked_for(slurm: Path, corpus: Path, tmp_path: Path) -> None:
    config = describe(tmp_path / "run", corpus)
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "config.yaml").touch()
    with pytest.raises(UserError, match=r"run holds a run.*--resume"):
        launch(config, LaunchConfig(), "slurm")
    assert len(launch(config, LaunchConfig(), "slurm", resume=True)) == 1


def test_without_slurm_or_with_an_unknown_parameter_one_line_says_so(
    corpus: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    config = describe(tmp_path / "run", corpus)
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(UserError, match=r"^submitit: .*srun"):
        launch(config, LaunchConfig(), "slurm")
    with pytest.raises(UserError, match=r"^submitit: .*timeout_min"):
        launch(config, from_dict({"submitit": {"timeout_min": "abc"}}, LaunchConfig), "local")
    with pytest.raises(UserError, match="1, 1: one is named twice"):
        launch(config, LaunchConfig(seeds=(1, 1)), "local")
    with pytest.raises(UserError, match=r"^submitit: .*colour"):
        launch(config, from_dict({"submitit": {"colour": 1}}, LaunchConfig), "local")
    with pytest.raises(UserError, match=r"--jobs limits the jobs of Slurm; add --slurm"):
        launch(config, LaunchConfig(jobs=2), "local")
    assert not list(tmp_path.glob("*.jobs")), "nothing is left of what was refused"
    file = tmp_path / "c.yaml"
    file.write_text(yaml.safe_dump(tree(tmp_path / "run", corpus)))
    with pytest.raises(SystemExit) as stopped:
        main(["launch", str(file), "--seeds", "one"])
    assert stopped.value.code == 2 and "seeds.0: expected a whole number" in capsys.readouterr().err


def command(*words: str | Path) -> subprocess.CompletedProcess[str]:
    env = os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": os.pathsep.join(sys.path)}
    arguments = [sys.executable, "-m", "jepa.cli", "launch", *map(str, words)]
    return subprocess.run(arguments, env=env, capture_output=True, text=True, timeout=600, check=False)


@pytest.mark.slow
def test_an_array_of_local_jobs_trains_a_run_for_each_seed_and_a_failure_is_named(corpus: Path, tmp_path: Path) -> None:
    file = tmp_path / "c.yaml"
    file.write_text(yaml.safe_dump(tree(tmp_path / "run", corpus)))
    done = command(file, "--seeds", "0,1", "trainer.devices=2")
    assert done.returncode == 0, done.stderr
    for seed in (0, 1):
        assert f"run-{seed}: job" in done.stdout and (tmp_path / f"run-{seed}" / "pretrain.json").is_file()
    failed = command(file, f"run={tmp_path / 'bad'}", f"data.shards={tmp_path}")
    assert (
        failed.returncode == 2
        and f"{tmp_path / 'bad'}: " in failed.stderr
        and "; see" in failed.stderr
        and "manifest" in failed.stderr
    )


@pytest.mark.slow
def test_a_job_whose_time_is_up_saves_is_queued_again_and_goes_on(corpus: Path, tmp_path: Path) -> None:
    file = tmp_path / "c.yaml"
    file.write_text(yaml.safe_dump(tree(tmp_path / "run", corpus)))
    more = ("trainer.steps=1000000", "trainer.log_every=100", "submitit.timeout_min=1", "submitit.signal_delay_s=10")
    done = command(file, *more)  # ten seconds before the end of its minute it gets the signal
    assert done.returncode == 2 and "timed-out too many times" in done.stderr, done.stderr
    log = next((tmp_path / "run.jobs").glob("*_log.out")).read_text()
    stops = [int(step) for step in re.findall(r"stopped at step (\d+) by SIGUSR1", log)]
    assert len(stops) >= 2 and stops == sorted(set(stops)), log[-2000:]
    assert torch.load(tmp_path / "run" / "checkpoints" / "last.ckpt", weights_only=True)["global_step"] == stops[-1]
