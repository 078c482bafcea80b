"""Meta's checkpoints of V-JEPA 2.1 and its distilled models, V-JEPA 1's predictor and V-JEPA 2-AC, in and out."""

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from jepa.config import UserError
from jepa.encoders.video_vit import VideoViT
from jepa.models import meta, meta_ac
from jepa.predictors.causal import CausalPredictor
from jepa.predictors.masked import MaskedPredictor

PREFIX = "module.backbone."


def encoder(positions: Any = "rotary", **settings: Any) -> VideoViT:
    torch.manual_seed(0)
    newest = {"levels": (0, 1, 2, 3), "images": True, "position_grid": 16} if positions == "rotary" else {}
    model = VideoViT(
        VideoViT.Config(patch=16, tubelet=2, width=48, depth=4, heads=4, positions=positions, **newest | settings),
        64,
        8,
    )
    return shaken(model)


def predictor(positions: Any = "rotary", **settings: Any) -> MaskedPredictor:
    torch.manual_seed(1)
    newest = {"levels_in": 4, "levels_out": 4, "context_head": True, "images": True, "position_grid": 16}
    return shaken(
        MaskedPredictor(
            MaskedPredictor.Config(width=24, depth=2, heads=2, positions=positions),
            48,
            mask_kinds=8,
            **newest | settings,
        )
    )


def shaken(model: Any) -> Any:
    """No tensor at a value that another would have, too."""
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.05 * torch.randn_like(parameter))
    return model.eval()


def same(a: nn.Module, b: nn.Module) -> None:
    first, second = a.state_dict(), b.state_dict()
    assert first.keys() == second.keys()
    assert all(torch.equal(first[name], second[name]) for name in first)


def read(state: dict, **settings: Any) -> tuple[VideoViT, MaskedPredictor | None]:
    return meta.build(meta.read_state(state), 64, 8, **({"heads": 4, "predictor_heads": 2} | settings))


def test_v_jepa_2_1_goes_out_and_comes_back_bit_by_bit(tmp_path: Path) -> None:
    ours, predicts = encoder(), predictor()
    torch.save(meta.to_state(ours, predicts), tmp_path / "a.pt")
    back, predicted = meta.build(meta.load_state(tmp_path / "a.pt"), 64, 8, heads=4, predictor_heads=2)
    same(ours, back)
    assert predicted is not None
    same(predicts, predicted)
    assert (back.levels, back.positions, back.position_grid, back.images) == ((0, 1, 2, 3), "rotary", 16, True)
    clip, image = torch.randn(1, 8, 3, 64, 64), torch.randn(1, 1, 3, 64, 64)
    for video in (clip, image):
        assert torch.equal(back.forward_features(video).levels, ours.forward_features(video).levels)


def test_tensors_of_v_jepa_2_1_have_metas_names() -> None:
    state = meta.to_state(encoder(), predictor())
    added = {name.removeprefix(PREFIX) for name in state["encoder"] if ".blocks." not in name}
    norms = {f"norms_block.{i}.{part}" for i in range(4) for part in ("weight", "bias")}
    patches = {f"{name}.proj.{part}" for name in ("patch_embed", "patch_embed_img") for part in ("weight", "bias")}
    assert added == norms | patches | {"img_mod_embed", "video_mod_embed"}
    names = {name.removeprefix(PREFIX) for name in state["predictor"]}
    heads = {"predictor_embed.0.weight", "predictor_embed.2.bias", "predictor_proj_context.weight", "mask_tokens.7"}
    assert heads | {"img_mod_embed", "video_mod_embed"} <= names
    # 24 blocks of 12 tensors and these make the 302 of the published ViT-L.
    assert len(added) == 302 - 24 * 12


def test_a_distilled_model_predicts_its_wider_teacher_from_the_last_level() -> None:
    predicts = predictor(levels_in=1, levels_out=1, target_width=80)
    state = meta.to_state(encoder(), predicts)
    state["ema_encoder"] = state.pop("target_encoder")
    with pytest.raises(UserError, match="key 'target_encoder', found ema_encoder, encoder, predictor"):
        meta.read_state(state)
    back, predicted = meta.build(meta.read_state(state, "ema_encoder"), 64, 8, heads=4, predictor_heads=2)
    same(encoder(), back)
    assert predicted is not None and predicted.predictor_proj.out_features == 80
    same(predicts, predicted)


def test_the_predictor_of_v_jepa_1_has_fixed_positions_that_are_checked() -> None:
    ours = encoder("sincos")
    predicts = predictor(
        positions="sincos", levels_in=1, levels_out=1, context_head=False, images=False, position_grid=None
    )
    state = meta.to_state(ours, predicts)
    assert state["predictor"][PREFIX + "predictor_pos_embed"].shape == (1, 64, 24)
    back, predicted = read(state)
    same(ours, back)
    assert predicted is not None and predicted.config.positions == "sincos"
    same(predicts, predicted)
    state["predictor"][PREFIX + "predictor_pos_embed"] += 0.1
    with pytest.raises(UserError, match="are not V-JEPA 1's sines and cosines"):
        read(state)


def test_v_jepa_2_ac_goes_out_and_comes_back_bit_by_bit() -> None:
    ours = encoder("rotary_tiled")
    torch.manual_seed(2)
    acts = shaken(
        CausalPredictor(
            CausalPredictor.Config(
                state_size=7,
                hidden=32,
                depth=2,
                heads=2,
                positions="rotary_tiled",
                camera_size=6,
                normalize_actions=False,
            ),
            48,
            7,
            grid=(4, 4),
        )
    )
    state = meta_ac.to_state(ours, acts)
    back, predicted = meta_ac.build(meta.read_state(state, "encoder"), 64, 8, heads=4, predictor_heads=2)
    same(ours, back)
    same(acts, predicted)
    assert (predicted.grid, predicted.config.layer_norm_out) == ((4, 4), True)
    with pytest.raises(UserError, match="its predictor is V-JEPA 2-AC's"):
        read(state)
    with pytest.raises(UserError, match=r"expected a predictor with action_encoder\.weight"):
        meta_ac.build(meta.read_state(meta.to_state(ours)), 64, 8, heads=4)
    del state["predictor"]["module.predictor_norm.bias"]
    with pytest.raises(UserError, match=r"missing predictor_norm\.bias"):
        meta_ac.build(meta.read_state(state), 64, 8, heads=4, predictor_heads=2)


def test_tensors_of_v_jepa_2_1_that_do_not_fit_are_named() -> None:
    state = meta.to_state(encoder(), predictor())
    for name in (f"{PREFIX}norms_block.3.weight", f"{PREFIX}norms_block.3.bias"):
        del state["target_encoder"][name]
    with pytest.raises(UserError, match=r"4 levels at a depth of .*; found 3 norms at a depth of 4"):
        read(state)
    state = meta.to_state(encoder(), predictor())
    del state["target_encoder"][f"{PREFIX}video_mod_embed"]
    with pytest.raises(UserError, match="missing video_token"):
        read(state)
    state = meta.to_state(encoder(), predictor())
    state["predictor"][f"{PREFIX}extra"] = torch.zeros(1)
    with pytest.raises(UserError, match="surplus extra"):
        read(state)


def test_an_encoder_that_meta_has_not_is_refused() -> None:
    with pytest.raises(UserError, match="This encoder has rotary, 4 level"):
        meta.to_state(encoder(images=False))
    with pytest.raises(UserError, match="This encoder has sincos, 1 level"):
        meta.to_state(encoder("sincos", images=True))
