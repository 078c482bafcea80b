"""Meta's checkpoint of V-JEPA 2-AC: V-JEPA 2's encoder and the predictor that takes actions, to our modules and back.

found = meta.load_state("vjepa2-ac-vitg.pt", "encoder")
encoder, predictor = meta_ac.build(found, image_size=256, frames=64)
"""

from collections.abc import Mapping
from dataclasses import replace

import torch
from torch import Tensor

from jepa.config import UserError
from jepa.encoders.video_vit import VideoViT
from jepa.models import meta
from jepa.models.checkpoint import fill
from jepa.normalize import Standardize
from jepa.predictors.causal import CausalPredictor

EXTRINSICS = "extrinsics_encoder.weight"
PREFIX = "module."
HEADS = 16


def build(
    state: meta.MetaState,
    image_size: int,
    frames: int,
    *,
    heads: int | None = None,
    predictor_heads: int | None = None,
    where: str = "the checkpoint",
) -> tuple[VideoViT, CausalPredictor]:
    """The encoder and the predictor of a checkpoint, in evaluation mode; sizes are read off the tensors.

    Args:
        image_size, frames: of the clips the encoder was trained on; the file does not say.
        heads: of the encoder; None: those of the published model of that width.
        predictor_heads: None: 16, as in the published one.

    Raises:
        UserError: a tensor is missing, surplus or of another shape; or the predictor takes no actions.
    """
    tensors = state.predictor
    if tensors is None or meta.ACTIONS not in tensors:
        raise UserError(f"{where}: expected a predictor with {meta.ACTIONS}, as V-JEPA 2-AC has; is it V-JEPA 2's?")
    encoder, _ = meta.build(replace(state, predictor=None), image_size, frames, heads=heads, where=where)
    side = image_size // encoder.patch
    embed = tensors.get("predictor_embed.weight")
    hidden = tensors.get("predictor_blocks.0.mlp.fc1.weight")
    if embed is None or hidden is None:
        raise UserError(f"{where}: expected predictor_embed.weight and predictor_blocks.0.mlp.fc1.weight in it")
    config = CausalPredictor.Config(
        state_size=_inputs(tensors, "state_encoder.weight"),
        hidden=len(embed),
        depth=meta.count(tensors, "predictor_blocks"),
        heads=predictor_heads or HEADS,
        mlp_ratio=len(hidden) / len(embed),
        positions="rotary_tiled",
        camera_size=_inputs(tensors, EXTRINSICS),
        layer_norm_out=True,
        next_state="apply_delta_pose",
        normalize_actions=False,
    )
    with torch.device("meta"):
        predictor = CausalPredictor(config, embed.shape[1], tensors[meta.ACTIONS].shape[1], (side, side))
    fill(predictor, tensors, where)
    return encoder, predictor


def _inputs(tensors: Mapping[str, Tensor], name: str) -> int:
    """How many numbers a layer reads; 0 if there is no such layer."""
    return tensors[name].shape[1] if name in tensors else 0


def to_state(encoder: VideoViT, predictor: CausalPredictor) -> dict[str, dict[str, Tensor]]:
    """What Meta's code reads: a dictionary for `torch.save`. Raises UserError if it has no such parts."""
    if predictor.config.conditioning != "token":
        raise UserError(
            "Meta's V-JEPA 2-AC has conditioning tokens; this predictor's conditioning is "
            f"{predictor.config.conditioning}"
        )
    if predictor.predicts_states or predictor.context is not None or predictor.config.head_dim is not None:
        raise UserError(
            "Meta's V-JEPA 2-AC reads all frames before, has heads of hidden / heads, and is given its states; this "
            "predictor has window, head_dim or next_state: predicted"
        )
    return meta.to_state(encoder) | {"predictor": predictor_state(predictor)}


def predictor_state(predictor: CausalPredictor) -> dict[str, Tensor]:
    """The entry `predictor` alone. Where numbers are standardized, their embedding does it: W (x - m) / s + b."""
    state = {name: tensor.detach().clone() for name, tensor in predictor.state_dict().items()}
    for name, encoder in (("action", predictor.scale_actions), ("state", predictor.scale_states)):
        if isinstance(encoder, Standardize):
            weight = state[f"{name}_encoder.weight"] / encoder.std
            state[f"{name}_encoder.bias"] -= weight @ encoder.mean
            state[f"{name}_encoder.weight"] = weight
            del state[f"scale_{name}s.mean"], state[f"scale_{name}s.std"]
    return {PREFIX + name: tensor for name, tensor in state.items()}
