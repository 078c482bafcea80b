"""`jepa probe`: what the frozen latents know, beside what needs no pretraining.

FOLDER/features/     frozen features, computed once for a model and a data set
FOLDER/probe.json    scores by probe, columns pretrained, random_init, pixels, pca_pixels, supervised, floor

FOLDER is the model's own, or that of `--out`.
"""

import logging
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import nn

from jepa.config import errors_of
from jepa.events import check_same_events
from jepa.models.build import build_encoder
from jepa.models.model import Model, open_model
from jepa.training.config import PretrainConfig
from jepa.training.run_state.run_folder import run_config
from jepa.world_model import LatentWorldModel
from jepa_data.config import StreamConfig
from jepa_data.stream.loader import make_loader
from jepa_probes.clips import check_headline, clips_of, probe_loader, state_names
from jepa_probes.output import output_folder
from jepa_probes.probing import PROBES, baselines
from jepa_probes.probing.base import ClassProbe
from jepa_probes.probing.config import ProbeConfig
from jepa_probes.probing.dense.targets import DenseTargets
from jepa_probes.probing.features import Features, cached, extract, fingerprint
from jepa_probes.probing.prediction import predict_latents
from jepa_probes.probing.result import PredictionErrors, ProbeResult
from jepa_probes.probing.state import find_targets
from jepa_probes.probing.suite import FLOOR, PCA_PIXELS, PIXELS, PRETRAINED, score_features

logger = logging.getLogger(__name__)

HORIZONS = (1, 10)  # latent steps


def probe(folder: Path, config: ProbeConfig, *, out: Path | None = None) -> ProbeResult:
    """Score a model's encoder and its baselines on held-out episodes, and write the result.

    Args:
        folder: of a run; or of a model alone, which also needs `config.shards`.
        out: folder for the result and the features; None: beside the model.

    Raises:
        UserError: the folder holds no model, the data cannot be probed, or nothing can be written.
    """
    began = time.perf_counter()
    classifiers = _classifiers(config)
    opened = open_model(folder)
    model = opened.world
    out = output_folder(folder, out)
    trained = run_config(folder) if (folder / "config.yaml").is_file() else None
    data = clips_of(folder, opened.config, trained, config)
    loaders = {split: probe_loader(data, config, split, spatial=config.spatial) for split in ("train", "test")}
    names = state_names(loaders)
    if not names and loaders["train"].shards.manifest.state_names:
        logger.info("no states are probed: the sources of these clips have different ones")
    check_headline(config, names)
    dense = DenseTargets.of(loaders["train"].samples.spatial, config.spatial_grid) if config.spatial else None

    def features(
        column: str, encode: Callable[[torch.Tensor], torch.Tensor], module: nn.Module, split: str
    ) -> Features:
        loader = loaders[split]
        limit = config.episodes(split)
        clips = limit and limit * config.clips_per_video
        seen = {"mean": model.preprocessing.mean, "std": model.preprocessing.std}
        wanted = fingerprint(module, loader) | {"column": column, "episodes": limit} | seen
        wanted |= _settings(column, config)
        make = partial(extract, encode, loader, model.spec.frames_per_step, names, clips=clips, targets=dense)
        return cached(out / "features" / f"{column}-{split}.safetensors", wanted, make)

    raw = baselines.pixels(model.spec.frames_per_step, config.pixel_side)
    table: dict[str, tuple[Features, Features]] = {}
    for column, encoder in _encoders(opened, trained, data, config, names).items():
        encode = raw if encoder is None else baselines.encode_with(model, encoder)
        parts = [features(column, encode, encoder or nn.Identity(), split) for split in ("train", "test")]
        table[column] = (parts[0], parts[1])
    table[PCA_PIXELS] = baselines.pca_pixels(*table[PIXELS], model.spec.tokens * model.spec.width)
    scored = score_features(
        table,
        classifiers=classifiers,
        labels=config.labels,
        headline=config.headline,
        few_episodes=config.few_episodes,
        dense=dense,
        seed=config.seed,
    )
    train, test = table[PRETRAINED]
    result = ProbeResult(
        seed=config.seed,
        scores=scored.scores,
        prediction=_prediction(model, data, config),
        episodes={"train": len(set(train.keys)), "test": len(set(test.keys))},
        clips={"train": len(train), "test": len(test)},
        dropped=scored.counts,
        chosen=scored.chosen,
        seconds=round(time.perf_counter() - began, 2),
    )
    result.write(out)
    return result


