"""Attentive classifiers agree with transformers, and go there, into a folder and back without losing a bit."""

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from jepa.config import UserError
from jepa.decoders.classifier import AttentiveClassifier
from jepa.encoders.video_vit import VideoViT
from jepa.models import hub
from jepa.models.classifier import (
    Parts,
    from_config,
    from_transformers,
    load_classifier,
    save_classifier,
    to_transformers,
)
from jepa.models.huggingface import from_transformers as from_base
from jepa.models.huggingface import to_transformers as to_base
from jepa.predictors.masked import MaskedPredictor
from tests.edited import write_edited

pytestmark = pytest.mark.usefixtures("one_thread")

LABELS = tuple(f"class {number}" for number in range(12))  # more than ten: "10" is not between "1" and "2"
FRAMES, SIZE = 8, 32


def perturbed(module: nn.Module, width: int = 48) -> None:
    """Weights large enough that attention is far from uniform, and norms and biases that are not 1 and 0."""
    with torch.no_grad():
        for name, parameter in module.named_parameters():
            parameter.add_(torch.randn_like(parameter) * (2.0 if name == "query" else 0.9 / width**0.5))


def models(width: int = 48, heads: int = 4, depth: int = 2, predictor: bool = True, classes: int = 12) -> Parts:
    """`mlp_ratio` of the encoder is not that of the classifier: transformers has one setting, and it is the former."""
    torch.manual_seed(0)
    encoder = VideoViT(
        VideoViT.Config(patch=8, tubelet=2, width=width, depth=2, heads=heads, mlp_ratio=2.0, positions="rotary_tiled"),
        SIZE,
        FRAMES,
    )
    classifier = AttentiveClassifier(width, heads, depth, classes)
    predicts = (
        MaskedPredictor(
            MaskedPredictor.Config(width=24, depth=1, heads=2, positions="rotary_tiled"), width, mask_kinds=3
        )
        if predictor
        else None
    )
    for module in (encoder, classifier, predicts):
        if module is not None:
            perturbed(module, width)
            module.eval()
    return encoder, classifier, LABELS[:classes], predicts


def clips(count: int = 2) -> Tensor:
    return torch.randn(count, FRAMES, 3, SIZE, SIZE, generator=torch.Generator().manual_seed(1))


def same(a: nn.Module | None, b: nn.Module | None) -> None:
    assert a is not None and b is not None
    first, second = a.state_dict(), b.state_dict()
    assert first.keys() == second.keys() and all(torch.equal(first[name], second[name]) for name in first)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    to_transformers(*models()).save_pretrained(tmp_path / "model")
    return tmp_path / "model"


def change(folder: Path, **settings: object) -> None:
    """Write these settings to config.json; None takes one out."""
    config = json.loads((folder / "config.json").read_text()) | settings
    (folder / "config.json").write_text(json.dumps({name: x for name, x in config.items() if x is not None}))


def retensor(folder: Path, add: dict[str, Tensor], without: str = "") -> None:
    tensors = load_file(folder / "model.safetensors") | add
    tensors.pop(without, None)
    save_file(tensors, folder / "model.safetensors")


@torch.no_grad()
@pytest.mark.parametrize(("width", "heads", "depth"), [(48, 4, 3), (48, 4, 1), (48, 4, 0), (192, 3, 3), (192, 3, 1)])
def test_logits_equal_those_of_transformers(width: int, heads: int, depth: int):
    encoder, classifier, labels, _ = models(width, heads, depth)
    model = to_transformers(encoder, classifier, labels)
    theirs, tokens = model(clips()).logits, encoder(clips())
    ours = classifier(tokens)
    torch.testing.assert_close(ours, theirs, atol=1e-5, rtol=0)
    faint = 1e-3 * tokens.flatten(1, 2)  # their variance is about the eps of the norms, so another eps would show
    torch.testing.assert_close(classifier(faint), model.classifier(model.pooler(faint)), atol=1e-5, rtol=0)
    torch.testing.assert_close(ours, classifier(tokens.flatten(1, 2)))  # [B, M, D] is the same as [B, S, N, D]
    assert theirs.std() > 0.1 and (theirs[0] - theirs[1]).abs().max() > 0.01


