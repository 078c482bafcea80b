"""`jepa doctor`: usable videos, memory that was computed against memory that was measured, a config that trains."""

import itertools
import re
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from jepa.cli.data.inspect import doctor as verb
from jepa.config import UserError, from_dict, load
from jepa.methods.base import Batch
from jepa.training.build_method import build_method
from jepa.training.config import PretrainConfig
from jepa.training.cost_model import step_size
from jepa.training.doctor import advise, clip_of, doctor, training_rate
from jepa.training.doctor.recipe import recipe_lines
from jepa.training.pretrain import pretrain
from jepa_data.errors import DataError
from jepa_data.inspect import hardware
from jepa_data.inspect.hardware import Hardware
from jepa_data.inspect.survey import Survey, decode_speed, survey
from jepa_data.shards.encode import encode_mp4

LAPTOP = Hardware(cores=2, memory=16 * 2**30, gpu=None, gpu_memory=0, bf16=False)
CARD = Hardware(cores=16, memory=64 * 2**30, gpu="a card", gpu_memory=24 * 2**30, bf16=True)


def described(width: int = 192, size: int = 96, batch: int = 4, heads: int = 3) -> PretrainConfig:
    tree = {
        "run": "r",
        "data": {"shards": "s", "batch_size": batch, "clip_frames": 16, "image_size": size},
        "encoder": {"kind": "video_vit", "width": width, "depth": 4, "heads": heads},
        "method": {"kind": "vjepa", "predictor": {"width": 96, "depth": 3, "heads": 4}},
        "trainer": {"steps": 1},
    }
    return from_dict(tree, PretrainConfig)


@pytest.fixture(scope="module")
def videos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three videos of 4 s in folders, a text and half a video with the names of videos, and a text with its own."""
    folder = tmp_path_factory.mktemp("videos")
    (folder / "a").mkdir()
    images = np.random.default_rng(0).integers(0, 255, (80, 64, 96, 3), np.uint8)
    whole = encode_mp4(images, 20)
    for name in ("a/1.mp4", "a/2.mp4", "3.mp4"):
        (folder / name).write_bytes(whole)
    (folder / "text.mp4").write_text("hello")
    (folder / "half.mp4").write_bytes(whole[: len(whole) // 2])
    (folder / "notes.txt").write_text("mine")
    return folder


@pytest.fixture(scope="module")
def surveyed(videos: Path) -> Survey:
    return survey(videos, workers=1)


@pytest.mark.parametrize(("width", "size", "heads"), [(192, 96, 3), (128, 64, 4)])
def test_computed_parameters_are_those_of_the_model(width: int, size: int, heads: int) -> None:
    config = described(width, size, heads=heads)
    method, found = build_method(config, size, 0), step_size(config, bf16=False, gpu=False)
    assert found.encoder == sum(p.numel() for p in method.encoder.parameters())
    trained = sum(p.numel() for p in method.parameters() if p.requires_grad)  # pyright: ignore
    assert found.encoder + found.predictor == trained


@pytest.mark.parametrize("bf16", [False, True])
@pytest.mark.parametrize(("width", "size", "heads"), [(192, 96, 3), (384, 64, 6)])
def test_what_torch_keeps_for_the_backward_pass_is_what_was_computed(
    width: int, size: int, heads: int, bf16: bool
) -> None:
    assert 0.6 < measured_over_computed(described(width, size, batch=2, heads=heads), bf16) < 1.0


def test_kept_numbers_of_recomputed_blocks_and_of_a_dense_loss() -> None:
    plain = described(192, 96, batch=2)
    assert plain.encoder is not None
    recomputed = plain.model_copy(update={"encoder": plain.encoder.model_copy(update={"checkpoint_every": 1})})
    sizes = [step_size(config, bf16=False, gpu=False).clip_bytes for config in (plain, recomputed)]
    assert sizes[1] < 0.85 * sizes[0]
    assert 0.5 < measured_over_computed(recomputed, bf16=False) < 1.0
    tree = plain.model_dump(mode="json", exclude={"encoder": {"size"}})
    tree["encoder"] |= {"levels": [1, 3], "position_grid": 6, "images": True}
    tree["method"]["dense"] = {"weight": 0.5, "start": 0, "end": 1}
    assert 0.5 < measured_over_computed(from_dict(tree, PretrainConfig), bf16=False) < 1.0


def test_a_recipe_on_several_devices_gets_as_much_as_fits() -> None:
    lines = recipe_lines("vjepa2_vitl", 8, 80.0 * 2**30, 4e14)
    assert "303.9 M parameters in the encoder" in lines[0] and "384 clips of each step" in lines[2]
    kept, recomputed, sharded, smallest = (int(re.findall(r"(\d+) at a time", line)[0]) for line in lines[3:7])
    assert 4 <= kept < recomputed <= 384 and 384 % kept == 384 % recomputed == 0
    assert kept <= sharded and recomputed <= smallest and "fsdp2, recomputing" in lines[6]
    whole, part = map(float, re.findall(r"([\d.]+) GiB", lines[2].split("teacher")[1]))
    assert whole / 8 <= part < whole / 5
    assert "not one fits" in recipe_lines("vjepa2_vitl", 8, 7.0 * 2**30, 4e14)[3]
    with pytest.raises(UserError, match="does not divide into 7 devices"):
        recipe_lines("vjepa2_vitl", 7, 80.0 * 2**30, 4e14)
    with pytest.raises(UserError, match=r"no published recipe of that name: .*vjepa2_vitl"):
        recipe_lines("vitl", 8, 80.0 * 2**30, 4e14)
    with pytest.raises(UserError, match="expected either FOLDER"):
        verb()


def measured_over_computed(config: PretrainConfig, bf16: bool) -> float:
    """Bytes that torch keeps of the loss of two clips, over those that were computed."""
    size = config.data.image_size
    assert size is not None
    method = build_method(config, size, 0)
    own = {p.untyped_storage().data_ptr() for p in method.parameters()}  # pyright: ignore
    kept: dict[int, tuple[int, torch.Tensor]] = {}  # the tensors too, so that no place is used twice

    def pack(x: torch.Tensor) -> torch.Tensor:
        kept[x.untyped_storage().data_ptr()] = x.untyped_storage().nbytes(), x
        return x

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda x: x), torch.autocast("cpu", torch.bfloat16, bf16):
        method.loss(Batch(torch.randn(2, 16, 3, size, size), None), torch.Generator().manual_seed(0))
    measured = sum(size for place, (size, _) in kept.items() if place not in own)
    found = step_size(config, bf16=bf16, gpu=False)
    copies = 2 * (found.encoder + found.predictor) if bf16 else 0  # counted with the weights
    return (measured - copies) / (2 * found.clip_bytes)


PEAK = """
import sys
sys.path[:0] = {path}
import torch
from jepa.config import from_dict
from jepa.methods.base import Batch
from jepa.training.build_method import build_method
from jepa.training.config import PretrainConfig
torch.set_num_threads(1)
config = from_dict({tree}, PretrainConfig)
def status(name):
    return next(int(line.split()[1]) * 1024 for line in open("/proc/self/status") if line.startswith(name))
