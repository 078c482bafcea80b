"""`make bench-gpu`: what one GPU does, in at most eight minutes. Writes tests/bench/results/gpu.json.

training   V-JEPA 2, V-JEPA 2.1 and LeVJEPA, ViT-L, 16 frames of 256 px, bf16: clips a second, memory, and the share of
           a large matrix product's rate (MFU). As it is, with compiled blocks, and with activation checkpointing too.
loading    360p videos, packed by `jepa data pack`, decoded by workers and copied to the device.
planning   CEM 300 x 30 x 5 with a model of LeWM's size, for one episode and for 64 at once.

Operations are counted by torch on one clip without checkpointing, so what checkpointing computes twice does not count.
What there is no time left for is listed as left out. `--tiny` is a rehearsal with tiny sizes, also on a CPU.
"""

import argparse
import gc
import json
import os
import platform
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode

from jepa.config import load
from jepa.encoders.video_vit import VideoViT
from jepa.methods.base import Batch, Method
from jepa.training.build_method import build_method
from jepa.training.config import PretrainConfig
from jepa.training.optim import optimizer_of
from jepa.transformer import compile_blocks
from jepa_data.config import StreamConfig
from jepa_data.pack.pack import Packing, open_corpus, pack
from jepa_data.pack.recipe import Recipe
from jepa_data.stream.loader import make_loader
from tests.bench.bench_planning import episodes, lewm_like
from tests.bench.clouds import write_clouds
from tests.bench.conftest import RESULTS

PUBLISHED = Path(__file__).parents[2] / "configs/pretrain/published"
RECIPES = {
    "vjepa2_vitl": PUBLISHED / "vjepa/vjepa2_vitl.yaml",
    "vjepa2_1_vitl": PUBLISHED / "vjepa/vjepa2_1_vitl.yaml",
    "levjepa_vitl": PUBLISHED / "levjepa_vitl.yaml",
}
MODES = {"eager": (False, 0), "compiled": (True, 0), "compiled, checkpointed": (True, 1)}  # blocks kept together
FRAMES = 16
Row = dict[str, Any]


@dataclass(frozen=True)
class Sizes:
    """How much is measured.

    Attributes:
        batches: of clips; the largest that fits is taken.
        small: changes of the recipes.
        rounds: steps that are timed, after as many that are not.
        backend: of torch.compile.
    """

    batches: tuple[int, ...] = (64, 32, 16, 8, 4, 2)
    pixels: int = 256
    small: dict[str, tuple[str, ...]] = field(default_factory=dict)
    rounds: int = 5
    backend: str = "inductor"
    product: int = 8192
    videos: int = 64
    scenes: int = 4
    video_seconds: float = 6.0
    load_batches: int = 20
    load_batch: int = 32
    planned: tuple[int, ...] = (1, 64)
    iterations: int = 30
    image: int = 224


TINY_VIT = ("encoder.size=null", "encoder.width=24", "encoder.depth=2", "encoder.heads=2", "encoder.patch=8")
TINY = Sizes(
    batches=(2,),
    pixels=32,
    small={
        "vjepa2_vitl": (*TINY_VIT, "method.predictor.depth=1"),
        "vjepa2_1_vitl": (*TINY_VIT, "encoder.levels=[0, 1]", "method.predictor.depth=1"),
        "levjepa_vitl": (*TINY_VIT, "method.local_size=16", "method.local_views=2", "method.directions=16"),
    },
    rounds=1,
    backend="eager",
    product=64,
    videos=2,
    scenes=1,
    video_seconds=3.0,
    load_batches=2,
    load_batch=2,
    planned=(1,),
    iterations=2,
    image=32,
)