@torch.no_grad()
def test_attention_is_far_from_uniform_and_every_parameter_matters():
    """So that the test above would see one that is left out or swapped."""
    encoder, classifier, _, _ = models(depth=1)
    tokens = encoder(clips()).flatten(1, 2)
    found = classifier(tokens)
    for name, parameter in classifier.named_parameters():
        kept = parameter.clone()
        parameter.add_(torch.randn_like(parameter) * 0.1)
        assert (classifier(tokens) - found).abs().max() > 1e-3, name
        parameter.copy_(kept)
    block, reader = classifier.blocks[0], classifier.reader
    query, key, _ = block.attn.project(block.norm1(tokens), None)
    asked = reader.q(classifier.query).unflatten(-1, (4, 12)).transpose(1, 2)
    keys = reader.kv(reader.norm1(block(tokens, None)))[..., :48].unflatten(-1, (4, 12)).transpose(1, 2)
    for a, b in ((query, key), (asked, keys)):
        assert (a @ b.mT / 12**0.5).softmax(-1).amax(-1).mean() > 4 / tokens.shape[1]


def test_to_transformers_and_back_gives_the_same_bits():
    encoder, classifier, labels, predictor = models()
    back = from_transformers(to_transformers(encoder, classifier, labels, predictor))
    same(back[0], encoder)
    same(back[1], classifier)
    same(back[3], predictor)
    assert back[2] == labels and back[1].settings == classifier.settings and not back[1].training
    assert from_transformers(to_transformers(encoder, classifier, labels))[3] is None


def test_from_transformers_and_back_gives_the_same_bits():
    model = to_transformers(*models())
    perturbed(model)
    back = to_transformers(*from_transformers(model))
    same(model, back)
    ours, theirs = back.config.to_dict(), model.config.to_dict()
    assert ours == theirs and ours["id2label"] == dict(enumerate(LABELS)) and ours["label2id"]["class 11"] == 11


@torch.no_grad()
def test_a_classifier_without_a_predictor_comes_back_as_it_was_but_for_the_predictor_it_does_not_have():
    model = to_transformers(*models(predictor=False))
    back = to_transformers(*from_transformers(model))
    for name, tensor in model.state_dict().items():
        assert name.startswith("vjepa2.predictor.") or torch.equal(tensor, back.state_dict()[name]), name
    assert torch.equal(model(clips(1)).logits, back(clips(1)).logits)


@torch.no_grad()
def test_a_classifier_of_the_hub_is_read_with_its_labels(folder: Path):
    encoder, classifier, labels, predictor = models()
    found = hub.read(folder)
    assert found.labels == labels and found.classifier is not None
    same(found.encoder, encoder)
    same(found.classifier, classifier)
    same(found.predictor, predictor)
    assert torch.equal(found.classifier(found.encoder(clips())), classifier(encoder(clips())))


def test_an_encoder_of_the_hub_has_no_classifier(tmp_path: Path):
    to_base(models()[0]).save_pretrained(tmp_path)
    found = hub.read(tmp_path)
    assert found.classifier is None and found.labels == ()


def test_two_classes_without_names_have_those_that_transformers_gives_them(tmp_path: Path):
    encoder, classifier, _, _ = models(classes=2)
    to_transformers(encoder, classifier, ("LABEL_0", "LABEL_1")).save_pretrained(tmp_path)
    change(tmp_path, id2label=None)
    assert hub.read(tmp_path).labels == ("LABEL_0", "LABEL_1")


def test_labels_are_put_in_the_order_of_their_numbers(folder: Path):
    change(folder, id2label=dict(sorted((str(number), label) for number, label in enumerate(LABELS))))
    assert list(json.loads((folder / "config.json").read_text())["id2label"])[:3] == ["0", "1", "10"]
    assert hub.read(folder).labels == LABELS