def step(batch):
    video, size = torch.randn(batch, 16, 3, config.data.image_size, config.data.image_size), config.data.image_size
    method.loss(Batch(video, None), torch.Generator().manual_seed(0))["loss"].backward()
    optimizer.step()
    optimizer.zero_grad()
# What libraries take when they are first used is no part of the step.
method = build_method(from_dict({small}, PretrainConfig), 32, 0)
method.loss(Batch(torch.randn(1, 16, 3, 32, 32), None), torch.Generator())["loss"].backward()
before = status("VmRSS")
method = build_method(config, config.data.image_size, 0)
optimizer = torch.optim.AdamW([p for p in method.parameters() if p.requires_grad])
step(1)  # makes the optimizer's state
open("/proc/self/clear_refs", "w").write("5")
step(config.data.batch_size)
print(status("VmHWM") - before)
"""


@pytest.mark.skipif(not Path("/proc/self/clear_refs").exists(), reason="the peak of a process is measured on Linux")
def test_the_peak_of_a_step_stays_below_its_estimate_and_near_it() -> None:
    config, small = described(192, 112, batch=12), described(24, 32, batch=1, heads=1)
    path = [entry for entry in sys.path if entry]
    code = PEAK.format(path=path, tree=config.model_dump(mode="json"), small=small.model_dump(mode="json"))
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120)
    measured, estimate = int(done.stdout), step_size(config, bf16=False, gpu=False).memory(12)
    assert 0.6 < measured / estimate < 1.05, (measured / 2**20, estimate / 2**20)


def test_usable_videos_are_counted_and_the_others_named(surveyed: Survey) -> None:
    assert (surveyed.count, surveyed.looked_at, surveyed.usable) == (5, 5, 3)
    assert [(f.shard, f.kind) for f in surveyed.broken] == [("half.mp4", "truncated"), ("text.mp4", "not a video")]
    first = surveyed.videos[0]
    assert (first.codec, first.width, first.height, first.fps, first.frames, first.seconds) == (
        "h264", 96, 64, 20.0, 80, 4.0
    )  # fmt: skip
    told = "\n".join(surveyed.lines())
    assert "5 video files, 3 usable, 0.2 min" in told and "not usable: 1 not a video" in told


def test_the_speed_of_decoding_is_the_mean_processor_time_of_a_few_clips(
    surveyed: Survey, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert decode_speed(surveyed, 2, None, 64).clip_seconds > 0
    clock = itertools.count(0, 2)  # broken videos also look at it
    monkeypatch.setattr("jepa_data.inspect.survey.time", SimpleNamespace(process_time=lambda: next(clock)))
    speed = decode_speed(surveyed, 64, None, 64)
    assert (speed.videos, speed.clip_seconds) == (3, 2.0)
    with pytest.raises(DataError, match="no clip of 200 frames"):
        decode_speed(surveyed, 200, None, 64)


def test_clips_are_as_long_as_most_videos_allow(surveyed: Survey) -> None:
    def of(seconds: float, fps: float) -> tuple[int, float | None]:
        video = replace(surveyed.videos[0], seconds=seconds, fps=fps)
        return clip_of(replace(surveyed, videos=(video,)))

    assert of(10.0, 30.0) == (16, 7.5)
    assert of(10.0, 5.0) == (16, 5.0)
    assert of(1.2, 30.0) == (16, 15.0)  # too short for 7.5 a second
    assert of(0.6, 30.0) == (8, 15.0)


def test_the_config_fits_the_memory_and_loads(surveyed: Survey, tmp_path: Path) -> None:
    advice = advise(surveyed, LAPTOP, rate=4e10)
    assert advice.size.memory(advice.config.data.batch_size) < 8 * 2**30
    assert advice.config.data.image_size == 64 and advice.config.trainer.precision == "fp32"  # 64 px is all there is
    file = tmp_path / "pretrain.yaml"
    file.write_text(advice.text())
    assert load(file, PretrainConfig) == advice.config
    assert f"# First: jepa data pack {surveyed.folder} {advice.config.data.shards}" in advice.text()
    assert "3 videos are few" in "\n".join(advice.lines())


def test_more_memory_and_speed_never_give_a_smaller_model(surveyed: Survey) -> None:
    large = replace(surveyed, videos=tuple(replace(v, width=1280, height=720) for v in surveyed.videos))
    sizes = []
    for gib, rate in ((4, 1e12), (24, 1e13), (80, 1e14), (640, 1e16)):
        advice = advise(large, replace(CARD, gpu_memory=gib * 2**30), rate)
        batch = advice.config.data.batch_size
        assert advice.size.memory(batch) <= 0.85 * gib * 2**30 and advice.config.trainer.precision == "bf16"
        sizes.append(advice.size.flops)
    assert sizes == sorted(sizes) and sizes[0] < sizes[-1]
    assert advice.name == "large" and advice.config.data.image_size == 224


def test_hours_follow_from_the_measured_rate(surveyed: Survey) -> None:
    advice = advise(surveyed, LAPTOP, rate=4e10)
    steps, step = advice.config.trainer.steps, advice.step_seconds + advice.data_seconds
    assert advice.step_seconds == pytest.approx(advice.config.data.batch_size * advice.size.flops / 4e10)
    assert advice.run_hours == pytest.approx(steps * step / 3600) and 0 < advice.run_hours <= 10.5


def test_this_machine_is_looked_at_and_trains_at_some_rate() -> None:
    machine = hardware.look()
    assert machine.cores >= 1 and machine.memory > 2**28 and machine.line().startswith(f"{machine.cores} cores")
    # Between a slow phone and the fastest accelerator there is: a wrong unit would lie far outside.
    assert 1e8 < training_rate(machine) < 1e17


def test_a_container_with_a_limit_has_no_more_memory_than_that(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hardware, "CGROUP", tmp_path)
    (tmp_path / "memory.max").write_text(f"{2**28}\n")
    (tmp_path / "memory.current").write_text(f"{2**27}\n")
    (tmp_path / "cpu.max").write_text("100000 100000\n")
    machine = hardware.look()
    assert (machine.memory, machine.cores) == (2**27, 1)
    (tmp_path / "memory.max").write_text("max\n")
    assert hardware.look().memory > 2**28


def test_the_config_for_shards_trains(corpus: Path, tmp_path: Path, one_thread: None) -> None:
    advice = doctor(corpus)
    assert advice.survey.shards is not None and advice.config.data.fps is None  # actions belong to every frame
    file = tmp_path / "pretrain.yaml"
    file.write_text(advice.text())
    small = [
        "trainer.steps=2",
        "trainer.device=cpu",
        "data.batch_size=2",
        "data.workers=0",
        "encoder.depth=1",
    ]
    pretrain(load(file, PretrainConfig, [*small, f"run={tmp_path / 'run'}"]))
    assert (tmp_path / "run" / "model" / "model.safetensors").is_file()


def test_the_verb_writes_the_config_and_says_what_comes_next(
    videos: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "mine.yaml"
    verb(videos, write=file, workers=1)
    told = capsys.readouterr().out
    config = load(file, PretrainConfig)
    assert f"next: jepa data pack {videos} {config.data.folder}\nthen: jepa pretrain {file}\n" in told
    assert told.startswith(f"{videos}: 5 video files, 3 usable")
    with pytest.raises(UserError, match="is there already"):
        verb(videos, write=file, workers=1)


@pytest.mark.parametrize("what", ["nothing", "texts", "broken"])
def test_folders_without_videos_say_so(tmp_path: Path, what: str) -> None:
    if what != "nothing":
        (tmp_path / f"a.{'mp4' if what == 'broken' else 'txt'}").write_text("hello")
    with pytest.raises(DataError, match="none of 1 videos is usable" if what == "broken" else "no videos here"):
        survey(tmp_path, workers=1)