class Bench:
    """Measures one thing after the other on one device until the time is over."""

    def __init__(self, device: torch.device, sizes: Sizes, minutes: float) -> None:
        self.device = device
        self.sizes = sizes
        self.ends = time.perf_counter() + 60 * minutes
        self.rows: list[Row] = []
        self.left_out: list[str] = []

    def run(self) -> None:
        peak = self._product_rate()
        self._note("matrix product", {"tflops": peak / 1e12})
        self._attempt("loading", self._loading)
        for count in self.sizes.planned:
            self._attempt(f"planning, {count} at once", lambda count=count: self._planning(count))
        for mode, (compiled, every) in MODES.items():
            for name in RECIPES:
                self._attempt(f"{name}, {mode}", self._training, name, compiled, every, peak)

    def _attempt(self, name: str, work: Callable[..., Row], *args: Any) -> None:
        if time.perf_counter() > self.ends:
            self.left_out.append(f"{name}: no time left")
            return
        try:
            self._note(name, work(*args))
        except Exception as error:  # noqa: BLE001  the others go on, and this one is named
            self.left_out.append(f"{name}: {type(error).__name__}: {str(error).splitlines()[0]}")
        gc.collect()
        if self.device.type == "cuda":
            torch.cuda.empty_cache()

    def _note(self, name: str, row: Row) -> None:
        rounded = {key: float(f"{x:.4g}") if isinstance(x, float) else x for key, x in row.items()}
        self.rows.append({"name": name} | rounded)
        print(name, *(f"{key} {value}" for key, value in rounded.items()), sep="   ", flush=True)  # noqa: T201

    def _wait(self) -> None:
        if self.device.type == "cuda":
            torch.cuda.synchronize()

    def _product_rate(self) -> float:
        """Operations a second of a large matrix product, in bf16 on a GPU."""
        dtype = torch.bfloat16 if self.device.type == "cuda" else torch.float32
        a = torch.randn(self.sizes.product, self.sizes.product, device=self.device, dtype=dtype)
        seconds = self._median(lambda: a @ a)
        return 2 * self.sizes.product**3 / seconds

    def _median(self, work: Callable[[], object]) -> float:
        """Seconds of one call, of several after a warm-up."""
        times = []
        for number in range(2 * self.sizes.rounds):
            self._wait()
            began = time.perf_counter()
            work()
            self._wait()
            if number >= self.sizes.rounds:
                times.append(time.perf_counter() - began)
        return sorted(times)[len(times) // 2]

    def _training(self, name: str, compiled: bool, every: int, peak: float) -> Row:
        size = f"data.image_size={self.sizes.pixels}"
        config = load(
            RECIPES[name], PretrainConfig, [size, f"encoder.checkpoint_every={every}", *self.sizes.small.get(name, ())]
        )
        flops = self._operations(config)
        for batch in self.sizes.batches:
            if self.device.type == "cuda":
                torch.cuda.reset_peak_memory_stats()
            try:
                seconds = self._steps(config, compiled, batch)
            except torch.cuda.OutOfMemoryError:
                gc.collect()
                torch.cuda.empty_cache()
                continue
            memory = torch.cuda.max_memory_allocated() / 2**30 if self.device.type == "cuda" else None
            return {
                "clips": batch,
                "clips_per_second": batch / seconds,
                "mfu": batch * flops / seconds / peak,
                "gflop_per_clip": flops / 1e9,
                "memory_gib": memory,
            }
        raise MemoryError(f"not even {self.sizes.batches[-1]} clips fit")

    def _method(self, config: PretrainConfig) -> Method:
        return build_method(config, self.sizes.pixels, 0).to(self.device).train()

    def _video(self, clips: int) -> Tensor:
        return torch.randn(clips, FRAMES, 3, self.sizes.pixels, self.sizes.pixels, device=self.device)

    def _operations(self, config: PretrainConfig) -> float:
        """Floating-point operations of a clip, forward and backward."""
        method = self._method(config)
        if isinstance(method.encoder, VideoViT):
            method.encoder.checkpoint_every = 0
        clips = 2  # BatchNorm needs two
        with FlopCounterMode(display=False) as counter, self._autocast():
            method.loss(Batch(self._video(clips), None), torch.Generator().manual_seed(0))["loss"].backward()
        return counter.get_total_flops() / clips

    def _autocast(self) -> torch.autocast:
        return torch.autocast(self.device.type, torch.bfloat16, enabled=self.device.type == "cuda")

    def _steps(self, config: PretrainConfig, compiled: bool, batch: int) -> float:
        method = self._method(config)
        if compiled:
            compile_blocks(method, self.sizes.backend)
        optimizer = optimizer_of(config.optimizer)(method)
        generator = torch.Generator().manual_seed(0)
        video = self._video(batch)

        def step() -> None:
            with self._autocast():
                loss = method.loss(Batch(video, None), generator)["loss"]
            loss.backward()
            optimizer.step()
            optimizer.zero_grad()
            method.after_step(1, 1000)

        return self._median(step)

    def _loading(self) -> Row:
        s = self.sizes
        workers = max(1, min(16, len(os.sched_getaffinity(0)) - 1))
        with tempfile.TemporaryDirectory() as folder:
            videos, shards = Path(folder) / "videos", Path(folder) / "shards"
            videos.mkdir()
            write_clouds(videos, s.videos, s.scenes, s.video_seconds)
            pack(open_corpus(videos), shards, Packing(Recipe(), test_share=0.0))
            settings = {"shards": str(shards), "batch_size": s.load_batch, "clip_frames": FRAMES, "fps": 7.5}
            settings |= {"image_size": s.pixels, "crop": {}, "workers": workers}
            loader = make_loader(StreamConfig.model_validate(settings), "train", seed=0, total_batches=100_000)
            batches = iter(loader)
            for _ in range(s.load_batches):
                next(batches).video.to(self.device, non_blocking=True)
            began = time.perf_counter()
            for _ in range(s.load_batches):
                next(batches).video.to(self.device, non_blocking=True)
            self._wait()
            seconds = time.perf_counter() - began
        return {"clips_per_second": s.load_batches * s.load_batch / seconds, "workers": workers}

    def _planning(self, count: int) -> Row:
        torch.manual_seed(0)
        model = lewm_like(self.sizes.image)
        model.encoder.eval().to(self.device)
        model.dynamics.eval().to(self.device)
        task = [part.to(self.device) for part in episodes(model, count)]

        def plan() -> Tensor:
            return model.plan(*task, iterations=self.sizes.iterations)

        return {"plans_per_second": count / self._median(plan)}


def main(words: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--minutes", type=float, default=8.0, help="nothing is begun after 85 %% of them")
    parser.add_argument("--out", type=Path, default=RESULTS / "gpu.json")
    parser.add_argument("--tiny", action="store_true", help="a rehearsal with tiny sizes, also on a CPU")
    given = parser.parse_args(words)
    if not torch.cuda.is_available() and not given.tiny:
        raise SystemExit("torch finds no GPU; --tiny is a rehearsal on the CPU")
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    bench = Bench(device, TINY if given.tiny else Sizes(), 0.85 * given.minutes)
    bench.run()
    name = torch.cuda.get_device_name() if device.type == "cuda" else platform.processor() or platform.machine()
    record = {"device": name, "torch": torch.__version__, "rows": bench.rows, "left_out": bench.left_out}
    given.out.parent.mkdir(exist_ok=True, parents=True)
    given.out.write_text(json.dumps(record, indent=2) + "\n")
    for line in bench.left_out:
        print("left out:", line)  # noqa: T201
    print("written:", given.out)  # noqa: T201


if __name__ == "__main__":
    main()
