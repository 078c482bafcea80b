"""`jepa decoder`: fit a decoder on the frozen latents of a run, and measure what it shows.

RUN/model/KIND/         the decoder; `jepa report`, `jepa plan` and `jepa imagine` use it
RUN/decoder.json        PSNR, SSIM, where objects are in decoded frames, decoding time
RUN/decoder.png         true frames above decoded ones, of held-out clips

With `--out FOLDER` they go there.
"""

import logging
import time
from pathlib import Path

import numpy as np
import torch
from jaxtyping import UInt8
from torch import Tensor

from jepa.config import UserError, errors_of
from jepa.decoders import DECODERS, OWN
from jepa.decoders.base import Decoder, DecoderConfig
from jepa.decoders.fit import fit_decoder
from jepa.models.model import load
from jepa.models.parts import load_decoder, save_decoder
from jepa.training.config import PretrainConfig
from jepa.training.run_state.checkpoints import FOLDER as CHECKPOINTS
from jepa.training.run_state.checkpoints import newest_whole, weights_of
from jepa.training.run_state.run_folder import run_config
from jepa.world_model import LatentWorldModel
from jepa_probes.decoding.clips import DecodedClips, read_clips
from jepa_probes.decoding.config import FITTED, FitConfig
from jepa_probes.decoding.detect import find_objects
from jepa_probes.decoding.quality import milliseconds, psnr, ssim
from jepa_probes.decoding.replay import true_masks
from jepa_probes.decoding.result import DecoderResult, Found
from jepa_probes.output import folders, output_folder
from jepa_probes.reporting.drawing import enlarge, tile, to_frames, write_png
from jepa_probes.reporting.results import aligned, number, percent

logger = logging.getLogger(__name__)

SHEET = (4, 8)  # clips and steps of the contact sheet
SPOKEN_SECONDS = 20.0  # between two lines about the progress


def decoder(run: Path, config: FitConfig, *, out: Path | None = None) -> DecoderResult:
    """Fit a decoder, or take the one that is there, measure it on held-out clips, and write the result.

    Args:
        out: folder for what is written; None: the run's.

    Raises:
        UserError: there is no model, its latents cannot be decoded so, its method has no decoder of its own, or nothing
            can be written.
    """
    model = load(run)
    training = run_config(run)
    out = output_folder(run, out)
    places = folders(run / "model", None if out == run else out)
    kind = training.method.kind if config.own else config.decoder.kind
    if not config.own and kind not in FITTED:
        raise UserError(f"decoder.kind: {kind} is not fitted; own=true takes it from a run of method {kind}")
    seconds = None
    made: Decoder | None = None
    if not config.overwrite:
        made = _saved(places, kind, config, model)
    if made is None:
        began = time.perf_counter()
        made = _own(run, model, training) if config.own else _fit(model, training, config)
        seconds = round(time.perf_counter() - began, 2)
        save_decoder(places[0], made)
    result = measure(made, model, training, config, out / "decoder.png", seconds)
    result.write(out)
    return result


def _saved(places: tuple[Path, ...], kind: str, config: FitConfig, model: LatentWorldModel) -> Decoder | None:
    for folder in places:
        if (folder / kind).is_dir():
            made = load_decoder(folder, kind, model.dynamics)
            if not config.own and made.config != config.decoder:
                raise UserError(
                    f"{folder / kind}: a decoder with other settings is here; give overwrite=true, or --out"
                )
            logger.info(f"{folder / kind}: this decoder is measured; overwrite=true fits it again")
            return made
    return None


def _fit(model: LatentWorldModel, training: PretrainConfig, config: FitConfig) -> Decoder:
    seed = config.seed
    clips = read_clips(model, training.data, "train", seed=seed, clips=config.clips, clip_frames=config.clip_frames)
    count = clips.frames.shape[0] * clips.frames.shape[1]
    logger.info(f"fitting {config.decoder.kind} to {count} frames for {config.steps} steps")
    spoken = time.monotonic()

    def on_step(step: int, loss: float) -> None:
        nonlocal spoken
        if time.monotonic() - spoken > SPOKEN_SECONDS:
            spoken = time.monotonic()
            logger.info(f"step {step}/{config.steps}  loss {loss:.5f}")

    assert isinstance(config.decoder, DecoderConfig)
    with errors_of("decoder"):
        return fit_decoder(
            config.decoder,
            clips.latents,
            clips.frames,
            steps=config.steps,
            seed=seed,
            moving_weight=config.moving_weight,
            on_step=on_step,
        )