def _settings(column: str, config: ProbeConfig) -> dict[str, Any]:
    """What the features of a column depend on, of the config."""
    settings: dict[str, Any] = {}
    if column == PIXELS:
        settings["side"] = config.pixel_side
    if config.spatial:
        settings["spatial"] = [*config.spatial, config.spatial_grid]
    return settings


def _classifiers(config: ProbeConfig) -> list[ClassProbe]:
    """Raises UserError if the settings of one do not fit together."""
    made = []
    for number, classifier_config in enumerate(config.classifiers):
        with errors_of(f"classifiers.{number}"):
            made.append(PROBES.make(classifier_config))
    return made


def _encoders(
    opened: Model, trained: PretrainConfig | None, data: StreamConfig, config: ProbeConfig, names: tuple[str, ...]
) -> dict[str, nn.Module | None]:
    """The encoder of each column; None stands for pixels."""
    model = opened.world
    seed = (trained or config).seed

    def fresh() -> nn.Module:
        return build_encoder(opened.config.encoder, model.preprocessing.image_size, opened.config.frames)

    some = make_loader(data, "train", seed=seed, total_batches=8)
    encoders: dict[str, nn.Module | None] = {
        PRETRAINED: model.encoder,
        "random_init": baselines.random_init(fresh, seed, some, model.prepare_clips),
        PIXELS: None,
    }
    if not (config.supervised and find_targets(names)):
        return encoders
    if trained is None:
        logger.info("no supervised baseline: it has the budget of a run, and this model comes without one")
        return encoders
    logger.info(f"training the supervised baseline for {trained.trainer.steps} steps")
    encoders["supervised"] = baselines.train_supervised_like(trained, fresh, data, model.prepare_clips, names)
    return encoders


def _prediction(model: LatentWorldModel, data: StreamConfig, config: ProbeConfig) -> dict[str, PredictionErrors]:
    """Latent prediction on held-out clips, where the model has dynamics."""
    if model.dynamics is None:
        return {}
    frames = (HORIZONS[-1] + 1) * model.spec.frames_per_step
    clips = probe_loader(data, config, "test", frames)
    if clips.action_size != model.spec.action_size:
        wide = f"{model.spec.action_size} wide, those of the clips {clips.action_size}"
        logger.info(f"no latent prediction: the model's actions are {wide}")
        return {}
    check_same_events(model.spec.events, clips.events, "the model", clips.shards.url)
    names = state_names({"test": clips})
    if set(model.spec.states) - set(names):
        logger.info(
            f"no latent prediction: the model reads {', '.join(model.spec.states)}, which the clips do not hold"
        )
        return {}
    held_out = extract(model.encode_clips, clips, model.spec.frames_per_step, names)
    assert held_out.actions is not None
    states = held_out.states[..., [names.index(name) for name in model.spec.states]]
    known = states.isfinite().all(-1).all(-1)
    if not known.all():
        left = f"{int((~known).sum())} of {len(known)} clips are left out"
        logger.info(f"latent prediction: {left}, in which states that the model reads are missing or infinite")
    if known.sum() < 2:
        return {}
    scores = predict_latents(
        model.dynamics,
        held_out.latents[known],
        held_out.actions[known],
        model.spec.frames_per_step,
        horizons=HORIZONS,
        states=states[known] if model.spec.states else None,
    )
    return {str(score.horizon): score for score in scores}


def state_row(result: ProbeResult) -> str:
    """The headline of a probe result in one line."""
    row = result.scores.get("state_r2")
    if row is None:
        return "no ground-truth states in this data set: classification only"
    order = [PRETRAINED, "random_init", PIXELS, PCA_PIXELS, "supervised", FLOOR]
    return "state R²  " + "  ".join(f"{name} {row[name]:.3f}" for name in order if row.get(name) is not None)
