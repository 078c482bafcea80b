"""`jepa probe`: what the frozen latents know, beside what needs no pretraining.

RUN/features/     frozen features, computed once for a model and a data set
RUN/probe.json    scores by probe, columns pretrained, random_init, pixels, pca_pixels, supervised, floor
"""

import json
import time
from collections.abc import Callable
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import nn

from jepa.config import load as load_config
from jepa.runs.build import build_encoder
from jepa.runs.model import load
from jepa.runs.pretrain import optimizer_of, precision, schedule_of
from jepa.runs.schema import PretrainConfig, ProbeConfig
from jepa.world_model import LatentWorldModel
from jepa_data.shards.stream import ClipLoader, make_loader
from jepa_probes import baselines
from jepa_probes.features import Features, cached, extract, fingerprint
from jepa_probes.prediction import predict_latents
from jepa_probes.suite import FLOOR, PCA_PIXELS, PIXELS, PRETRAINED, ProbeResults, score_features

HORIZONS = (1, 10)  # latent steps
CACHE_MIB = 1024  # the videos of a small corpus are decoded once for all encoders
EVALUATION_BATCH = 64


def probe(run: Path, config: ProbeConfig, *, say: Callable[[str], None] = print) -> dict[str, Any]:
    """Score the run's encoder and its baselines on held-out episodes, and write the result.

    Raises:
        UserError: the run holds no model, or its data cannot be probed.
    """
    began = time.perf_counter()
    trained, model = load_config(run / "config.yaml", PretrainConfig), load(run)
    loaders = {split: _loader(trained, config, split) for split in ("train", "test")}
    names = loaders["train"].shards.manifest.state_names
    limits = {"train": config.train_episodes, "test": config.test_episodes}

    def features(
        column: str, encode: Callable[[torch.Tensor], torch.Tensor], module: nn.Module, split: str
    ) -> Features:
        loader, limit = loaders[split], limits[split]
        clips = None if limit is None else limit * config.clips_per_video
        wanted = fingerprint(module, loader) | {"column": column, "episodes": limit}
        make = partial(extract, encode, loader, model.spec.frames_per_step, names, clips=clips)
        return cached(run / "features" / f"{column}-{split}.safetensors", wanted, make, say=say)

    table: dict[str, tuple[Features, Features]] = {}
    for column, encoder in _encoders(model, trained, config, names, say).items():
        encode = baselines.pixels(model.spec.frames_per_step) if encoder is None else partial(_encode, model, encoder)
        parts = [features(column, encode, encoder or nn.Identity(), split) for split in ("train", "test")]
        table[column] = (parts[0], parts[1])
    table[PCA_PIXELS] = baselines.pca_pixels(*table[PIXELS], model.spec.tokens * model.spec.width)
    scored = score_features(table, labels=config.labels, seed=config.seed, say=say)
    result = {"seed": config.seed} | _result(
        scored, table, _prediction(model, trained, config), time.perf_counter() - began
    )
    (run / "probe.json").write_text(json.dumps(result, indent=2) + "\n")
    return result


def _encoders(
    model: LatentWorldModel,
    trained: PretrainConfig,
    config: ProbeConfig,
    names: tuple[str, ...],
    say: Callable[[str], None],
) -> dict[str, nn.Module | None]:
    """The encoder of each column; None stands for pixels."""

    def fresh() -> nn.Module:
        return build_encoder(trained.encoder, model.preprocessing.image_size, trained.data.clip_frames)

    some = make_loader(trained.data, "train", seed=trained.seed, total_batches=8)
    encoders: dict[str, nn.Module | None] = {
        PRETRAINED: model.encoder,
        "random_init": baselines.random_init(fresh, trained.seed, some, model.prepare),
        PIXELS: None,
    }
    if config.supervised and names:
        steps = trained.trainer.steps
        say(f"training the supervised baseline for {steps} steps")
        encoders["supervised"] = baselines.train_supervised(
            fresh,
            make_loader(trained.data, "train", seed=trained.seed, total_batches=steps),
            model.prepare,
            names,
            seed=trained.seed,
            make_optimizer=optimizer_of(trained),
            lr_factor=schedule_of(trained),
            clip_norm=trained.trainer.clip_norm,
            bf16=precision(trained) == "bf16-mixed",
        )
    return encoders


def _encode(model: LatentWorldModel, encoder: nn.Module, video: torch.Tensor) -> torch.Tensor:
    with torch.no_grad():
        return encoder(model.prepare(video))


def _loader(trained: PretrainConfig, config: ProbeConfig, split: str, clip_frames: int | None = None) -> ClipLoader:
    changes = {
        "batch_size": EVALUATION_BATCH,
        "clip_frames": clip_frames or config.clip_frames or trained.data.clip_frames,
        "clips_per_video": 1 if clip_frames else config.clips_per_video,
        "cache_mib": CACHE_MIB,
    }
    return make_loader(trained.data.model_copy(update=changes), split, seed=config.seed, shuffle=False)


def _prediction(model: LatentWorldModel, trained: PretrainConfig, config: ProbeConfig) -> dict[str, Any]:
    """Latent prediction on held-out clips, where the model has dynamics."""
    if model.dynamics is None:
        return {}
    frames = (HORIZONS[-1] + 1) * model.spec.frames_per_step
    clips = _loader(trained, config, "test", frames)
    names = clips.shards.manifest.state_names
    held_out = extract(model.encode, clips, model.spec.frames_per_step, names)
    assert held_out.actions is not None
    scores = predict_latents(
        model.dynamics, held_out.latents, held_out.actions, model.spec.frames_per_step, horizons=HORIZONS
    )
    return {str(score.horizon): asdict(score) for score in scores}


def _result(
    scored: ProbeResults, table: dict[str, tuple[Features, Features]], prediction: dict[str, Any], seconds: float
) -> dict[str, Any]:
    train, test = table[PRETRAINED]
    return {
        "scores": scored.scores,
        "prediction": prediction,
        "episodes": {"train": len(set(train.keys)), "test": len(set(test.keys))},
        "clips": {"train": len(train), "test": len(test)},
        "dropped": scored.counts,
        "chosen": scored.chosen,
        "seconds": round(seconds, 2),
    }


def state_row(result: dict[str, Any]) -> str:
    """The headline of a probe result in one line."""
    row = result["scores"].get("state_r2")
    if row is None:
        return "no ground-truth states in this data set: classification only"
    order = [PRETRAINED, "random_init", PIXELS, PCA_PIXELS, "supervised", FLOOR]
    return "state R²  " + "  ".join(f"{name} {row[name]:.3f}" for name in order if row.get(name) is not None)
