"""`jepa export` and `jepa import`: models out to other programs' files, and in from them.

openjepa      FOLDER   model.json + model.safetensors (jepa/models/model.py)
huggingface   FOLDER   what transformers' VJEPA2Model (or ForVideoClassification) and the hub read
meta          FILE.pt  what Meta's code reads of V-JEPA 1, 2, 2.1 and 2-AC
onnx          FILE     the encoder alone, for clips of one size; the only one that does not come back
"""

import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Literal

import torch

from jepa.config import UserError, first_line
from jepa.config.writing import replacing
from jepa.encoders.per_frame import PerFrameEncoder
from jepa.encoders.video_vit import VideoViT
from jepa.models import classifier, hub, huggingface, meta, meta_ac, onnx
from jepa.models.model import Model, imported, open_model, save
from jepa.predictors.causal import CausalPredictor
from jepa_data.writable import check_writable

logger = logging.getLogger(__name__)

To = Literal["openjepa", "huggingface", "meta", "onnx"]
From = Literal["huggingface", "meta"]
DEFAULT = {"openjepa": "openjepa", "huggingface": "huggingface", "meta": "meta.pt", "onnx": "model.onnx"}


def export(
    source: str,
    to: To,
    out: Path | None = None,
    *,
    image_size: int | None = None,
    frames: int | None = None,
    overwrite: bool = False,
) -> Path:
    """Write the model of a run, a model folder or the hub in another format.

    Args:
        out: None: `SOURCE/export/…`, or `export/…` here for a model of the hub.
        image_size, frames: of the clips that an ONNX file takes; None: those of training.
        overwrite: replace what is there.

    Raises:
        UserError: the format cannot hold this model, `out` is taken, or a package is missing.
    """
    if to != "onnx" and (image_size or frames):
        raise UserError("--image-size and --frames fix the clips of an ONNX file; the other formats take any")
    out = out or (Path(source) if Path(source).is_dir() else Path()) / "export" / DEFAULT[to]
    _check_free(out, overwrite)
    model = open_model(source)
    match to:
        case "openjepa":
            save(model, out)
        case "huggingface":
            _to_huggingface(model, out)
        case "meta":
            _to_meta(model, out)
        case "onnx":
            logger.info(_to_onnx(model, out, image_size, frames))
    logger.info(f"{out}: {_summary(model)}")
    return out


def import_(
    source: str,
    origin: From,
    out: Path | None = None,
    *,
    image_size: int | None = None,
    frames: int | None = None,
    fps: float | None = None,
    heads: int | None = None,
    predictor_heads: int | None = None,
    weights: meta.Which = "target_encoder",
    overwrite: bool = False,
) -> Path:
    """Write published weights as a model folder, which `jepa.load` opens.

    Args:
        source: Meta's checkpoint; or a folder of transformers, or its hub id.
        out: None: `models/NAME`.
        image_size, frames, fps: what Meta's encoder was trained on, which its file does not say; fps None: 4.
        heads, predictor_heads: of Meta's models; None: those of the published ones.
        weights: which of Meta's encoders.

    Raises:
        UserError: the weights are damaged or of another model, or `out` is taken.
    """
    out = out or Path("models") / Path(source.removeprefix(hub.SCHEME)).name.split(".")[0]
    _check_free(out, overwrite)
    if origin == "meta":
        model = _from_meta(source, image_size, frames, fps or hub.FPS, (heads, predictor_heads), weights)
    elif image_size or frames or fps or heads or predictor_heads or weights != "target_encoder":
        raise UserError(
            "--image-size, --frames, --fps, --heads, --predictor-heads and --weights are for Meta's files; here "
            "config.json says it"
        )
    else:
        model = open_model(source)
    save(model, out)
    logger.info(f"{out}: {_summary(model)}. Next: jepa embed VIDEOS --model {out}")
    return out


def _check_free(out: Path, overwrite: bool) -> None:
    if out.exists() and not overwrite:
        raise UserError(f"{out} is already there; give another --out, or --overwrite")
    check_writable(out.parent)