@pytest.mark.parametrize(
    ("labels", "message"),
    [
        (LABELS[:11], "name classes 0 to 11, found 11 names; missing 11$"),
        ((*LABELS, "one more"), "name classes 0 to 11, found 13 names; surplus 12$"),
        (None, r"found 2 names; missing 2, 3, 4, 5, 6 …$"),
        ({"first": "a"}, "expected id2label to name classes by number"),
        (list(LABELS), "expected id2label to name classes by number"),
        ((*LABELS[:11], 11), "name classes 0 to 11, found 12 names$"),
    ],
)
def test_labels_that_are_not_one_a_class_are_refused(folder: Path, labels: object, message: str):
    change(folder, id2label=dict(enumerate(labels)) if isinstance(labels, tuple) else labels)
    with pytest.raises(UserError, match=message):
        hub.read(folder)


def test_tensors_that_do_not_fit_are_named(folder: Path):
    theirs = "pooler.self_attention_layers.1.self_attn.k_proj.bias"
    whole = load_file(folder / "model.safetensors")
    retensor(folder, {}, without=theirs)
    with pytest.raises(UserError, match=f"model belongs to another model: missing {theirs}$"):
        hub.read(folder)
    retensor(folder, {theirs: torch.zeros(7)})
    with pytest.raises(UserError, match=rf"{theirs} has shape \(7,\), the model \(48,\)$"):
        hub.read(folder)
    retensor(folder, {theirs: whole[theirs], "vjepa2.strange": torch.zeros(1), "pooler.extra": torch.zeros(1)})
    with pytest.raises(UserError, match=r"surplus pooler\.extra; surplus vjepa2\.strange$"):
        hub.read(folder)
    save_file({n: x for n, x in whole.items() if n != "vjepa2.encoder.layer.0.norm1.weight"}, folder / hub.TENSORS)
    with pytest.raises(UserError, match=r"missing blocks\.0\.norm1\.weight$"):
        hub.read(folder)
    save_file({n: x for n, x in whole.items() if n != "classifier.weight"}, folder / hub.TENSORS)
    with pytest.raises(UserError, match=r"missing classifier\.weight$"):
        hub.read(folder)
    save_file(whole, folder / hub.TENSORS)
    assert hub.read(folder).labels == LABELS


def test_a_pooler_of_another_depth_than_the_config_says_is_refused(folder: Path):
    change(folder, num_pooler_layers=1)
    with pytest.raises(UserError, match=r"surplus pooler\.self_attention_layers\.1"):
        hub.read(folder)
    for depth in (None, "2", -1):
        change(folder, num_pooler_layers=depth)
        with pytest.raises(UserError, match=f"num_pooler_layers in its config, found {depth!r}"):
            hub.read(folder)


def test_another_class_of_model_is_refused():
    encoder, *_ = models()
    base = to_base(encoder)
    with pytest.raises(UserError, match="expected a VJEPA2ForVideoClassification of transformers, found VJEPA2Model"):
        from_transformers(base)  # pyright: ignore[reportArgumentType] - the point of it
    with pytest.raises(UserError, match="expected a VJEPA2Model of transformers, found VJEPA2ForVideoClassification"):
        from_base(to_transformers(*models()))  # pyright: ignore[reportArgumentType] - the point of it
    with pytest.raises(UserError, match=r"the model.*missing blocks\.0"):
        from_config(base.config.to_dict(), base.state_dict(), "the model")


def test_what_transformers_cannot_hold_is_refused():
    encoder, classifier, labels, _ = models()
    for other, message in (
        (AttentiveClassifier(24, 4, 1, 12), "'width': 24"),
        (AttentiveClassifier(48, 2, 1, 12), "'heads': 2"),
        (AttentiveClassifier(48, 4, 1, 12, mlp_ratio=2.0), "'mlp_ratio': 2.0"),
    ):
        with pytest.raises(UserError, match=f"width and heads, with an mlp_ratio of 4.0: .*found .*{message}"):
            to_transformers(encoder, other, labels)
    with pytest.raises(UserError, match="labels: expected one for each of the 12 classes, found 11"):
        to_transformers(encoder, classifier, labels[:11])
    with pytest.raises(UserError, match="labels: expected a list of names, found 'twelveclasses'"):
        to_transformers(encoder, classifier, "twelveclasses")
    with pytest.raises(UserError, match="positions rotary_tiled; this encoder has rotary"):
        to_transformers(
            VideoViT(VideoViT.Config(patch=8, tubelet=2, width=48, depth=2, heads=4), SIZE, FRAMES), classifier, labels
        )


