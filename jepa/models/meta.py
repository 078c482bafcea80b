"""Meta's checkpoints of V-JEPA 1, 2 and 2.1: their tensors to our modules, and back, bit for bit.

A `.pt` file holds a dictionary: encoder, predictor, target_encoder (and the optimizer); the distilled models of 2.1
have ema_encoder in place of target_encoder. Ours and theirs name the tensors alike, but for a prefix, the mask tokens,
which they keep one by one, and what 2.1 added. V-JEPA 1 also stores its fixed positions: they are compared with those
that we compute, and left out. V-JEPA 2-AC: jepa/models/meta_ac.py.

    theirs                                            ours
    module.backbone.blocks.0.attn.qkv.weight          blocks.0.attn.qkv.weight
    module.backbone.mask_tokens.0                     mask_tokens [kinds, width]
    norms_block.0                                     norms.0
    patch_embed_img, img_mod_embed, video_mod_embed   patch_embed_image, image_token, video_token

Files are read by PyTorch's loader for weights only: a pickle with anything but tensors and plain values is refused.
"""

import pickle
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, get_args

import torch
from torch import Tensor

from jepa.config import UserError, first_line
from jepa.encoders.sizes import SIZES
from jepa.encoders.video_vit import VideoViT
from jepa.models.checkpoint import fill
from jepa.predictors.masked import MaskedPredictor
from jepa.transformer import Positions, grid_positions, sincos_table

Which = Literal["target_encoder", "encoder", "ema_encoder"]
RENAMED = (  # theirs, ours
    ("norms_block.", "norms."),
    ("patch_embed_img.", "patch_embed_image."),
    ("img_mod_embed", "image_token"),
    ("video_mod_embed", "video_token"),
)
LEVELS = {  # V-JEPA 2.1, by depth
    4: (0, 1, 2, 3),
    8: (1, 3, 5, 7),
    12: (2, 5, 8, 11),
    24: (5, 11, 17, 23),
    40: (9, 19, 29, 39),
    48: (11, 23, 37, 47),
}
POSITION_GRID = 256  # pixels over which V-JEPA 2.1 counts rows and columns
PREFIXES = ("module.", "backbone.")
POSITIONS = "pos_embed"
MASK_TOKENS = "mask_tokens"
POSITION_TOLERANCE = 1e-5
ACTIONS = "action_encoder.weight"  # only V-JEPA 2-AC's predictor has it


@dataclass(frozen=True)
class MetaState:
    """Tensors of a checkpoint under our names; the positions are V-JEPA 1's fixed ones, [1, tokens, width]."""

    encoder: dict[str, Tensor]
    predictor: dict[str, Tensor] | None
    positions: Tensor | None
    predictor_positions: Tensor | None = None


def load_state(path: str | Path, encoder: Which = "target_encoder") -> MetaState:
    """Read a `.pt` file of V-JEPA 1, 2 or 2.1.

    Args:
        encoder: which of the encoders in it; Meta's own probes read the target encoder, and of the distilled models of
            2.1 the ema_encoder.

    Raises:
        UserError: there is no such file, it is damaged, holds code, or is no checkpoint of these.
    """
    path = Path(path)
    if not path.is_file():
        raise UserError(f"{path}: no such file")
    try:
        checkpoint = torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        raise UserError(f"{path}: refused, it is damaged or holds more than tensors ({first_line(error)})") from None
    except (RuntimeError, EOFError, zipfile.BadZipFile, ValueError, KeyError) as error:
        raise UserError(f"{path}: damaged, copy it again ({first_line(error)})") from None
    return read_state(checkpoint, encoder, str(path))


def read_state(checkpoint: Any, encoder: Which = "target_encoder", where: str = "the checkpoint") -> MetaState:
    """The same of a dictionary that was read already."""
    wanted = f"{where}: expected a V-JEPA checkpoint with the key {encoder!r}"
    if not isinstance(checkpoint, dict):
        raise UserError(f"{wanted}, found {type(checkpoint).__name__}")
    if not isinstance(checkpoint.get(encoder), dict):
        keys = ", ".join(sorted(map(str, checkpoint)))
        others = " or ".join(name for name in get_args(Which) if name in checkpoint)
        raise UserError(f"{wanted}, found {keys or 'nothing'}" + (f"; read its weights {others}" if others else ""))
    tensors = _ours(checkpoint[encoder])
    positions = tensors.pop(POSITIONS, None)
    if not isinstance(checkpoint.get("predictor"), dict):
        return MetaState(tensors, None, positions)
    predictor = _ours(checkpoint["predictor"])
    if ACTIONS in predictor:
        return MetaState(tensors, predictor, positions)
    tokens = [predictor.pop(f"{MASK_TOKENS}.{i}") for i in range(count(predictor, MASK_TOKENS))]
    predictor[MASK_TOKENS] = torch.stack([token.flatten() for token in tokens]) if tokens else torch.empty(0, 0)
    return MetaState(tensors, predictor, positions, predictor.pop("predictor_" + POSITIONS, None))


