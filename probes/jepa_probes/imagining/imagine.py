"""`jepa imagine`: futures that a model imagines, as a video beside the true one.

scene ──encode──→ z seen ──dynamics, actions──→ K imagined futures ──decoder──→ frames ──→ OUT.mp4 or OUT.gif
  └── true frames, where they are known ──────→ errors of each step ─────────────────────→ OUT.json
"""

import time
from dataclasses import dataclass
from pathlib import Path

import torch
from jaxtyping import Float, UInt8
from torch import Tensor

from jepa.config import UserError
from jepa.config.writing import write_text
from jepa.decoders.base import Decoder
from jepa.models.model import load
from jepa.predictors import PREDICTORS
from jepa.training.run_state.run_folder import run_config
from jepa.world_model import LatentWorldModel, advance, block_actions
from jepa_probes.decoding.clips import last_frames
from jepa_probes.imagining.config import ImagineConfig
from jepa_probes.imagining.drawing import draw, writer_of
from jepa_probes.imagining.result import ImagineResult, StepError
from jepa_probes.imagining.scene import Scene, make_scene
from jepa_probes.reporting.run_decoder import pixel_decoder


@dataclass(frozen=True)
class Imagined:
    """K futures of H latent steps.

    Attributes:
        latents: imagined.
        frames: decoded, 0..255.
        seen: the frame that ends each of the S latent steps seen.
        true: the frames that end the imagined steps in truth; None where it is not known.
        result: errors of each step and frames a second, as in the JSON file.
    """

    latents: Float[Tensor, "K H N D"]
    frames: UInt8[Tensor, "K H 3 h w"]
    seen: UInt8[Tensor, "S 3 h w"]
    true: UInt8[Tensor, "H 3 h w"] | None
    result: ImagineResult


def imagine(run: Path, config: ImagineConfig, *, out: Path | None = None) -> Imagined:
    """Imagine futures with the model of a run, and draw them.

    Args:
        out: the video, .mp4 or .gif; FILE.json is written beside it. None: nothing is written.

    Raises:
        UserError: the run has no dynamics, its latents cannot be decoded, what the config names is not there or does
            not fit the model, or several futures are asked of dynamics that predict a single one.
    """
    write = None if out is None else writer_of(out)
    model = load(run)
    training = run_config(run)
    _check(run, model, config)
    scene = make_scene(model, training, config)
    decoder = pixel_decoder(run, model, training)
    if decoder is None:
        raise UserError(f"{run}: latents of {model.spec.tokens} tokens a step cannot be decoded to images")
    done = _imagine(run, model, decoder, scene, config)
    if out is not None and write is not None:
        write(draw(done), 1 / model.spec.step_seconds)
        write_text(done.result.beside(out), done.result.model_dump_json(indent=2) + "\n")
    return done


def _check(run: Path, model: LatentWorldModel, config: ImagineConfig) -> None:
    if model.dynamics is None:
        raise UserError(
            f"{run}: its method has no dynamics, so it imagines nothing. Pretrain one with `method: {{kind: lewm}}`"
        )
    if config.draws and not getattr(model.dynamics, "distribution", False):
        kind = getattr(getattr(model.dynamics, "config", None), "kind", type(model.dynamics).__name__)
        raise UserError(
            f"samples: the dynamics ({kind}) predict a single future, so all samples would be equal; give samples=1, "
            f"or train dynamics that predict a distribution ({_stochastic()})"
        )


def _stochastic() -> str:
    return ", ".join(kind for kind in PREDICTORS if PREDICTORS[kind].distribution)


