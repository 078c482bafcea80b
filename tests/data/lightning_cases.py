"""A training by Lightning that learns nothing and keeps the batches it was given."""

from pathlib import Path
from typing import Any

import lightning
import torch

from jepa_data.stream.loader import ClipLoader
from jepa_data.types import ClipBatch


class Recorder(lightning.LightningModule):
    """`seen` are the batches; a checkpoint goes to FOLDER/STEP.ckpt after each if there is a folder."""

    def __init__(self, folder: Path | None) -> None:
        super().__init__()
        self.folder, self.seen = folder, list[ClipBatch]()
        self.weight = torch.nn.Parameter(torch.zeros(1))

    def training_step(self, batch: ClipBatch, number: int) -> torch.Tensor:
        self.seen.append(batch)
        return self.weight.sum()

    def on_train_batch_end(self, *_: Any) -> None:
        if self.folder is not None:
            self.trainer.save_checkpoint(self.folder / f"{self.trainer.global_step}.ckpt")

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.SGD(self.parameters(), lr=0.1)

    def transfer_batch_to_device(self, batch: ClipBatch, device: torch.device, dataloader_idx: int) -> ClipBatch:
        return batch.to(device)


def batches_in_training(loader: ClipLoader, folder: Path, resume: Path | None, passes: int = 1) -> list[ClipBatch]:
    """What Lightning gets from a loader; a training that is not resumed leaves its checkpoints in the folder."""
    trainer = lightning.Trainer(
        max_epochs=passes,
        accelerator="cpu",
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        default_root_dir=folder,
    )
    module = Recorder(folder if resume is None else None)
    trainer.fit(module, loader, ckpt_path=resume, weights_only=True)
    return module.seen
