"""Checkpoints of a training without the parts of its method that never change (`Method.frozen`), such as an encoder.

They are there anyhow, where they came from, and would be copied into every checkpoint: 4 GB for a ViT-g. What is kept
of them is a checksum, so that a run is not resumed with others.
"""

import hashlib
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from jepa.config import UserError

CHECKSUMS = "frozen"  # key of a checkpoint


def frozen_parts(method: object) -> tuple[str, ...]:
    """Names of the submodules that the method leaves as they are."""
    return tuple(getattr(method, "frozen", ()))


def is_frozen(name: str, parts: tuple[str, ...], prefix: str = "") -> bool:
    """Whether a tensor belongs to one of these parts."""
    return any(name.startswith(f"{prefix}{part}.") for part in parts)


def checksums(method: nn.Module) -> dict[str, str]:
    """Of each part that is frozen."""
    digests = {}
    for part in frozen_parts(method):
        digest = hashlib.sha256()
        for name, x in sorted(method.get_submodule(part).state_dict().items()):
            digest.update(f"{name} {x.dtype} {tuple(x.shape)}".encode())
            digest.update(x.detach().cpu().contiguous().flatten().view(torch.uint8).numpy().tobytes())
        digests[part] = digest.hexdigest()
    return digests


def leave_out(checkpoint: dict[str, Any], method: nn.Module, prefix: str, sums: dict[str, str]) -> None:
    """Take the frozen parts out of a checkpoint that is about to be written."""
    parts, state = frozen_parts(method), checkpoint["state_dict"]
    checkpoint["state_dict"] = {name: x for name, x in state.items() if not is_frozen(name, parts, prefix)}
    checkpoint[CHECKSUMS] = sums


def put_back(checkpoint: dict[str, Any], method: nn.Module, prefix: str, where: str) -> None:
    """Fill a checkpoint that was read with the frozen parts as they are now.

    Raises:
        UserError: they are not those that the checkpoint was made with.
    """
    check_same(checkpoint.get(CHECKSUMS, {}), method, where)
    parts = frozen_parts(method)
    own: Mapping[str, Tensor] = method.state_dict()
    checkpoint["state_dict"] |= {prefix + name: x for name, x in own.items() if is_frozen(name, parts)}


def check_same(expected: Mapping[str, str], method: nn.Module, where: str) -> None:
    """Raises UserError if a frozen part is another than it was."""
    actual = checksums(method)
    for part in actual:
        if actual[part] != expected.get(part):
            raise UserError(
                f"{where}: it was made with another frozen {part} than this run has now. Give it the same weights "
                "again (method.encoder_from, encoder), or start from scratch"
            )
