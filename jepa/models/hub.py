"""Models from the Hugging Face hub: downloaded once, read from safetensors, never from a pickle.

    a folder in transformers' layout            what is read
    config.json                                 sizes (jepa/models/huggingface.py, classifier.py), labels
    model.safetensors                           or, in pieces, model-0000i-of-0000n.safetensors and their index
    video_preprocessor_config.json              mean and std; `fps`, if it says so

A classifier (`VJEPA2ForVideoClassification`) is read whole, with its labels. A folder in our own layout (`model.json`)
is opened by `jepa.load` as it is. Downloading needs the package huggingface_hub: pip install 'openjepa[huggingface]'.
"""

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from jepa.config import UserError, first_line
from jepa.config.reading import parse_json
from jepa.config.writing import write_text
from jepa.decoders.classifier import AttentiveClassifier
from jepa.encoders.video_vit import VideoViT
from jepa.models.classifier import from_config as classifier_from_config
from jepa.models.huggingface import from_config
from jepa.predictors.masked import MaskedPredictor
from jepa_data.preprocessing import Preprocessing

SCHEME = "hf://"
CONFIG = "config.json"
INDEX = "model.safetensors.index.json"
TENSORS = "model.safetensors"
PREPROCESSOR = "video_preprocessor_config.json"
WANTED = ["*.json", "*.safetensors"]  # no .bin, .pt or .py: nothing that could hold code
FPS = 4.0  # at which V-JEPA 2 was trained; config.json does not say
OWN_PROCESSOR = "VJEPA2VideoProcessor"
PLAIN_PROCESSOR = "LlavaNextVideoVideoProcessor"
CLASSIFIER = "VJEPA2ForVideoClassification"
ARCHITECTURES = ("VJEPA2Model", CLASSIFIER)


@dataclass(frozen=True)
class HubModel:
    """Weights in transformers' layout as our modules.

    `mean` and `std` of pixels in 0..1, None if not given; `fit` and `shortest_edge` as in
    `jepa_data.preprocessing.Preprocessing`; `labels` are the classifier's, in the order of its classes.
    """

    encoder: VideoViT
    predictor: MaskedPredictor | None
    fps: float
    mean: tuple[float, float, float] | None
    std: tuple[float, float, float] | None
    fit: Literal["crop", "stretch"]
    shortest_edge: int | None
    classifier: AttentiveClassifier | None = None
    labels: tuple[str, ...] = ()


