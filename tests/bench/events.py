"""`python -m tests.bench.events WORLD OUT`: is the imagined future nearer to the true one with its event prompted?

Records WORLD with events, and trains a predictor on latents of a computed encoder. Then held-out episodes of the same
start, actions and event are seen for SEEN frames, and imagined for HORIZON more: once with the event prompted, once
without. It happens right after the last frame that is seen. Errors are those of latents, in parts of their variance,
and of states that a linear map reads off them. What is in OUT already is not made again.
"""

import argparse
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

import jepa
from jepa.world_model import LatentWorldModel, rollout
from jepa_data.sources.rollouts import EVENT_STREAM, Recording, draw_events, record
from jepa_data.worlds import make_batch
from jepa_data.worlds.base import WorldBatch, episode_generator

CONFIG = """
run: {run}
seed: {seed}
data: {{shards: {shards}, batch_size: 32, clip_frames: 14, cache_mib: 600}}
encoder: {encoder}
method:
  kind: latent_dynamics
  predictor: {{kind: causal, hidden: 64, depth: 2, heads: 4, window: 14, conditioning: adaln}}
optimizer: {{lr: 2e-3}}
schedule: {{kind: cosine, warmup_steps: 50}}
trainer: {{steps: {steps}, precision: fp32}}
"""
ENCODERS = {  # computed from the recordings; discs have colors of their own, so where they are can be read from images
    "billiards": "{kind: moments, bodies: 3}",
    "": "{kind: pca, width: 96, side: 32, blur: 0.8}",
}
SIZE, FRAMES, RATE = 32, 32, 4.0
RECORDED = 1000
SEEN, HORIZON = 6, 8
HELD_OUT = 10**6  # number of the first episode that is not recorded
# What has to have happened before, at the first of the seen frames, and is prompted in both cases.
BEFORE = {
    "open-door": "close-door",
    "gravity-off": "gravity-down",
    "light-on": "light-off",
    "open-doors": "close-doors",
}
READ = 200  # episodes that the linear maps are fitted to


@dataclass(frozen=True)
class Episodes:
    """What happened: video [E, T, 3, h, w], actions and numbers of events [E, T-1, …], states [E, T, X] by name."""

    video: Tensor
    actions: Tensor
    events: Tensor
    states: dict[str, Tensor]

    def take(self, rows: Tensor) -> "Episodes":
        states = {name: x[rows] for name, x in self.states.items()}
        return Episodes(self.video[rows], self.actions[rows], self.events[rows], states)


def played(world: WorldBatch, actions: np.ndarray, events: np.ndarray) -> Episodes:
    images, states = [world.render()], [states_of(world)]
    for t in range(actions.shape[1]):
        world.trigger(events[:, t])
        world.step(actions[:, t])
        images.append(world.render())
        states.append(states_of(world))
    video = torch.from_numpy(np.stack(images, 1)).permute(0, 1, 4, 2, 3)
    read = {name: torch.from_numpy(np.stack([s[name] for s in states], 1)).float() for name in states[0]}
    return Episodes(video, torch.from_numpy(actions), torch.from_numpy(events), read)


def states_of(world: WorldBatch) -> dict[str, np.ndarray]:
    """[E, X] of what a linear map is to read: where the agent is; in two-rooms also the door."""
    if world.name.startswith("two-rooms"):
        closed = world.state.closed.astype(float)
        return {"agent": world.states()[:, :2], "door y": world.states()[:, 3:], "door closed": closed[:, None]}
    if world.name.startswith("billiards"):
        return {"puck": world.states()[:, :2]}
    return {"light": 1 - world.state[:, 3:4]}


def episodes_of(name: str, count: int, first: int, events: np.ndarray | None = None) -> Episodes:
    """Episodes by the world's random policy; with the events [T-1] of all of them, or those of a recording."""
    numbers = np.arange(first, first + count)
    world = make_batch(name, numbers, image_size=SIZE)
    steps = FRAMES - 1 if events is None else len(events)
    generators = [np.random.default_rng([1, number]) for number in numbers.tolist()]
    actions = world.act("random", generators, steps + 1)
    if events is None:
        drawn = [episode_generator(EVENT_STREAM, number) for number in numbers.tolist()]
        return played(world, actions, draw_events(drawn, steps, RATE, len(world.events)))
    return played(world, actions, np.tile(events, (count, 1)))


def held_out(name: str, event: str, count: int) -> Episodes:
    """Episodes with one event, of those that it makes a difference to within HORIZON."""
    names = list(make_batch(name, np.arange(1), image_size=SIZE).events)
    numbers = np.zeros(SEEN - 1 + HORIZON, np.int64)
    if event in BEFORE:
        numbers[0] = names.index(BEFORE[event]) + 1
    without = episodes_of(name, count, HELD_OUT, numbers)
    numbers[SEEN - 1] = names.index(event) + 1
    happened = episodes_of(name, count, HELD_OUT, numbers)
    differs = (happened.video != without.video).flatten(1).any(1)
    return happened.take(differs.nonzero()[:, 0])