def build(
    state: MetaState,
    image_size: int,
    frames: int,
    *,
    heads: int | None = None,
    predictor_heads: int | None = None,
    where: str = "the checkpoint",
) -> tuple[VideoViT, MaskedPredictor | None]:
    """The encoder and the predictor of a checkpoint; sizes are read off the tensors.

    Args:
        image_size, frames: of the clips it was trained on; the file does not say.
        heads: None: those of the published model of that width.
        predictor_heads: None: 12 in V-JEPA 2 and 2.1, in V-JEPA 1 as many as its encoder.

    Raises:
        UserError: a tensor is missing, surplus or of another shape; or the width is none of the published ones.
    """
    patches = state.encoder.get("patch_embed.proj.weight")
    hidden = state.encoder.get("blocks.0.mlp.fc1.weight")
    if patches is None or patches.ndim != 5 or hidden is None:
        raise UserError(f"{where}: expected patch_embed.proj.weight of 5 axes and blocks.0.mlp.fc1.weight in it")
    width, channels, tubelet, patch, _ = patches.shape
    heads = heads or {size.width: size.heads for size in SIZES.values()}.get(width)
    if heads is None:
        raise UserError(f"{where}: the file does not say how many heads a width of {width} has; give heads")
    depth = count(state.encoder, "blocks")
    levels = _levels(state.encoder, depth, where)
    config = VideoViT.Config(
        patch=patch,
        tubelet=tubelet,
        width=width,
        depth=depth,
        heads=heads,
        mlp_ratio=len(hidden) / width,
        positions=_kind_of_positions(state, levels),
        levels=levels,
        position_grid=POSITION_GRID // patch if levels else None,
        images="image_token" in state.encoder,
    )
    with torch.device("meta"):
        encoder = VideoViT(config, image_size, frames, channels=channels)
    fill(encoder, state.encoder, where)
    if state.positions is not None:
        _check_positions(encoder, encoder.width, state.positions, where)
    if state.predictor is None:
        return encoder, None
    if ACTIONS in state.predictor:
        raise UserError(f"{where}: its predictor is V-JEPA 2-AC's; jepa.models.meta_ac reads it")
    default = heads if encoder.positions == "sincos" else 12
    predictor = _predictor(state.predictor, encoder, predictor_heads or default, where)
    if state.predictor_positions is not None:
        _check_positions(encoder, predictor.width, state.predictor_positions, where)
    return encoder, predictor


def to_state(encoder: VideoViT, predictor: MaskedPredictor | None = None) -> dict[str, dict[str, Tensor]]:
    """What Meta's code reads: a dictionary for `torch.save`. `encoder` and `target_encoder` are the same tensors.

    Raises:
        UserError: Meta's V-JEPA has no such encoder.
    """
    is_vjepa_2_1 = encoder.level_count == 4 and encoder.images and encoder.position_grid is not None
    fits = is_vjepa_2_1 if encoder.positions == "rotary" else encoder.level_count == 1 and not encoder.images
    if encoder.cls_token is not None or encoder.attention != "bidirectional" or not fits:
        raise UserError(
            "Meta's V-JEPA 1 and 2 have no CLS token, attend in both directions and have positions sincos or "
            "rotary_tiled; 2.1 has positions rotary with position_grid, 4 levels and images. This encoder has "
            f"{encoder.positions}, {encoder.level_count} level(s), {encoder.attention} attention"
        )
    tensors = dict(encoder.state_dict())
    if encoder.positions == "sincos":
        tensors[POSITIONS] = _positions(encoder, encoder.width)
    named = _theirs(tensors)
    state = {"encoder": named, "target_encoder": named}
    if predictor is not None:
        tensors = dict(predictor.state_dict())
        tokens = tensors.pop(MASK_TOKENS)
        tensors |= {f"{MASK_TOKENS}.{i}": token[None, None] for i, token in enumerate(tokens)}
        if predictor.config.positions == "sincos":
            tensors["predictor_" + POSITIONS] = _positions(encoder, predictor.width)
        state["predictor"] = _theirs(tensors)
    return state