def hub_id(name: str) -> str | None:
    """`org/name` of a hub id (`org/name` or `hf://org/name`), or None if this can only be a path.

    `runs/demo` is a path where a folder `runs` exists, and so is anything that begins with a dot, a slash or `~`.
    """
    stem = name.removeprefix(SCHEME)
    if not re.fullmatch(r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*", stem):
        return None
    if stem == name and Path(stem.split("/")[0]).exists():
        return None
    return stem


def download(name: str, revision: str | None = None) -> Path:
    """The folder of a model of the hub in the local cache, downloaded if it is not there yet.

    Args:
        name: `org/name`.
        revision: a branch, a tag or, to pin it, the hash of a commit. None: the main branch.

    Raises:
        UserError: huggingface_hub is not installed, there is no such model, or it cannot be reached and is not cached.
    """
    try:
        from huggingface_hub import snapshot_download
        from huggingface_hub.errors import HfHubHTTPError, HFValidationError, LocalEntryNotFoundError
    except ImportError:
        raise UserError(
            f"{name}: models of the hub need huggingface_hub: pip install 'openjepa[huggingface]'"
        ) from None
    what = f"{name} at revision {revision}" if revision else name
    try:
        return Path(snapshot_download(name, revision=revision, allow_patterns=WANTED))
    except LocalEntryNotFoundError:
        raise UserError(
            f"{name}: no such folder, and {what} is not in the cache of Hugging Face's hub, which cannot be reached "
            "(offline, or HF_HUB_OFFLINE is set). Download it where there is a network, or give a folder"
        ) from None
    except (HfHubHTTPError, HFValidationError) as error:
        raise UserError(
            f"{name}: no such folder, and no model {what} that the hub gives you ({first_line(error)})"
        ) from None


def read(folder: Path) -> HubModel:
    """Our modules from a folder in transformers' layout.

    Raises:
        UserError: it holds another kind of model, a file is damaged or missing, or a tensor does not fit (it is named).
    """
    config = _json(folder / CONFIG)
    architectures = config.get("architectures") or [config.get("model_type")]
    if architectures[0] not in ARCHITECTURES:
        raise UserError(f"{folder}: expected one of {', '.join(ARCHITECTURES)} in {CONFIG}, found {architectures[0]}")
    if architectures[0] == CLASSIFIER:
        encoder, classifier, labels, predictor = classifier_from_config(config, _tensors(folder), str(folder))
    else:
        encoder, predictor = from_config(config, _tensors(folder), str(folder))
        classifier = None
        labels = ()
    images = _json(folder / PREPROCESSOR) if (folder / PREPROCESSOR).is_file() else {}
    return HubModel(
        encoder,
        predictor,
        float(images.get("fps") or FPS),
        _triple(images, "image_mean", folder),
        _triple(images, "image_std", folder),
        *_framing(images, encoder.image_size, folder),
        classifier,
        labels,
    )


def shortest_edge(image_size: int) -> int:
    """Short side to which V-JEPA's evaluations scale a video before the middle square is cut (256 for 224)."""
    return int(image_size * 256 / 224)


def write_preprocessor(folder: Path, preprocessing: Preprocessing) -> None:
    """What transformers' video processor reads: sizes, mean and std, and the frame rate.

    V-JEPA 2's own processor always scales the short side to 256/224 of the square that it cuts. Where a model was
    trained on another part of the image, a processor is named that respects `size` and gives the same kind of output.
    """
    p = preprocessing
    edge = p.shortest_edge or p.image_size
    own = p.fit == "crop" and edge == shortest_edge(p.image_size)
    square = {"height": p.image_size, "width": p.image_size}
    record = {
        "video_processor_type": OWN_PROCESSOR if own else PLAIN_PROCESSOR,
        "do_resize": True,
        "size": {"shortest_edge": edge} if p.fit == "crop" else square,
        "do_center_crop": p.fit == "crop",
        "crop_size": square,
        "resample": 3,  # bicubic, as ours
        "image_mean": list(p.mean),
        "image_std": list(p.std),
        "fps": p.fps,
    }
    write_text(folder / PREPROCESSOR, json.dumps(record, indent=2) + "\n")


def _framing(images: Mapping[str, Any], image_size: int, folder: Path) -> tuple[Literal["crop", "stretch"], int | None]:
    """`fit` and `shortest_edge` of a processor's file.

    Raises:
        UserError: it prepares images in a way that is not ours.
    """
    if not images or images.get("video_processor_type", OWN_PROCESSOR) == OWN_PROCESSOR:
        return "crop", shortest_edge(image_size)
    size = images.get("size")
    if images.get("do_center_crop") and isinstance(size, dict) and isinstance(size.get("shortest_edge"), int):
        if size["shortest_edge"] >= image_size:
            return "crop", None if size["shortest_edge"] == image_size else size["shortest_edge"]
    elif size == {"height": image_size, "width": image_size}:
        return "stretch", None
    raise UserError(
        f"{folder / PREPROCESSOR}: expected images of {image_size} px, cut from the middle (do_center_crop, "
        f"size.shortest_edge) or stretched (size.height, size.width); found {json.dumps(size)}"
    )


def _tensors(folder: Path) -> dict[str, Tensor]:
    names = [TENSORS]
    if (folder / INDEX).is_file():
        weights = _json(folder / INDEX).get("weight_map")
        if not isinstance(weights, dict):
            raise UserError(f"{folder / INDEX}: expected a weight_map in it")
        names = sorted(set(weights.values()))
    state = dict[str, Tensor]()
    for name in names:
        path = folder / name
        if path.parent != folder or not path.is_file():
            raise UserError(f"{folder}: {name} is missing; only safetensors are read, no .bin and no .pt")
        try:
            state |= load_file(path)
        except SafetensorError as error:
            raise UserError(f"{path}: damaged, or not a safetensors file ({error}); copy it again") from None
    return state


def _json(path: Path) -> dict[str, Any]:
    try:
        content = parse_json(path.read_text())
    except (OSError, ValueError) as error:
        raise UserError(f"{path}: not readable as JSON ({error})") from None
    if not isinstance(content, dict):
        raise UserError(f"{path}: expected a JSON object, found {type(content).__name__}")
    return content


def _triple(images: Mapping[str, Any], name: str, folder: Path) -> tuple[float, float, float] | None:
    numbers = images.get(name)
    if numbers is None:
        return None
    if not isinstance(numbers, list) or len(numbers) != 3 or not all(isinstance(x, int | float) for x in numbers):
        raise UserError(f"{folder / PREPROCESSOR}: expected three numbers as {name}, found {numbers}")
    return float(numbers[0]), float(numbers[1]), float(numbers[2])
