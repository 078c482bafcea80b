"""`python -m tests.bench.long_memory OUT`: which predictors remember a cue for 100 steps?

Records `cue-corridor`, trains predictors on one frozen encoder and the same clips, and lets them plan in corridors of
10 and of 100 steps: a half is solved without memory. Also prints what a state takes, and how long a step, after so many
latents. What is in OUT already is not made again.
"""

import argparse
import time
from pathlib import Path

import numpy as np
import torch

import jepa
from jepa.agents.policy import PlanSettings, Policy
from jepa.planners.cem import CEM
from jepa.training.tokenize import tokenize
from jepa.world_model import LatentWorldModel
from jepa_data.sources.rollouts import Recording, record
from jepa_probes.planning.tasks import Protocol, Tasks, random_actions, wilson

CONFIG = Path(__file__).parents[2] / "configs/pretrain/cue_corridor.yaml"
PREDICTORS = {
    "mlp": "{kind: mlp}",
    "causal, window 16": "{kind: causal, hidden: 64, depth: 2, heads: 4, window: 16}",
    "hybrid": "{kind: hybrid, pattern: M-M-, hidden: 64, heads: 4, mamba_heads: 4, mamba_state: 16}",
    "mdn_rnn": "{kind: mdn_rnn, hidden: 128}",
    "rssm": "{kind: rssm, recurrent_size: 128, hidden: 128, blocks: 4, categoricals: 8, classes: 8}",
}
LENGTHS = (10, 100)
SEEN = (10, 100, 1000)  # latents before a step is timed
AFTER = 6  # steps of a task after the fork
FRAMES, EPISODES, SIZE = 104, 3000, 32
SETTINGS = PlanSettings(
    horizon=8, replan_every=2, planner=CEM(CEM.Config(samples=32, elites=4, iterations=2)), history=FRAMES
)


def trained(out: Path, name: str, seed: int, steps: int) -> LatentWorldModel:
    """The model of a predictor, on the latents of the first predictor's encoder of the same seed."""
    run = out / f"{name.split(',')[0]}-{seed}"
    if (run / "model").is_dir():
        return jepa.load(run)
    overrides = [f"run={run}", f"data.shards={out / 'data'}", f"seed={seed}", f"trainer.steps={steps}"]
    first = out / f"{next(iter(PREDICTORS))}-{seed}"
    if run != first:
        latents = out / f"latents-{seed}"
        if not latents.is_dir():
            tokenize(str(out / "data"), latents, str(first))
        overrides += ["encoder=null", f"method.encoder_from={first}", f"method.latents_from={latents}"]
    return jepa.pretrain(CONFIG, [*overrides, f"method.predictor={PREDICTORS[name]}"], overwrite=True)


def tasks_of(length: int, count: int, seed: int) -> Tasks:
    steps = length + AFTER
    return Tasks(Protocol(f"cue-corridor-{length}", 1, SIZE, count, steps, 0.5, 0.5, seed))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("out", type=Path)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--steps", type=int, default=1000, help="of training")
    parser.add_argument("--tasks", type=int, default=100, help="of each length and seed")
    parser.add_argument("--task-seed", type=int, default=0)
    parser.add_argument("--only", choices=PREDICTORS, action="append")
    given = parser.parse_args()
    if not (given.out / "data" / "manifest.json").is_file():
        record(Recording("cue-corridor", EPISODES, FRAMES, SIZE), given.out / "data")
    write("solved", *(f"{length} steps" for length in LENGTHS))
    for name in ("random", *(given.only or PREDICTORS)):
        cells = []
        for length in LENGTHS:
            solved = [played(given, name, length, seed) for seed in range(given.seeds)]
            share, low, high = wilson(sum(solved), given.tasks * given.seeds)
            cells.append(f"{share:8.1%} ({low:.0%} to {high:.0%})")
        write(name, *cells)
    write("\nafter latents", *(str(n) for n in SEEN))
    for name in given.only or PREDICTORS:
        sizes = [cost_of(trained(given.out, name, 0, given.steps), n) for n in SEEN]
        write(name, *(f"{size:,} B, {ms:.2f} ms" for size, ms in sizes))


def write(*cells: str) -> None:
    print(f"{cells[0]:20}" + "".join(f"{cell:>24}" for cell in cells[1:]), flush=True)  # noqa: T201


def played(given: argparse.Namespace, name: str, length: int, seed: int) -> int:
    """Tasks that are solved."""
    tasks = tasks_of(length, given.tasks, given.task_seed + seed)
    if name == "random":
        return int(tasks.solved_by(random_actions(seed, 4)).sum())
    policy = Policy(trained(given.out, name, seed, given.steps), tasks.goal_images, SETTINGS, seed)
    return int(tasks.solved_by(lambda world: policy.act(world.render())).sum())


@torch.no_grad()
def cost_of(model: LatentWorldModel, latents: int, repeats: int = 50) -> tuple[int, float]:
    """Bytes of the state of one episode, and median milliseconds of a step."""
    dynamics = model.dynamics
    assert dynamics is not None
    z = torch.randn(1, latents, 1, model.spec.width)
    state = dynamics.initial_state(z, torch.zeros(1, latents - 1, 1))
    action, times = torch.zeros(1, 1), []
    for _ in range(repeats):
        began = time.perf_counter()
        dynamics.step(state, action)
        times.append(time.perf_counter() - began)
    return state.nbytes(), 1000 * float(np.median(times))


if __name__ == "__main__":
    main()