def _video_vit(model: Model, to: str) -> VideoViT:
    encoder = model.world.encoder
    if not isinstance(encoder, VideoViT):
        raise UserError(f"{to} holds encoders of kind video_vit, this one is of kind {model.config.encoder.kind}")
    return encoder


def _to_huggingface(model: Model, out: Path) -> None:
    encoder = _video_vit(model, "huggingface")
    if model.classifier is not None:
        exported = classifier.to_transformers(encoder, model.classifier, model.labels, model.predictor)
    else:
        exported = huggingface.to_transformers(encoder, model.predictor)
    exported.save_pretrained(out)
    hub.write_preprocessor(out, model.world.preprocessing)


def _to_meta(model: Model, out: Path) -> None:
    encoder = model.world.encoder
    dynamics = model.world.dynamics
    if isinstance(encoder, PerFrameEncoder) and isinstance(dynamics, CausalPredictor):
        state = meta_ac.to_state(encoder.encoder, dynamics)
    else:
        state = meta.to_state(_video_vit(model, "meta"), model.predictor)
    out.parent.mkdir(parents=True, exist_ok=True)
    with (
        replacing(out) as partial,
        partial.open("wb") as file,
    ):  # torch makes a RuntimeError of a path that cannot be opened, and of a full disk
        try:
            torch.save(state, file)
        except RuntimeError as error:
            raise UserError(f"{out}: cannot be written ({first_line(error)}); free some space") from error


def _to_onnx(model: Model, out: Path, image_size: int | None, frames: int | None) -> str:
    p = model.world.preprocessing
    size = image_size or p.image_size
    length = frames or model.config.frames
    about = {
        "fps": f"{p.fps:g}",
        "tubelet": str(model.world.spec.frames_per_step),
        "mean": _numbers(p.mean),
        "std": _numbers(p.std),
        "fit": p.fit,
    }
    if p.shortest_edge is not None:
        about["shortest_edge"] = str(p.shortest_edge)
    out.parent.mkdir(parents=True, exist_ok=True)
    difference = onnx.to_onnx(model.world.encoder, out, image_size=size, frames=length, about=about)
    return f"video [batch, {length}, 3, {size}, {size}], normalized; onnxruntime differs by {difference:.1e} at most"


def _from_meta(
    source: str,
    image_size: int | None,
    frames: int | None,
    fps: float,
    heads: tuple[int | None, int | None],
    weights: meta.Which,
) -> Model:
    if image_size is None or frames is None:
        raise UserError(
            f"{source}: Meta's files do not say what clips they were trained on. Give --image-size and --frames: "
            "256 (or what the name says) and 64 for V-JEPA 2, 2.1 and 2-AC; 224 and 16 for V-JEPA 1 (with --fps 7.5)"
        )
    state = meta.load_state(source, weights)
    acts = meta.ACTIONS in (state.predictor or {})
    build = meta_ac.build if acts else meta.build
    encoder, predictor = build(state, image_size, frames, heads=heads[0], predictor_heads=heads[1], where=source)
    # Meta's evaluations scale the short side to 256/224 of the square that is cut; its robots' policies do not.
    edge = None if acts else hub.shortest_edge(image_size)
    return imported("meta", encoder, fps=fps, predictor=predictor, shortest_edge=edge)


def _summary(model: Model) -> str:
    world = model.world
    encoder = (
        f"encoder {_millions(world.encoder)} M parameters",
        f"width {world.spec.width}",
        model.config.encoder.summary(),
        f"{world.preprocessing.image_size} px",
        f"{world.preprocessing.fps:g} frames/s",
    )
    parts = {"predictor": model.predictor, "classifier": model.classifier, "dynamics": world.dynamics}
    others = [f"{name} {_millions(part)} M" for name, part in parts.items() if isinstance(part, torch.nn.Module)]
    return "; ".join([", ".join(filter(None, encoder)), *others])


def _millions(module: torch.nn.Module) -> str:
    return f"{sum(x.numel() for x in module.parameters()) / 1e6:.1f}"


def _numbers(values: Sequence[float]) -> str:
    return " ".join(f"{value:g}" for value in values)
