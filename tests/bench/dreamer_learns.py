"""Does `jepa online` learn? Returns of held-out episodes over environment steps, for seeds, beside random and a script.

python -m tests.bench.dreamer_learns configs/online/cartpole.yaml --seeds 3

Each seed is a run of its own, beside the config's `run` (RUN-0, RUN-1, …). One that was stopped goes on; one that is
done is not run again. The scripts read the true state: an energy swing-up for the pendulum, a linear rule for the pole.
"""

import argparse
from pathlib import Path

import numpy as np

from jepa.config import load
from jepa.online.config import OnlineConfig
from jepa.online.environment import Environment
from jepa.online.evaluate import Act, Evaluation, play
from jepa.online.loop import CHECKPOINT, learn_online
from jepa.online.result import OnlineResult

EPISODES = 20


def swing_up(environment: Environment) -> np.ndarray:
    """Torque in -1..1: pump energy until it suffices to stand, then a PD controller."""
    cos, sin, speed = environment.world.states()[:, :3].T
    angle = np.arctan2(sin, cos)
    energy = speed**2 / 6 + 5 * (cos - 1)  # of a rod of 1 kg and 1 m under 10 m/s², 0 upright
    pump = -4 * np.where(speed < -1e-3, -1, 1) * energy
    balance = -15 * angle - 3 * speed
    near = (np.abs(angle) < 0.6) & (np.abs(speed) < 6)
    return (np.where(near, balance, pump) / 2).clip(-1, 1)[:, None]


def balance_pole(environment: Environment) -> np.ndarray:
    """One-hot push to the side that the pole and the cart lean to."""
    x, velocity, angle, turning = environment.world.states()[:, :4].T
    right = 0.1 * x + 0.3 * velocity + 5 * angle + turning > 0
    return np.eye(2)[right.astype(int)]


SCRIPTS: dict[str, Act] = {"gym:Pendulum-v1": swing_up, "gym:CartPole-v1": balance_pole}


def run_seed(path: Path, seed: int, overrides: list[str]) -> OnlineResult:
    config = load(path, OnlineConfig, [*overrides, f"seed={seed}"])
    config = config.model_copy(update={"run": f"{config.run}-{seed}"})
    folder = Path(config.run)
    if (folder / OnlineResult.FILE).is_file():
        return OnlineResult.read(folder)
    return learn_online(config, resume=(folder / CHECKPOINT).is_file(), overwrite=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("config", type=Path)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("overrides", nargs="*")
    given = parser.parse_intermixed_args()
    results = [run_seed(given.config, seed, given.overrides) for seed in range(given.seeds)]
    config = load(given.config, OnlineConfig, [*given.overrides, f"evaluation_episodes={EPISODES}"])
    print(f"{'steps':>8}" + "".join(f"  seed {seed:<4}" for seed in range(given.seeds)))  # noqa: T201
    for scores in zip(*(result.evaluations for result in results), strict=False):
        print(f"{scores[0].step:8}" + "".join(f"  {score.mean_return:9.1f}" for score in scores))  # noqa: T201
    others = {"random": results[0].baselines["random"]}
    if config.environment.world in SCRIPTS:
        others["script"] = Evaluation.of(0, play(config, SCRIPTS[config.environment.world]))
    for name, score in others.items():
        print(f"{name:>8}  {score.mean_return:9.1f}  ({score.low:.1f} … {score.high:.1f})")  # noqa: T201
    print(f"CPU seconds a seed: {[round(result.cpu_seconds) for result in results]}")  # noqa: T201


if __name__ == "__main__":
    main()
