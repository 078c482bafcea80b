"""What is measured of a model on recordings: what its latents hold, what it imagines, and how fast."""

import time
from collections import Counter
from dataclasses import dataclass, replace

import torch
from jaxtyping import Float
from torch import Tensor, nn

from jepa.agents.policy import history_of
from jepa.config import UserError
from jepa.world_model import LatentWorldModel, advance, rollout
from jepa_data.config import StreamConfig
from jepa_probes.comparison.config import MeasureConfig
from jepa_probes.comparison.futures import next_latent_nll, sampled_futures
from jepa_probes.comparison.result import Forecast
from jepa_probes.diagnosis.open_loop import imagine
from jepa_probes.diagnosis.quantities import StateCode, read_out
from jepa_probes.diagnosis.recordings import all_finite, clip_steps
from jepa_probes.planning.recordings import clip_loader, recorded_blocks
from jepa_probes.probing.features import Features, extract
from jepa_probes.probing.prediction import predict_latents
from jepa_probes.probing.state import find_targets, fit_state

ALL = "all"
PLANS, STEPS = 64, 8  # imagined at once, where the speed is measured
SECONDS = 0.5  # that it is measured for


@dataclass(frozen=True)
class Recorded:
    """Clips as the model's encoder sees them. `std`: of each number of a latent in the training clips."""

    train: Features
    test: Features
    std: Float[Tensor, "N D"]


def encode_recordings(model: LatentWorldModel, data: StreamConfig, config: MeasureConfig) -> Recorded:
    """Training clips of the usual length, and held-out clips long enough for the horizons, or as long as there are.

    Raises:
        UserError: the data's actions have another width than the model's, or recordings are too short.
    """
    frames = model.spec.frames_per_step
    wanted = (config.history or model.spec.history) + max(config.horizons)
    lengths = {"train": data.clip_frames, "test": frames * clip_steps(data, frames, "test", wanted)}
    limits = {"train": config.clips, "test": config.test_clips}
    parts = {}
    for split, length in lengths.items():
        loader = clip_loader(model, data, split, config.seed, {"clip_frames": length, "clips_per_video": 1})
        has_states = all(corpus.states for corpus in loader.corpora)
        names = loader.shards.manifest.state_names if has_states else ()
        parts[split] = extract(model.encode_clips, loader, frames, names, clips=limits[split])
    std = parts["train"].latents.flatten(0, 1).std(0).clamp_min(1e-6)
    return Recorded(parts["train"], parts["test"], std)


def state_r2(recorded: Recorded) -> dict[str, float | None]:
    """R² of the states read off one latent: of all, and of each kind of state; empty without states."""
    train = recorded.train
    if not find_targets(train.state_names):
        return {}
    scores = read_out(train, recorded.test)
    kinds: dict[str, list[float]] = {}
    for quantity in StateCode.fit(train.state_names, train.states).quantities:
        if (r2 := scores.get(f"{quantity.name}_r2")) is not None:
            kinds.setdefault(quantity.kind, []).append(r2)
    return {ALL: scores.get("state_r2")} | {kind: sum(known) / len(known) for kind, known in kinds.items()}


def forecast(model: LatentWorldModel, recorded: Recorded, config: MeasureConfig) -> Forecast:
    """Errors of imagined rollouts along recorded actions.

    Raises:
        UserError: there are fewer than two clips, or the clips are too short for any of the horizons.
    """
    dynamics = model.dynamics
    assert dynamics is not None
    test = all_finite(recorded.test, model.spec.states)
    steps = test.latents.shape[1]
    history = min(config.history or history_of(model, 1), steps - 1)
    horizons = [h for h in config.horizons if history + h <= steps]
    if not horizons:
        raise UserError(
            f"the held-out clips hold {steps} latent steps, too few to look {min(config.horizons)} ahead after "
            f"{history}: lower measure.horizons or measure.history, or record longer episodes"
        )
    blocks = recorded_blocks(model, test)
    states = test.states[..., [test.state_names.index(name) for name in model.spec.states]]
    known = states if model.spec.states else None
    assert test.actions is not None
    return Forecast(
        history=history,
        errors=predict_latents(
            dynamics,
            test.latents,
            test.actions,
            model.spec.frames_per_step,
            horizons=horizons,
            context=history,
            states=known,
            seed=config.seed,
        ),
        state_r2=_imagined_states(model, recorded.train, test, blocks, history, horizons),
        sampled=sampled_futures(
            dynamics, test.latents, blocks, history, horizons, config.best_of, states=known, seed=config.seed
        ),
        nll=next_latent_nll(dynamics, test.latents, blocks, history, recorded.std, known),
    )


def _imagined_states(
    model: LatentWorldModel,
    train: Features,
    test: Features,
    blocks: Float[Tensor, "E Q A"],
    history: int,
    horizons: list[int],
) -> dict[int, float | None]:
    """R² of the states at each horizon, read off what was imagined."""
    if not find_targets(train.state_names):
        return {}
    probe = fit_state(train)
    imagined = imagine(model, test, blocks, history, max(horizons))
    scores = {}
    for h in horizons:
        then = history - 1 + h
        there = replace(test, latents=imagined[:, h - 1 : h], states=test.states[:, then : then + 1])
        scores[h] = probe.score(there).state_r2
    return scores


@torch.no_grad()
def frames_per_second(model: LatentWorldModel, recorded: Recorded) -> float:
    """Frames of imagined video a second, of some plans at once."""
    dynamics = model.dynamics
    assert dynamics is not None
    state = _some_state(model, recorded)
    plans = torch.zeros(1, PLANS, STEPS, model.spec.block_size)
    rollout(dynamics, state, plans)  # warms up
    began = time.perf_counter()
    rounds = 0
    while time.perf_counter() - began < SECONDS:
        rollout(dynamics, state, plans)
        rounds += 1
    return rounds * PLANS * STEPS * model.spec.frames_per_step / (time.perf_counter() - began)


@torch.no_grad()
def calls_per_step(model: LatentWorldModel, recorded: Recorded) -> int:
    """How often one step runs its largest layer: 1, or the steps of a diffusion; 0 without layers."""
    dynamics = model.dynamics
    assert isinstance(dynamics, nn.Module)
    calls: Counter[nn.Module] = Counter()
    hooks = []
    for module in dynamics.modules():
        if list(module.parameters(recurse=False)):
            hooks.append(module.register_forward_hook(lambda layer, *_: calls.update([layer])))
    state = _some_state(model, recorded)
    calls.clear()
    try:
        advance(model.dynamics, state, torch.zeros(1, model.spec.block_size))  # pyright: ignore[reportArgumentType]
    finally:
        for hook in hooks:
            hook.remove()
    return calls[max(calls, key=_own_size)] if calls else 0


def _own_size(layer: nn.Module) -> int:
    return sum(parameter.numel() for parameter in layer.parameters(recurse=False))


def _some_state(model: LatentWorldModel, recorded: Recorded):
    assert model.dynamics is not None
    z = recorded.test.latents[:1, :1]
    columns = [recorded.test.state_names.index(name) for name in model.spec.states]
    states = recorded.test.states[:1, :1, columns] if columns else None
    return model.dynamics.initial_state(z, torch.zeros(1, 0, model.spec.block_size), states)