@torch.no_grad()
def test_a_classifier_lies_beside_its_model_and_comes_back_with_the_same_bits(tmp_path: Path):
    assert load_classifier(tmp_path) is None
    _, classifier, labels, _ = models(depth=1)
    save_classifier(tmp_path, classifier, labels)
    assert sorted(path.name for path in (tmp_path / "classifier").iterdir()) == ["model.json", "model.safetensors"]
    random = torch.get_rng_state()
    found = load_classifier(tmp_path)
    assert found is not None and torch.equal(random, torch.get_rng_state())
    same(found[0], classifier)
    assert found[1] == labels and not found[0].training
    tokens = torch.randn(2, 5, 48)
    assert torch.equal(found[0](tokens), classifier(tokens))


def test_damaged_and_foreign_folders_are_reported(tmp_path: Path, folder: Path):
    _, classifier, labels, _ = models()
    with pytest.raises(UserError, match="labels: expected one for each of the 12 classes, found 3"):
        save_classifier(tmp_path, classifier, labels[:3])
    save_classifier(tmp_path, classifier, labels)
    path = tmp_path / "classifier" / "model.json"
    described = json.loads(path.read_text())
    for changed, message in (
        ({"settings": {"width": 48}}, "does not describe a classifier"),
        ({"settings": described["settings"] | {"heads": 5}}, "does not describe a classifier"),
        ({"labels": None}, "labels: expected a list of names, found None"),
        ({"labels": [*labels[:11], 3]}, "labels: expected a list of names, found"),
        ({"labels": list(labels[:11])}, "labels: expected one for each of the 12 classes, found 11"),
        ({"settings": described["settings"] | {"depth": 3}}, r"missing blocks\.2"),
    ):
        write_edited(path, described | changed)
        with pytest.raises(UserError, match=message):
            load_classifier(tmp_path)
    write_edited(path, described)
    tensors = path.with_name("model.safetensors")
    tensors.write_bytes(tensors.read_bytes()[:-1])
    with pytest.raises(UserError, match="the checksum differs"):
        load_classifier(tmp_path)
    path.unlink()
    with pytest.raises(UserError, match=r"no model\.json here"):
        load_classifier(tmp_path)
    data = (folder / "model.safetensors").read_bytes()
    (folder / "model.safetensors").write_bytes(data[: len(data) // 2])
    with pytest.raises(UserError, match="damaged, or not a safetensors file"):
        hub.read(folder)


def test_sizes_that_do_not_fit_are_reported():
    for sizes in ((48, 5, 1, 2), (48, 4, -1, 2), (48, 4, 1, 0)):
        with pytest.raises(ValueError, match="a classifier needs heads that divide its width"):
            AttentiveClassifier(*sizes)
    with pytest.raises(ValueError, match=r"classifies tokens \[B, M, 48\], found \[2, 5, 24\]"):
        AttentiveClassifier(48, 4, 1, 2)(torch.zeros(2, 5, 24))


def test_a_classifier_learns_to_tell_where_one_token_differs():
    """A class is a sign in the one token that is marked, which a mean over 32 tokens drowns."""
    torch.manual_seed(0)
    classifier = AttentiveClassifier(24, 2, 1, 2)
    optimizer = torch.optim.AdamW(classifier.parameters(), 3e-3)

    def draw(count: int) -> tuple[Tensor, Tensor]:
        tokens, which = torch.randn(count, 4, 8, 24), torch.randint(2, (count,))
        step, place = torch.randint(4, (count,)), torch.randint(8, (count,))
        tokens[torch.arange(count), step, place, 0] = 5.0
        tokens[torch.arange(count), step, place, 1] = 2.0 * (2 * which - 1)
        return tokens, which

    for _ in range(100):
        tokens, which = draw(64)
        loss = nn.functional.cross_entropy(classifier(tokens), which)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    tokens, which = draw(256)
    assert (classifier(tokens).argmax(1) == which).float().mean() > 0.9
