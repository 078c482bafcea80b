"""Published weights, in and out: V-JEPA 2 agrees with transformers, and every round trip gives the same bits."""

import os
import pickle
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from jepa.config import UserError
from jepa.encoders.video_vit import VideoViT
from jepa.models import meta
from jepa.models.huggingface import from_transformers, to_transformers
from jepa.predictors.masked import MaskedPredictor

FRAMES = 8


def models(width: int = 192, size: int = 64, positions: str = "rotary_tiled") -> tuple[VideoViT, MaskedPredictor]:
    """Random weights, large enough that attention is far from uniform."""
    torch.manual_seed(0)
    encoder = VideoViT(
        VideoViT.Config(patch=16, tubelet=2, width=width, depth=3, heads=width // 64, positions=positions), size, FRAMES
    )
    predictor = MaskedPredictor(
        MaskedPredictor.Config(width=96, depth=2, heads=4, positions="rotary_tiled"), width, mask_kinds=3
    )
    for module in (encoder, predictor):
        with torch.no_grad():
            for parameter in module.parameters():
                parameter.add_(0.03 * torch.randn_like(parameter))
    return encoder.eval(), predictor.eval()


def same(a: nn.Module, b: nn.Module) -> None:
    first, second = a.state_dict(), b.state_dict()
    assert first.keys() == second.keys() and all(torch.equal(first[name], second[name]) for name in first)


def partition(tokens: int, context: int) -> tuple[Tensor, Tensor]:
    order = torch.stack([torch.randperm(tokens) for _ in range(2)])
    return order[:, :context].sort(1).values, order[:, context:].sort(1).values


@torch.no_grad()
@pytest.mark.parametrize(("width", "size"), [(192, 64), (192, 96), (384, 64), (384, 96)])
def test_encoder_and_predictor_equal_those_of_transformers(width: int, size: int) -> None:
    encoder, predictor = models(width, size)
    theirs, video = to_transformers(encoder, predictor), torch.randn(2, FRAMES, 3, size, size)
    whole = theirs(video, skip_predictor=True).last_hidden_state
    assert whole.std() > 0.1
    tokens = encoder(video).flatten(1, 2)
    torch.testing.assert_close(tokens, whole, atol=1e-5, rtol=0)

    context_index, target_index = partition(whole.shape[1], 20)
    found = theirs(video, [context_index], [target_index]).predictor_output.last_hidden_state
    context, grid = tokens.take_along_dim(context_index[..., None], 1), encoder.grid(video)
    ours = predictor(context, context_index, target_index, grid, kind=1)  # transformers takes the second mask token
    assert found.std() > 0.1
    torch.testing.assert_close(ours, found, atol=1e-5, rtol=0)


@torch.no_grad()
def test_the_visible_tokens_alone_equal_those_of_transformers() -> None:
    encoder, _ = models()
    theirs, video = to_transformers(encoder), torch.randn(2, FRAMES, 3, 64, 64)
    keep, _ = partition(64, 20)
    x = theirs.encoder.embeddings(video).take_along_dim(keep[..., None], 1)
    for layer in theirs.encoder.layer:
        x = layer(x, keep)[0]
    torch.testing.assert_close(encoder(video, keep), theirs.encoder.layernorm(x), atol=1e-5, rtol=0)


@torch.no_grad()
def test_other_positions_give_other_tokens() -> None:
    """So that the test above would see a wrong kind."""
    video = torch.randn(2, FRAMES, 3, 64, 64)
    tiled, relative, fixed = (models(positions=kind)[0](video) for kind in ("rotary_tiled", "rotary", "sincos"))
    assert (tiled - relative).abs().max() > 1e-2 and (tiled - fixed).abs().max() > 1e-2


def test_to_transformers_and_back_gives_the_same_bits() -> None:
    encoder, predictor = models()
    back, predicted = from_transformers(to_transformers(encoder, predictor))
    same(encoder, back)
    assert predicted is not None
    same(predictor, predicted)
    alone, none = from_transformers(to_transformers(encoder))
    same(encoder, alone)
    assert none is None


def test_to_meta_and_back_gives_the_same_bits(tmp_path: Path) -> None:
    encoder, predictor = models()
    torch.save(meta.to_state(encoder, predictor) | {"epoch": 3}, tmp_path / "a.pt")
    state = meta.load_state(tmp_path / "a.pt")
    back, predicted = meta.build(state, 64, FRAMES, heads=3, predictor_heads=4)
    assert predicted is not None and (back.heads, predicted.config.heads) == (3, 4)
    same(encoder, back)
    same(predictor, predicted)
    video = torch.randn(1, FRAMES, 3, 64, 64)
    torch.testing.assert_close(back(video), encoder(video), atol=0, rtol=0)


def test_the_fixed_positions_of_vjepa_1_are_stored_and_checked(tmp_path: Path) -> None:
    encoder, _ = models(positions="sincos")
    state = meta.to_state(encoder)
    back, none = meta.build(meta.read_state(state), 64, FRAMES)
    same(encoder, back)
    assert none is None and back.positions == "sincos" and back.heads == 3
    with pytest.raises(UserError, match="positions for 64 tokens; clips of 4 frames at 64 px have 32"):
        meta.build(meta.read_state(state), 64, 4)
    state["target_encoder"]["module.backbone.pos_embed"] += 0.1
    with pytest.raises(UserError, match="are not V-JEPA 1's sines and cosines"):
        meta.build(meta.read_state(state), 64, FRAMES)


def test_fixed_positions_are_those_of_the_formula() -> None:
    """Token (2, 1, 3) of V-JEPA 1 at width 12: sin, cos of 2, 1 and 3 at frequencies 1 and 1/100."""
    encoder = VideoViT(VideoViT.Config(patch=16, tubelet=2, width=12, depth=1, heads=1, positions="sincos"), 64, FRAMES)
    found = meta.to_state(encoder)["encoder"]["module.backbone.pos_embed"][0, 2 * 16 + 1 * 4 + 3].double()
    angles = torch.tensor([[p, p / 100] for p in (2.0, 1.0, 3.0)], dtype=torch.float64)
    torch.testing.assert_close(found, torch.cat((angles.sin(), angles.cos()), 1).flatten(), atol=1e-6, rtol=0)


def without(state: dict, name: str) -> dict:
    return {key: {n: x for n, x in tensors.items() if not n.endswith(name)} for key, tensors in state.items()}


def test_tensors_that_do_not_fit_are_named() -> None:
    state = meta.to_state(*models())

    def build(changed: dict) -> None:
        meta.build(meta.read_state(changed), 64, FRAMES, predictor_heads=4, where="a.pt")

    with pytest.raises(UserError, match=r"a\.pt belongs to another model: missing blocks\.1\.norm1\.weight"):
        build(without(state, "backbone.blocks.1.norm1.weight"))
    state["target_encoder"]["module.backbone.blocks.0.extra"] = torch.zeros(1)
    with pytest.raises(UserError, match=r"surplus blocks\.0\.extra"):
        build(state)
    del state["target_encoder"]["module.backbone.blocks.0.extra"]
    state["target_encoder"]["module.backbone.norm.bias"] = torch.zeros(7)
    with pytest.raises(UserError, match=r"norm\.bias has shape \(7,\), the model \(192,\)"):
        build(state)


class Trap:
    def __init__(self, path: str) -> None:
        self.path = path

    def __reduce__(self) -> tuple:
        return os.mkdir, (self.path,)


def test_a_file_that_holds_code_is_refused_and_runs_nothing(tmp_path: Path) -> None:
    torch.save({"target_encoder": Trap(str(tmp_path / "sprung"))}, tmp_path / "trap.pt")
    (tmp_path / "old.pt").write_bytes(pickle.dumps({"target_encoder": Trap(str(tmp_path / "sprung"))}, protocol=2))
    for name in ("trap.pt", "old.pt"):
        with pytest.raises(UserError, match=f"{name}: refused"):
            meta.load_state(tmp_path / name)
    assert not (tmp_path / "sprung").exists()


def test_what_is_no_checkpoint_is_reported(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"none\.pt: no such file"):
        meta.load_state(tmp_path / "none.pt")
    torch.save(meta.to_state(*models()), tmp_path / "whole.pt")
    data = (tmp_path / "whole.pt").read_bytes()
    for size in (0, 10, len(data) // 2, len(data) - 100):
        (tmp_path / "cut.pt").write_bytes(data[:size])
        with pytest.raises(UserError, match=r"cut\.pt: (damaged|refused)"):
            meta.load_state(tmp_path / "cut.pt")
    torch.save({"model": {}, "epoch": 1}, tmp_path / "other.pt")
    with pytest.raises(UserError, match="with the key 'target_encoder', found epoch, model"):
        meta.load_state(tmp_path / "other.pt")


def test_what_the_others_cannot_hold_is_refused() -> None:
    encoder, _ = models(positions="rotary")
    with pytest.raises(UserError, match="positions rotary_tiled; this encoder has rotary"):
        to_transformers(encoder)
    with pytest.raises(UserError, match="This encoder has rotary, 1 level"):
        meta.to_state(encoder)
    with pytest.raises(UserError, match="expected a VJEPA2Model of transformers, found Linear"):
        from_transformers(nn.Linear(1, 1))  # pyright: ignore[reportArgumentType] - the point of it
