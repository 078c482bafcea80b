"""Model folders: written by `jepa pretrain` and `jepa import`, loaded by `jepa.load`.

MODEL/model.json          the config of the model, and its preprocessing: size, rate, mean, std
MODEL/model.safetensors   weights of the encoder and, if present, the dynamics
MODEL/predictor/          V-JEPA's masked predictor, if saved
MODEL/classifier/         an attentive classifier and its labels, if present
MODEL/pixels/, …          decoders of latents to images, if fitted (`jepa decoder`)
"""

import shutil
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Literal

import torch

from jepa.config import UserError, first_line, from_dict
from jepa.decoders import DECODERS
from jepa.decoders.classifier import AttentiveClassifier
from jepa.encoders.per_frame import PerFrameEncoder
from jepa.encoders.video_vit import VideoViT
from jepa.models import checkpoint, hub
from jepa.models.build import build_dynamics, build_encoder
from jepa.models.classifier import FOLDER as CLASSIFIER
from jepa.models.classifier import load_classifier, save_classifier
from jepa.models.config import ModelConfig
from jepa.models.parts import PREDICTOR, load_predictor, save_predictor
from jepa.predictors.causal import CausalPredictor
from jepa.predictors.masked import MaskedPredictor
from jepa.world_model import LatentSpec, LatentWorldModel, Preprocessing
from jepa_data.actions import assumed
from jepa_data.transforms import IMAGENET_MEAN, IMAGENET_STD

GRIPPER = tuple(f"gripper.{name}" for name in ("x", "y", "z", "angle.x", "angle.y", "angle.z", "closed"))
FILE_KEYS = ("format", "version", "sha256")  # of the file, by jepa.models.checkpoint


@dataclass(frozen=True)
class Model:
    """The contents of a model folder. `labels` are those of the classifier, in order."""

    world: LatentWorldModel
    config: ModelConfig
    predictor: MaskedPredictor | None = None
    classifier: AttentiveClassifier | None = None
    labels: tuple[str, ...] = field(default=())


def load(path: str | Path, revision: str | None = None) -> LatentWorldModel:
    """Load the model of a run folder, a model folder, or the Hugging Face hub, in evaluation mode and frozen.

    Args:
        path: a run folder, a folder with `model.safetensors` and `model.json`, a folder in the layout of transformers'
            `VJEPA2Model`, or a hub id: "facebook/vjepa2-vitl-fpc64-256", "hf://org/name".
        revision: for a hub id: a branch, a tag or the hash of a commit.

    Raises:
        UserError: there is no model, it is damaged, or its weights belong to another model.
    """
    return open_model(path, revision).world


def open_model(path: str | Path, revision: str | None = None) -> Model:
    """Like `load`, with the masked predictor and the classifier, if the folder contains them."""
    folder = Path(path).expanduser()
    if not folder.is_dir() and isinstance(path, str) and (name := hub.hub_id(path)):
        folder = hub.download(name, revision)
    run, folder = folder, model_folder(folder)
    if not (folder / checkpoint.DESCRIPTION).is_file():
        if (folder / hub.CONFIG).is_file():  # by transformers
            return imported("huggingface", **vars(hub.read(folder)))
        raise UserError(f"{run}: {_no_model(run)}")
    config = read_config(folder)
    checkpoint.check_sizes(folder, config.model_dump(mode="json"))
    try:
        world = _build(config)
    except RuntimeError as error:
        raise UserError(f"{folder}: the model does not fit into memory ({first_line(error)})") from None
    checkpoint.load_into(world, folder)
    classifier, labels = load_classifier(folder) or (None, ())
    return Model(_for_use(world), config, load_predictor(folder), classifier, labels)


def _no_model(folder: Path) -> str:
    """What stands in the place of a model, and what to do."""
    expected = "expected the folder of a run (runs/demo) or of a model (with model.json)"
    if not folder.is_dir():
        return f"{'this is a file' if folder.exists() else 'no such folder'}; {expected}"
    if (folder / "config.yaml").is_file():
        return "this run has no model yet; finish it with `jepa pretrain CONFIG --resume`"
    return f"no model here; {expected}, which `jepa pretrain` or `jepa import` writes"


def model_folder(folder: Path) -> Path:
    """Where a run keeps its model; any other folder itself."""
    if (folder / "model").is_dir():
        return folder / "model"
    return folder


