"""Attentive classifiers: transformers' `VJEPA2ForVideoClassification` to our modules and back, bit for bit.

    ours                  transformers
    encoder, predictor    vjepa2.… as in jepa/models/huggingface.py
    blocks.0.attn.qkv     pooler.self_attention_layers.0.self_attn.{q_proj, k_proj, v_proj}
    blocks.0.attn.proj    pooler.self_attention_layers.0.self_attn.out_proj
    query [1, 1, D]       pooler.query_tokens
    reader.q              pooler.cross_attention_layer.cross_attn.q_proj
    reader.kv             pooler.cross_attention_layer.cross_attn.{k_proj, v_proj}
    head                  classifier
    labels                id2label, in config.json

The model holds the predictor too, which classifies nothing: the published classifiers (V-JEPA 2, arXiv 2506.09985)
carry the whole of it, so it is handed on. In our own format a classifier lies in a folder beside the model it reads:
MODEL/classifier.

To and from transformers' objects needs the package: pip install 'openjepa[huggingface]'.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from jepa.config import UserError
from jepa.decoders.classifier import AttentiveClassifier
from jepa.encoders.video_vit import VideoViT
from jepa.models import checkpoint, huggingface
from jepa.models.checkpoint import check_tensors, fill
from jepa.predictors.masked import MaskedPredictor

if TYPE_CHECKING:
    from transformers import VJEPA2ForVideoClassification

Parts = tuple[VideoViT, AttentiveClassifier, tuple[str, ...], MaskedPredictor | None]

FOLDER = "classifier"
BASE = "vjepa2."
MODULES = (  # ours, theirs
    ("blocks.", "pooler.self_attention_layers."),
    ("query", "pooler.query_tokens"),
    ("reader.", "pooler.cross_attention_layer."),
    ("head.", "classifier."),
)
LAYERS = (  # ours, and theirs that it holds one under the other
    (".norm1.", (".layer_norm1.",)),
    (".norm2.", (".layer_norm2.",)),
    (".attn.qkv.", (".self_attn.q_proj.", ".self_attn.k_proj.", ".self_attn.v_proj.")),
    (".attn.proj.", (".self_attn.out_proj.",)),
    (".q.", (".cross_attn.q_proj.",)),
    (".kv.", (".cross_attn.k_proj.", ".cross_attn.v_proj.")),
)
MLP_RATIO = 4.0  # of transformers' pooler, whatever that of the encoder
UNNAMED = ("LABEL_0", "LABEL_1")  # what a config without id2label means in transformers


def to_transformers(
    encoder: VideoViT, classifier: AttentiveClassifier, labels: Sequence[str], predictor: MaskedPredictor | None = None
) -> "VJEPA2ForVideoClassification":
    """The same weights as transformers' model, in evaluation mode.

    Args:
        labels: what the classes are called, in their order.
        predictor: None: the model's predictor has no layers and means nothing.

    Raises:
        UserError: `VJEPA2ForVideoClassification` has no such encoder or classifier, the labels are not one a class, or
            transformers is not installed.
    """
    needed = {"width": encoder.width, "heads": encoder.heads, "mlp_ratio": MLP_RATIO}
    actual = {name: classifier.settings[name] for name in needed}
    if actual != needed:
        raise UserError(
            "VJEPA2ForVideoClassification has a classifier of its encoder's width and heads, with an mlp_ratio of "
            f"{MLP_RATIO}: expected {needed}, found {actual}"
        )
    names = _fitting(labels, classifier, "labels")
    settings = huggingface.describe(encoder, predictor) | {
        "num_pooler_layers": len(classifier.blocks),
        "id2label": dict(enumerate(names)),
        "label2id": {name: number for number, name in enumerate(names)},
    }
    config, model_class = huggingface.their_classes("VJEPA2Config", "VJEPA2ForVideoClassification")
    model = model_class(config(**settings)).eval()
    base = huggingface.their_tensors(encoder, predictor, model.vjepa2.state_dict())
    tensors = {BASE + name: tensor for name, tensor in base.items()} | _theirs(classifier.state_dict())
    check_tensors(model.state_dict(), tensors, "this classifier")
    model.load_state_dict(tensors)
    return model


def from_transformers(model: "VJEPA2ForVideoClassification") -> Parts:
    """Our encoder, classifier, labels and predictor (None if it has no layers), in evaluation mode.

    What comes out can go back in: `to_transformers(*from_transformers(model))`.

    Raises:
        UserError: the model is no `VJEPA2ForVideoClassification`, or has layers that it does not publish with.
    """
    (model_class,) = huggingface.their_classes("VJEPA2ForVideoClassification")
    if not isinstance(model, model_class):
        raise UserError(f"expected a VJEPA2ForVideoClassification of transformers, found {type(model).__name__}")
    return from_config(model.config.to_dict(), model.state_dict(), "the model")


def from_config(config: Mapping[str, Any], state: Mapping[str, Tensor], where: str) -> Parts:
    """The same from the contents of a `config.json` and the tensors; needs no transformers.

    Raises:
        UserError: a setting is missing or unknown to us; a class has no label; a tensor is missing, surplus or of
            another shape.
    """
    depth = config.get("num_pooler_layers")
    if not isinstance(depth, int) or depth < 0:
        raise UserError(
            f"{where}: expected how many layers the pooler has as num_pooler_layers in its config, found {depth!r}; is "
            "it that of a VJEPA2ForVideoClassification?"
        )
    stems = (f"{BASE}encoder.", f"{BASE}predictor.")
    base = {name.removeprefix(BASE): tensor for name, tensor in state.items() if name.startswith(stems)}
    own = {name: tensor for name, tensor in state.items() if not name.startswith(stems)}
    encoder, predictor = huggingface.from_config(config, base, where)
    labels = _labels(config.get("id2label"), own.get("classifier.weight"), where)
    with torch.device("meta"):
        classifier = AttentiveClassifier(encoder.width, encoder.heads, depth, len(labels), MLP_RATIO)
    ours = classifier.state_dict()
    check_tensors(_theirs(ours), own, where)
    fill(classifier, {name: torch.cat([own[part] for part in _their_names(name)]) for name in ours}, where)
    return encoder, classifier, labels, predictor


def save_classifier(model: Path, classifier: AttentiveClassifier, labels: Sequence[str]) -> None:
    """Write the classifier and what its classes are called, in order, beside the model in the folder `model`.

    Raises:
        UserError: the labels are not one a class.
    """
    names = _fitting(labels, classifier, "labels")
    settings = {"kind": "attentive_classifier", "settings": classifier.settings, "labels": list(names)}
    checkpoint.save(model / FOLDER, classifier, settings)


def load_classifier(model: Path) -> tuple[AttentiveClassifier, tuple[str, ...]] | None:
    """The classifier saved beside the model, in evaluation mode, and its labels; None if there is none.

    Raises:
        UserError: it is damaged, or its description is of something else.
    """
    folder = model / FOLDER
    if not folder.is_dir():
        return None
    description = checkpoint.read_description(folder)
    try:
        with torch.random.fork_rng(devices=[]):
            classifier = AttentiveClassifier(**description["settings"])
        labels = _fitting(description["labels"], classifier, f"{folder}: labels")
    except (KeyError, TypeError, ValueError) as error:
        raise UserError(f"{folder}: does not describe a classifier ({error})") from None
    checkpoint.load_into(classifier, folder)
    return classifier.eval(), labels


def _fitting(labels: Any, classifier: AttentiveClassifier, where: str) -> tuple[str, ...]:
    """The labels, if they are one a class."""
    if not isinstance(labels, list | tuple) or not all(isinstance(label, str) for label in labels):
        raise UserError(f"{where}: expected a list of names, found {labels!r:.80}")
    if len(labels) != classifier.classes:
        raise UserError(f"{where}: expected one for each of the {classifier.classes} classes, found {len(labels)}")
    return tuple(labels)


def _labels(named: Any, weight: Tensor | None, where: str) -> tuple[str, ...]:
    """What the config calls the classes, in their order; `weight` [classes, D] says how many there are."""
    if named is None:
        named = dict(enumerate(UNNAMED))
    try:
        labels = {int(number): label for number, label in named.items()}
    except (AttributeError, ValueError):
        raise UserError(f"{where}: expected id2label to name classes by number, found {named!r:.80}") from None
    classes = len(labels) if weight is None or not weight.ndim else len(weight)
    expected = set(range(classes))
    wrong = {"missing": expected - labels.keys(), "surplus": labels.keys() - expected}
    if any(wrong.values()) or not labels or not all(isinstance(label, str) for label in labels.values()):
        raise UserError(
            f"{where}: expected id2label to name classes 0 to {classes - 1}, found {len(labels)} names"
            + "".join(f"; {what} {_few(numbers)}" for what, numbers in wrong.items() if numbers)
        )
    return tuple(labels[number] for number in range(classes))


def _few(numbers: set[int]) -> str:
    return ", ".join(map(str, sorted(numbers)[:5])) + (" …" if len(numbers) > 5 else "")


def _theirs(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    renamed = dict[str, Tensor]()
    for name, tensor in tensors.items():
        names = _their_names(name)
        renamed |= zip(names, tensor.chunk(len(names)), strict=True)
    return renamed


def _their_names(name: str) -> tuple[str, ...]:
    """What transformers calls the pieces of one of our tensors, from the top."""
    ours, theirs = next(pair for pair in MODULES if name.startswith(pair[0]))
    name = theirs + name.removeprefix(ours)
    for layer, pieces in LAYERS:
        if layer in name:
            return tuple(name.replace(layer, piece) for piece in pieces)
    return (name,)