def trained(name: str, out: Path, seed: int, steps: int) -> LatentWorldModel:
    shards, run = out / "data", out / f"run-{seed}"
    if not (shards / "manifest.json").is_file():
        record(Recording(name, RECORDED, FRAMES, SIZE, crf=4, events=RATE), shards)
    if not (run / "model").is_dir():
        config = out / f"run-{seed}.yaml"
        encoder = next(encoder for start, encoder in ENCODERS.items() if name.startswith(start))
        config.write_text(CONFIG.format(run=run, shards=shards, encoder=encoder, seed=seed, steps=steps))
        jepa.pretrain(config, overwrite=True)
    return jepa.load(run)


@torch.no_grad()
def imagined(model: LatentWorldModel, z: Tensor, some: Episodes, *, prompted: bool) -> Tensor:
    """Latents [E, HORIZON, 1, D] after the seen ones."""
    assert model.dynamics is not None
    events = some.events.clone()
    if not prompted:
        events[:, SEEN - 1] = 0
    actions = model.condition(some.actions, events)
    state = model.dynamics.initial_state(z[:, :SEEN], actions[:, : SEEN - 1])
    return rollout(model.dynamics, state, actions[:, None, SEEN - 1 :])[:, 0]


def linear_map(z: Tensor, states: Tensor) -> Tensor:
    """Ridge regression [D + 1, X]."""
    x = torch.cat((z.flatten(0, -2), z.new_ones(z[..., 0].numel(), 1)), -1).double()
    y = states.flatten(0, -2).double()
    return torch.linalg.solve(x.T @ x + 1e-3 * len(x) * torch.eye(x.shape[1]).double(), x.T @ y)


def read(z: Tensor, weights: Tensor) -> Tensor:
    return z.double() @ weights[:-1] + weights[-1]


def interval(x: np.ndarray) -> tuple[float, float, float]:
    """Mean, and 95 % interval of a bootstrap over episodes."""
    draws = np.random.default_rng(0).integers(len(x), size=(4000, len(x)))
    low, high = np.quantile(x[draws].mean(1), (0.025, 0.975))
    return float(x.mean()), float(low), float(high)


@dataclass(frozen=True)
class Subject:
    """A trained model, the variance of its latents, and the linear maps from them to states."""

    model: LatentWorldModel
    variance: Tensor
    maps: dict[str, Tensor]

    @classmethod
    def of(cls, model: LatentWorldModel, known: Episodes) -> "Subject":
        z = model.encode(known.video)[:, :, 0]
        maps = {what: linear_map(z, states) for what, states in known.states.items()}
        return cls(model, z.flatten(0, 1).var(0).mean(), maps)


def errors(some: Episodes, subjects: list[Subject]) -> dict[str, np.ndarray]:
    """[2, seeds, E] without and with the prompt, by what is compared: latents, and each state."""
    result: dict[str, list[list[Tensor]]] = {}
    for subject in subjects:
        z = subject.model.encode(some.video)
        for side, prompted in enumerate((False, True)):
            future = imagined(subject.model, z, some, prompted=prompted)
            apart = (future - z[:, SEEN:]).square().mean((1, 2, 3)) / subject.variance
            result.setdefault("latents", [[], []])[side].append(apart)
            for what, weights in subject.maps.items():
                off = (read(future[:, :, 0], weights) - some.states[what][:, SEEN:]).square().mean((1, 2)).sqrt()
                result.setdefault(what, [[], []])[side].append(off)
    return {what: torch.stack([torch.stack(side) for side in sides]).numpy() for what, sides in result.items()}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("world", help="two-rooms, billiards-easy, doom-rooms, …")
    parser.add_argument("out", type=Path)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--steps", type=int, default=1500, help="of training")
    parser.add_argument("--episodes", type=int, default=100, help="held out, of each event")
    given = parser.parse_args()
    given.out.mkdir(parents=True, exist_ok=True)
    known = episodes_of(given.world, READ, HELD_OUT // 2)
    models = [trained(given.world, given.out, seed, given.steps) for seed in range(given.seeds)]
    subjects = [Subject.of(model, known) for model in models]
    write("event", "error of", "episodes", "not prompted", "prompted", "difference, 95 % interval", "seeds nearer")
    for event in models[0].spec.events:
        for what, x in errors(held_out(given.world, event, given.episodes), subjects).items():
            gain = x[0] - x[1]  # [seeds, E]
            mean, low, high = interval(gain.mean(0))
            nearer = f"{int((gain.mean(1) > 0).sum())} of {len(gain)}"
            span = f"{mean:.4f} ({low:.4f} to {high:.4f})"
            write(event, what, x.shape[-1], f"{x[0].mean():.4f}", f"{x[1].mean():.4f}", span, nearer)


def write(*cells: object) -> None:
    widths = (16, 12, 9, 13, 10, 28, 0)
    print("".join(f"{cell!s:<{width}}" for cell, width in zip(cells, widths, strict=True)), flush=True)  # noqa: T201


if __name__ == "__main__":
    main()