def read_config(folder: Path) -> ModelConfig:
    """The `model.json` of a model folder. Raises UserError if there is none, or it describes no model."""
    stored = {k: v for k, v in checkpoint.read_description(folder).items() if k not in FILE_KEYS}
    if isinstance(dynamics := stored.get("dynamics"), dict):  # saved before there was this key: it took raw actions
        stored["dynamics"] = {"normalize_actions": False} | dynamics
    return from_dict(stored, ModelConfig, source=str(folder / checkpoint.DESCRIPTION))


def save(model: Model, folder: Path) -> None:
    """Write a model so that `load` finds everything it needs beside the weights; parts of an older one go."""
    for part in (PREDICTOR, CLASSIFIER, *DECODERS.places):
        shutil.rmtree(folder / part, ignore_errors=True)
    checkpoint.save(folder, model.world, model.config.model_dump(mode="json"))
    if model.predictor is not None:
        save_predictor(folder, model.predictor)
    if model.classifier is not None:
        save_classifier(folder, model.classifier, model.labels)


def imported(
    origin: str,
    encoder: VideoViT,
    *,
    fps: float,
    predictor: MaskedPredictor | CausalPredictor | None = None,
    classifier: AttentiveClassifier | None = None,
    labels: tuple[str, ...] = (),
    mean: tuple[float, float, float] | None = None,
    std: tuple[float, float, float] | None = None,
    fit: Literal["crop", "stretch"] = "crop",
    shortest_edge: int | None = None,
) -> Model:
    """Weights from elsewhere as a model. A causal predictor makes it V-JEPA 2-AC: a latent step is one frame.

    Args:
        origin: where from, for `ModelConfig.method`.
        fps: frames a second that the encoder was trained on.
        mean, std: of the pixels in 0..1; None: ImageNet's, as in V-JEPA.
        fit, shortest_edge: how images become square, see `jepa_data.preprocessing.Preprocessing`.

    Raises:
        UserError: the encoder does not read RGB images.
    """
    if (channels := encoder.patch_embed.proj.in_channels) != 3:
        raise UserError(f"{origin}: its encoder reads {channels} channels; models here read RGB video, 3 channels")
    preprocessing = Preprocessing(
        image_size=encoder.image_size,
        fps=fps,
        mean=mean or IMAGENET_MEAN,
        std=std or IMAGENET_STD,
        fit=fit,
        shortest_edge=shortest_edge,
        clip_frames=encoder.frames,
    )
    spec = LatentSpec(encoder.tokens, encoder.width, encoder.tubelet / fps, encoder.tubelet)
    model_config = ModelConfig(
        method=origin, frames=encoder.frames, encoder=encoder.config, spec=spec, preprocessing=preprocessing
    )
    if isinstance(predictor, CausalPredictor):
        spec = replace(
            spec,
            step_seconds=1 / fps,
            frames_per_step=1,
            action_size=predictor.action_size,
            states=state_names(predictor),
            actions=assumed(predictor.action_size),  # such files say nothing about their data
        )
        updated = {"encoder": encoder.config.per_frame(), "dynamics": predictor.config, "spec": spec}
        world = LatentWorldModel(PerFrameEncoder.around(encoder), predictor, spec, preprocessing)
        return Model(_for_use(world), model_config.model_copy(update=updated), None, classifier, labels)
    world = LatentWorldModel(encoder, None, spec, preprocessing)
    return Model(_for_use(world), model_config, predictor, classifier, labels)


def _for_use(world: LatentWorldModel) -> LatentWorldModel:
    return world.eval().requires_grad_(False)


def state_names(predictor: CausalPredictor) -> tuple[str, ...]:
    """The proprioceptive inputs of published weights, by our names."""
    if predictor.config.next_state == "apply_delta_pose" and predictor.state_size == len(GRIPPER):
        return GRIPPER
    return tuple(f"state.{number}" for number in range(predictor.state_size))


def _build(config: ModelConfig) -> LatentWorldModel:
    preprocessing = config.preprocessing
    if preprocessing.clip_frames is None:
        preprocessing = replace(preprocessing, clip_frames=config.frames)
    with torch.random.fork_rng(devices=[]):
        encoder = build_encoder(config.encoder, preprocessing.image_size, config.frames)
        dynamics = config.dynamics and build_dynamics(config.dynamics, encoder, config.spec.block_size)
    return LatentWorldModel(encoder, dynamics, config.spec, preprocessing)
