"""Checkpoints of a training: which are kept, which one a run goes on from, and what they leave out.

checkpoints/step-N.ckpt   the newest `trainer.keep_last`
checkpoints/last.ckpt     another name of the newest; a run is resumed from it, or from the newest that is whole

The parts of a method that never change (`Method.frozen`), such as an encoder, are left out: they are there anyhow,
where they came from, and would be copied into every checkpoint, 4 GB for a ViT-g. What is kept of them is a checksum,
so that a run is not resumed with others.
"""

import hashlib
import os
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import lightning as L
import torch
from lightning.pytorch.callbacks import Checkpoint
from lightning.pytorch.plugins.io import TorchCheckpointIO
from torch import Tensor, nn

from jepa.config import UserError
from jepa.config.writing import PARTIAL, flush, replacing
from jepa.methods.base import Method
from jepa.training.optim import check_read
from jepa.training.run_state.checkpoint_file import not_written, read_checkpoint, write_checkpoint
from jepa.training.run_state.metrics_log import log_step

FOLDER = "checkpoints"
LAST = "last.ckpt"
CHECKSUMS = "frozen"  # keys of a checkpoint
ROLLBACKS = "rollbacks"
EVENTS = "events"  # names of those that the dynamics take
PREFIX = "method."  # of the training module's tensors


class CheckpointFiles(TorchCheckpointIO):
    """Files that are whole or not there, and are checked when they are read."""

    def save_checkpoint(self, checkpoint: dict[str, Any], path: str | Path, storage_options: Any = None) -> None:
        """Raises UserError if the file cannot be written; one that was there is left as it was."""
        write_checkpoint(checkpoint, Path(path))

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


class Checkpoints(Checkpoint):
    """Saves every `every` steps, at the last one, and at the one at which a run is asked to stop.

    Args:
        folder: where; a run that was moved or copied goes on in the folder where it is now.
        keep: how many steps are kept.
    """

    def __init__(self, folder: Path, every: int, keep: int) -> None:
        self.folder = folder
        self.every = every
        self.keep = keep
        self._saved = 0  # step

    def on_train_batch_end(
        self, trainer: L.Trainer, pl_module: L.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        step = trainer.global_step
        if (batch_idx + 1) % trainer.accumulate_grad_batches or step == self._saved:
            return
        if step % self.every == 0 or step == trainer.max_steps or trainer.should_stop:
            log_step(trainer)
            trainer.save_checkpoint(self.folder / f"step-{step}.ckpt")
            self._saved = step
            if trainer.is_global_zero:
                try:
                    _name_last(self.folder / f"step-{step}.ckpt")
                    self._remove_others(step)
                except OSError as error:
                    raise not_written(self.folder / LAST, error) from error

    def _remove_others(self, step: int) -> None:
        """Keep this step and those before it; later ones are of a run that was not gone on with."""
        steps = checkpoint_steps(self.folder)
        kept = [number for number in steps if number <= step][: self.keep]
        for number, path in steps.items():
            if number not in kept:
                path.unlink(missing_ok=True)


def _name_last(path: Path) -> None:
    """Let last.ckpt be another name of this file; a copy of it where the file system has no such names."""
    last = path.with_name(LAST)
    partial = last.with_name(LAST + PARTIAL)
    partial.unlink(missing_ok=True)
    try:
        os.link(path, partial)
    except OSError:
        with replacing(last) as copy:
            shutil.copyfile(path, copy)
        return
    os.replace(partial, last)
    flush(path.parent)


def checkpoint_steps(folder: Path) -> dict[int, Path]:
    """The checkpoints that have a step's name, the latest first."""
    steps = {}
    for path in folder.glob("step-*.ckpt"):
        number = path.stem.removeprefix("step-")
        if number.isdecimal() and path.is_file():
            steps[int(number)] = path
    return dict(sorted(steps.items(), reverse=True))


def newest_whole(folder: Path) -> tuple[Path, dict[str, Any], str]:
    """The checkpoint of a folder to go on from, its contents with the tensors on disk, and why it is not last.ckpt.

    Raises:
        UserError: none is whole; each is named.
    """
    last = folder / LAST
    reasons = [] if last.is_file() else [f"{last} is not there"]
    tried: list[Path] = []
    for path in (last, *checkpoint_steps(folder).values()):
        if not path.is_file() or any(path.samefile(other) for other in tried):
            continue
        tried.append(path)
        try:
            checkpoint = read_checkpoint(path, mmap=True)
            check_read(checkpoint["state_dict"], checkpoint["optimizer_states"], str(path))
        except UserError as error:
            reasons.append(str(error))
            continue
        why = f"{'; '.join(reasons)}: going on from {path.name}, the newest that is whole" if reasons else ""
        return path, checkpoint, why
    raise UserError(f"{'; '.join(reasons)}. No other checkpoint here is whole; start again with --overwrite")


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