@torch.no_grad()
def _imagine(run: Path, model: LatentWorldModel, decoder: Decoder, scene: Scene, config: ImagineConfig) -> Imagined:
    tubelet = model.spec.frames_per_step
    seen, steps = scene.seen, scene.steps
    z = model.encode_clips(scene.video[None])
    actions = model.condition(torch.from_numpy(scene.actions), torch.from_numpy(scene.events))
    blocks = block_actions(actions[None].to(z), tubelet)
    began = time.perf_counter()
    latents = roll_out(model, z[:, :seen], blocks[:, : seen - 1 + steps], _states(scene, tubelet, z), config)
    frames = decoder.decode(latents)
    seconds = time.perf_counter() - began
    shown = last_frames(scene.video[None], tubelet)[0]
    true = shown[seen : seen + steps] if scene.is_true else None
    errors = []
    if true is not None:
        errors = step_errors(latents, frames, z[0, seen - 1 : seen + steps], true, decoder, model.spec.step_seconds)
    result = ImagineResult(
        run=str(run),
        start=scene.start,
        actions=scene.acted,
        seen=seen,
        steps=steps,
        step_seconds=model.spec.step_seconds,
        samples=config.samples,
        sampled=config.draws,
        temperature=config.temperature,
        errors=errors,
        decoder=decoder.config.kind,
        frames_per_second=round(config.samples * steps / max(seconds, 1e-9), 1),
        settings=config.model_dump(mode="json", exclude_none=True),
    )
    return Imagined(latents.cpu(), frames.cpu(), shown[:seen], true, result)


def _states(scene: Scene, tubelet: int, z: Tensor) -> Float[Tensor, "1 S X"] | None:
    if scene.states is None:
        return None
    return scene.states[tubelet - 1 : scene.seen * tubelet : tubelet][None].to(z)


def roll_out(
    model: LatentWorldModel,
    z: Float[Tensor, "1 S N D"],
    blocks: Float[Tensor, "1 Q E"],
    states: Float[Tensor, "1 S X"] | None,
    config: ImagineConfig,
) -> Float[Tensor, "K H N D"]:
    """K futures after S latents; the first S-1 of the Q actions lie between these."""
    assert model.dynamics is not None
    seen = z.shape[1]
    samples = config.samples
    state = model.dynamics.initial_state(z, blocks[:, : seen - 1], states).repeat(samples)
    ahead = blocks[:, seen - 1 :].expand(samples, -1, -1)
    generator = torch.Generator().manual_seed(config.seed)
    latents = []
    for step in range(ahead.shape[1]):
        noise = None
        if config.draws:
            noise = torch.randn(samples, *z.shape[2:], generator=generator).to(z)
        state, latent = advance(model.dynamics, state, ahead[:, step], noise, config.temperature)
        latents.append(latent)
    return torch.stack(latents, 1)


def step_errors(
    latents: Float[Tensor, "K H N D"],
    frames: UInt8[Tensor, "K H 3 h w"],
    z: Float[Tensor, "J N D"],
    true: UInt8[Tensor, "H 3 h w"],
    decoder: Decoder,
    step_seconds: float,
) -> list[StepError]:
    """Errors of each imagined step; `z` are the last latent seen and the J-1 = H true ones after it."""
    wrong = (latents - z[1:]).square().mean((0, 2, 3))
    still = (z[:1] - z[1:]).square().mean((1, 2))
    pixels = _rmse(frames, true)
    decoded = _rmse(decoder.decode(z[None, 1:]), true)
    return [
        StepError(
            seconds=round((step + 1) * step_seconds, 4),
            latent=float(wrong[step] / still[step]) if still[step] > 0 else None,
            pixels=float(pixels[step]),
            decoded=float(decoded[step]),
        )
        for step in range(len(true))
    ]


def _rmse(frames: UInt8[Tensor, "K H 3 h w"], true: UInt8[Tensor, "H 3 h w"]) -> Float[Tensor, " H"]:
    return (frames.cpu().float() - true.cpu().float()).square().mean((0, 2, 3, 4)).sqrt()


def summary(result: ImagineResult) -> list[str]:
    """The result as lines: where it began, and the errors of the first, the middle and the last step."""
    lines = [f"{result.start}; actions: {result.actions}; {result.seen} latent steps seen, {result.steps} imagined"]
    chosen = sorted({0, len(result.errors) // 2, len(result.errors) - 1}) if result.errors else []
    lines += [describe(result.errors[step]) for step in chosen]
    if not result.errors:
        lines.append("what happened then is not known: there are no errors")
    futures = f"{result.samples} futures, " if result.samples > 1 else ""
    return [*lines, f"{futures}{result.frames_per_second:g} frames a second, decoder {result.decoder}"]


def describe(error: StepError) -> str:
    """One step's errors as a line."""
    latent = "–" if error.latent is None else f"{error.latent:.2f}"
    return f"+{error.seconds:.1f} s: latent error {latent} of standing still, pixels {error.pixels:.1f} of 255"