def _own(run: Path, model: LatentWorldModel, training: PretrainConfig) -> Decoder:
    """The decoder that the run's method trained, from its last checkpoint."""
    kind = training.method.kind
    if kind not in OWN:
        raise UserError(f"own: method {kind} trains no decoder of latents ({', '.join(OWN)} do); leave own out")
    _, checkpoint, _ = newest_whole(run / CHECKPOINTS)
    prefix = "decoder."
    trained = weights_of(checkpoint["state_dict"])
    weights = {name.removeprefix(prefix): x for name, x in trained.items() if name.startswith(prefix)}
    if not weights:
        raise UserError(f"own: {run} was trained without a decoder (method.reconstruct); leave own out")
    sizes = {}
    if kind == "dreamer":
        sizes = {"features": model.dynamics.feature_size, "channels": training.method.decoder_channels}  # pyright: ignore
    config = DECODERS.config(kind).model_validate(sizes)
    with errors_of("own"):
        made: Decoder = DECODERS.make(config, model.spec.tokens, model.spec.width, model.preprocessing.image_size)
        made.adopt(weights)
        return made.bind(model.dynamics).eval().requires_grad_(False)


def measure(
    made: Decoder,
    model: LatentWorldModel,
    training: PretrainConfig,
    config: FitConfig,
    sheet: Path,
    seconds: float | None = None,
) -> DecoderResult:
    """Decode held-out clips, compare them with the true frames, and draw some of them."""
    data = training.data
    clips = read_clips(model, data, "test", seed=0, clips=config.test_clips, clip_frames=config.clip_frames)
    shown = made.decode(clips.latents)
    write_png(contact_sheet(clips.frames, shown), sheet)
    flat, true = shown.flatten(0, 1), clips.frames.flatten(0, 1)
    mean = true.float().mean(0).round().to(torch.uint8).expand_as(true)
    return DecoderResult(
        kind=made.config.kind,
        decoder=made.config.model_dump(mode="json"),
        steps=None if config.own else config.steps,
        seed=config.seed,
        image_size=made.image_size,
        psnr=float(psnr(flat, true).mean()),
        ssim=ssim(flat, true),
        mean_image={"psnr": float(psnr(mean, true).mean()), "ssim": ssim(mean, true)},
        objects=_objects(made, model, training, clips, shown, config.near),
        near_pixels=config.near,
        milliseconds=milliseconds(made, clips.latents.flatten(0, 1)),
        device=str(clips.latents.device),
        frames=len(true),
        parameters=sum(p.numel() for p in made.parameters()),
        seconds=seconds,
    )


def _objects(
    made: Decoder,
    model: LatentWorldModel,
    training: PretrainConfig,
    clips: DecodedClips,
    shown: UInt8[Tensor, "E S 3 h w"],
    near: float,
) -> dict[str, Found]:
    steps, tubelet = clips.frames.shape[1], model.spec.frames_per_step
    truth = true_masks(training.data, clips.keys, clips.start_seconds, steps, tubelet, made.image_size)
    if truth is None:
        return {}
    return find_objects(clips.frames, shown, truth, near)


def contact_sheet(true: UInt8[Tensor, "E S 3 h w"], shown: UInt8[Tensor, "E S 3 h w"]) -> UInt8[np.ndarray, "Y X 3"]:
    """True frames above decoded ones, of the first clips."""
    clips, columns = SHEET
    steps = torch.linspace(0, true.shape[1] - 1, min(columns, true.shape[1])).round().long().tolist()
    rows, labels = [], []
    for clip in range(min(clips, len(true))):
        for label, video in (("true", true), ("decoded", shown)):
            frames = enlarge(to_frames(video[clip]), 96)
            rows.append([frames[step : step + 1] for step in steps])
            labels.append(label)
    return tile(rows, labels)[0]


def table(result: DecoderResult) -> list[str]:
    """The result as lines: quality beside that of the mean image, then a row for each object."""
    rows = [["", "decoded", "mean image"]]
    rows.append(["PSNR, dB", number(result.psnr, 1), number(result.mean_image["psnr"], 1)])
    rows.append(["SSIM", number(result.ssim, 3), number(result.mean_image["ssim"], 3)])
    lines = aligned(rows, str.rjust)
    if result.objects:
        near = f"{result.near_pixels:g}"
        cells = [["object", "found", "median px", "90 % px", f"within {near} px", "detector's own px", "frames"]]
        for name, each in result.objects.items():
            places = [number(each.median, 2), number(each.p90, 2), percent(each.near), number(each.floor, 2)]
            cells.append([name, percent(each.found), *places, str(each.frames)])
        lines += ["", *aligned(cells, str.rjust)]
    fitted = "" if result.seconds is None else f", {result.seconds:.0f} s to fit"
    count = f"{result.parameters:,} parameters, {result.frames} held-out frames of {result.image_size} px"
    return [
        *lines,
        "",
        f"{result.kind}: {number(result.milliseconds, 2)} ms a frame on {result.device}, {count}{fitted}",
    ]
