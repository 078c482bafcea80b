"""A run that starts from another: V-JEPA 2's cooldown at more frames or pixels, from the checkpoint of its first phase.

All weights of the method (encoder, predictor, teacher) and the moments of the optimizer are taken over; an encoder that
is frozen has to be the same in both. Schedules, data and the number of steps are the new run's own.
"""

from pathlib import Path
from typing import Any

from torch import nn

from jepa.config import UserError
from jepa.models.checkpoint import check_tensors
from jepa.training.checkpoints import FOLDER, LAST, read_checkpoint
from jepa.training.frozen_parts import CHECKSUMS, check_same, frozen_parts, is_frozen

PREFIX = "method."  # of the training module's tensors


def start_from(source: str, method: nn.Module) -> dict[int, Any]:
    """Fill `method` with the weights of a run, and return the state of its optimizer, by parameter number.

    Args:
        source: a run folder, or one of its checkpoints (.ckpt).

    Raises:
        UserError: there is no checkpoint, it is damaged, or a tensor is missing, surplus or of another shape.
    """
    path = Path(source)
    path = path / FOLDER / LAST if path.is_dir() else path
    if not path.is_file():
        raise UserError(f"init_from: {path} does not exist; give a run folder with checkpoints, or a .ckpt file")
    try:
        checkpoint = read_checkpoint(path)
    except UserError as error:
        raise UserError(f"init_from: {error}") from None
    state = {name.removeprefix(PREFIX): x for name, x in checkpoint["state_dict"].items() if name.startswith(PREFIX)}
    optimizer_state = checkpoint["optimizer_states"][0]["state"]
    parts, own = frozen_parts(method), method.state_dict()
    check_same(checkpoint.get(CHECKSUMS, {}), method, f"init_from: {path}")
    check_tensors({name: x for name, x in own.items() if not is_frozen(name, parts)}, state, f"init_from: {path}")
    method.load_state_dict(own | state)
    return optimizer_state
