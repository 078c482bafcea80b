"""Checkpoints of a training: how they are written, and the errors for those that cannot be read.

checkpoints/step-N.ckpt   the newest one
checkpoints/last.ckpt     the same; a run is resumed from it

Both are written to a `.partial` file first and then renamed, so that a full disk or a kill leaves the one before.

The parts of a method that never change (`Method.frozen`), such as an encoder, are left out: they are there anyhow,
where they came from, and would be copied into every checkpoint, 4 GB for a ViT-g. What is kept of them is a checksum,
so that a run is not resumed with others.
"""

import hashlib
import pickle
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import lightning as L
import torch
from lightning.pytorch.callbacks import ModelCheckpoint
from lightning.pytorch.plugins.io import TorchCheckpointIO
from torch import Tensor, nn

from jepa.config import UserError, first_line
from jepa.methods.base import Method
from jepa_data.writable import replacing

FOLDER = "checkpoints"
LAST = "last.ckpt"
CHECKSUMS = "frozen"  # key of a checkpoint
PREFIX = "method."  # of the training module's tensors
PARTS = ("state_dict", "optimizer_states", "lr_schedulers", "loops", "global_step")
DAMAGED = (
    pickle.UnpicklingError,
    zipfile.BadZipFile,
    RuntimeError,
    EOFError,
    ValueError,
    KeyError,
    IndexError,
    TypeError,
    AttributeError,
)


def read_checkpoint(
    path: Path, *, mmap: bool = False, parts: tuple[str, ...] = PARTS, verb: str = "jepa pretrain"
) -> dict[str, Any]:
    """The contents of a checkpoint.

    Args:
        mmap: leave its tensors on disk until they are used.
        parts: what it must hold; that of `verb`.

    Raises:
        UserError: the file is empty, cut off, damaged, or no checkpoint of a training.
    """
    try:
        _check_bytes(path)
        checkpoint = torch.load(path, map_location="cpu", weights_only=True, mmap=mmap)
        missing = [part for part in parts if part not in checkpoint]
    except DAMAGED as error:
        raise UserError(f"{path}: damaged, or no checkpoint of `{verb}` ({first_line(error)})") from None
    if missing:
        raise UserError(f"{path}: no checkpoint of `{verb}`: it holds no {missing[0]}")
    return checkpoint


def _check_bytes(path: Path) -> None:
    """Raises BadZipFile, with a clearer reason than torch gives."""
    if not path.stat().st_size:
        raise zipfile.BadZipFile("the file is empty")
    if not zipfile.is_zipfile(path):
        raise zipfile.BadZipFile("its end is missing, or it is another kind of file")
    with zipfile.ZipFile(path) as file:
        if (part := file.testzip()) is not None:  # torch does not compare them
            raise zipfile.BadZipFile(f"the checksum of its part {part} differs")


class CheckpointFiles(TorchCheckpointIO):
    """Lightning's own writer keeps silent where the folder may not be written."""

    def save_checkpoint(self, checkpoint: dict[str, Any], path: str | Path, storage_options: Any = None) -> None:
        """Raises UserError if the file cannot be written; one that was there is left as it was."""
        path = Path(path)
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            with replacing(path) as partial, partial.open("wb") as file:
                torch.save(checkpoint, file)
        except (OSError, RuntimeError) as error:  # torch makes a RuntimeError of a full disk
            reason = getattr(error, "strerror", None) or first_line(error)
            raise UserError(
                f"{path}: the checkpoint could not be written ({reason}); an earlier one was left as it is. Free some "
                "space or allow writing here, then go on with --resume"
            ) from error

    def load_checkpoint(self, path: str | Path, *args: Any, **kwargs: Any) -> dict[str, Any]:
        """Raises UserError if it cannot be read."""
        checkpoint = read_checkpoint(Path(path))
        _reopen_epoch(checkpoint)
        return checkpoint