def _kind_of_positions(state: MetaState, levels: tuple[int, ...]) -> Positions:
    """Those of V-JEPA 2.1, 1 or 2."""
    if levels:
        return "rotary"
    if state.positions is not None:
        return "sincos"
    return "rotary_tiled"


def _levels(tensors: Mapping[str, Tensor], depth: int, where: str) -> tuple[int, ...]:
    """The blocks given out: V-JEPA 2.1 has a norm for each of four."""
    if not (norms := count(tensors, "norms")):
        return ()
    if depth not in LEVELS or norms != len(LEVELS[depth]):
        raise UserError(
            f"{where}: V-JEPA 2.1 gives out 4 levels at a depth of {', '.join(map(str, LEVELS))}; found {norms} norms "
            f"at a depth of {depth}"
        )
    return LEVELS[depth]


def _predictor(tensors: dict[str, Tensor], encoder: VideoViT, heads: int, where: str) -> MaskedPredictor:
    deep = "predictor_embed.0.weight" in tensors  # V-JEPA 2.1 reads all levels, but for its distilled models
    embed = tensors.get("predictor_embed.2.weight" if deep else "predictor_embed.weight")
    hidden = tensors.get("predictor_blocks.0.mlp.fc1.weight")
    out = tensors.get("predictor_proj.weight")
    if embed is None or hidden is None or out is None:
        raise UserError(
            f"{where}: expected predictor_embed.weight (or .0 and .2), predictor_blocks.0.mlp.fc1.weight and "
            "predictor_proj.weight in it"
        )
    width = len(embed)
    levels = encoder.level_count if deep else 1
    with torch.device("meta"):
        predictor = MaskedPredictor(
            MaskedPredictor.Config(
                width=width,
                depth=count(tensors, "predictor_blocks"),
                heads=heads,
                mlp_ratio=len(hidden) / width,
                positions=encoder.positions,
            ),
            encoder.width,
            mask_kinds=len(tensors[MASK_TOKENS]),
            levels_in=levels,
            levels_out=levels,
            target_width=len(out) // levels,
            context_head="predictor_proj_context.weight" in tensors,
            images="image_token" in tensors,
            position_grid=encoder.position_grid,
        )
    fill(predictor, tensors, where)
    return predictor


def _positions(encoder: VideoViT, width: int) -> Tensor:
    side = encoder.image_size // encoder.patch
    grid = encoder.frames // encoder.tubelet, side, side
    index = torch.arange(grid[0] * grid[1] * grid[2])[None]
    return sincos_table(grid_positions(index, grid), width)


def _check_positions(encoder: VideoViT, width: int, positions: Tensor, where: str) -> None:
    expected = _positions(encoder, width)
    if expected.shape != positions.shape:
        raise UserError(
            f"{where}: it has positions for {positions.shape[1]} tokens; clips of {encoder.frames} frames at "
            f"{encoder.image_size} px have {expected.shape[1]}. Give the frames and size it was trained on"
        )
    if (difference := (expected - positions).abs().max().item()) > POSITION_TOLERANCE:
        raise UserError(f"{where}: its positions are not V-JEPA 1's sines and cosines (up to {difference:.2g} off)")


def _ours(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    renamed = {}
    for name, tensor in tensors.items():
        for prefix in PREFIXES:
            name = name.removeprefix(prefix)
        for theirs, ours in RENAMED:
            name = _with_stem(name, theirs, ours)
        renamed[name] = tensor
    return renamed


def _theirs(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    renamed = {}
    for name, tensor in tensors.items():
        for theirs, ours in RENAMED:
            name = _with_stem(name, ours, theirs)
        renamed["".join(PREFIXES) + name] = tensor.detach().clone()
    return renamed


def _with_stem(name: str, before: str, after: str) -> str:
    return after + name.removeprefix(before) if name.startswith(before) else name


def count(tensors: Mapping[str, Tensor], stem: str) -> int:
    """How many of stem.0, stem.1, … there are."""
    return len({name.split(".")[1] for name in tensors if name.startswith(stem + ".")})