def _reopen_epoch(checkpoint: dict[str, Any]) -> None:
    """Let a run that had done all its steps take more.

    Lightning sees the run as one epoch, whose end stands in a checkpoint of the last step: it would train nothing.
    """
    progress = checkpoint["loops"]["fit_loop"]
    for counts in progress["epoch_progress"].values():
        counts.update({"ready": 1, "started": 1, "processed": 0, "completed": 0})
    progress["epoch_loop.batch_progress"]["is_last_batch"] = False


class Checkpoints(ModelCheckpoint):
    """Saves every `every` steps, and after the last one.

    Args:
        folder: where; a run that was moved or copied goes on in the folder where it is now.
    """

    def __init__(self, folder: Path, every: int) -> None:
        super().__init__(
            folder,
            filename="step-{step}",
            auto_insert_metric_name=False,
            every_n_train_steps=every,
            save_last=True,
            enable_version_counter=False,
        )

    @property
    def state_key(self) -> str:
        """Without `every`, which may change when a run is resumed."""
        return "Checkpoints"

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """What to remove once the next one is written; never a file outside of the folder."""
        assert self.dirpath is not None
        if name := Path(state_dict["best_model_path"]).name:
            self.best_model_path = str(Path(self.dirpath) / name)

    def on_train_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        if self._last_global_step_saved != trainer.global_step:
            self._save_topk_checkpoint(trainer, self._monitor_candidates(trainer))
            self._save_last_checkpoint(trainer, self._monitor_candidates(trainer))


def weights_of(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The method's own tensors in the state of a training module."""
    return {name.removeprefix(PREFIX): x for name, x in state.items() if name.startswith(PREFIX)}


def changing(method: Method) -> dict[str, Tensor]:
    """The tensors of a method without its frozen parts."""
    return {name: x for name, x in method.state_dict().items() if not _is_frozen(name, method)}


def checksums(method: Method) -> dict[str, str]:
    """Of each part that is frozen."""
    return {part: tensors_sha256(method.get_submodule(part)) for part in method.frozen}


def tensors_sha256(module: nn.Module) -> str:
    """SHA-256 of a module's tensors, with their names and types."""
    digest = hashlib.sha256()
    for name, x in sorted(module.state_dict().items()):
        digest.update(f"{name} {x.dtype} {tuple(x.shape)}".encode())
        digest.update(x.detach().cpu().contiguous().flatten().view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()


def leave_out(checkpoint: dict[str, Any], method: Method, sums: dict[str, str]) -> None:
    """Take the frozen parts out of a checkpoint that is about to be written."""
    state = checkpoint["state_dict"]
    kept = {name: x for name, x in state.items() if not _is_frozen(name.removeprefix(PREFIX), method)}
    checkpoint |= {"state_dict": kept, CHECKSUMS: sums}


def put_back(checkpoint: dict[str, Any], method: Method) -> None:
    """Fill a checkpoint that a run is resumed from with the frozen parts as they are now.

    Raises:
        UserError: they are not those that the checkpoint was made with.
    """
    check_same(checkpoint, method, "the checkpoint to resume from")
    frozen = {PREFIX + name: x for name, x in method.state_dict().items() if _is_frozen(name, method)}
    checkpoint["state_dict"] |= frozen


def check_same(checkpoint: Mapping[str, Any], method: Method, where: str) -> None:
    """Raises UserError if a frozen part is another than it was."""
    expected = checkpoint.get(CHECKSUMS, {})
    for part, actual in checksums(method).items():
        if actual != expected.get(part):
            raise UserError(
                f"{where}: it was made with another frozen {part} than this run has now. Give it the same weights "
                "again (method.encoder_from, encoder), or start from scratch"
            )


def _is_frozen(name: str, method: Method) -> bool:
    """Whether a tensor belongs to a part of the method that never changes."""
    return any(name.startswith(f"{part}.") for part in method.frozen)
