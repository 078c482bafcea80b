"""A probe while the encoder is trained: `trainer.probe_every` steps, on held-out videos, without touching the training.

knn      accuracy of each label by nearest neighbors
linear   accuracy of each label by logistic regression, and R² of the true states where the data have them: their mean
         as in `jepa probe`, and of each kind of state, angles as sine and cosine

It sees one clip each of at most 256 training and 128 test videos, the same each time: encoded again, and decoded again
only where `data.cache_mib` does not hold them. `jepa probe` afterwards sees all videos, beside the baselines.
"""

import logging
import time
from typing import Literal

import lightning as L

from jepa.config import UserError
from jepa.training.callbacks.scoring import ScoringCallback
from jepa.training.config import PretrainConfig
from jepa.training.encoder_from import resolved
from jepa.training.module import Pretraining, step_to_look_at
from jepa_data.config import StreamConfig
from jepa_data.shards.index import ShardSet
from jepa_data.shards.store import open_store
from jepa_data.stream.loader import make_loader
from jepa_data.types import ClipBatch
from jepa_probes.diagnosis.quantities import read_out
from jepa_probes.probing import PROBES
from jepa_probes.probing.base import ClassProbe
from jepa_probes.probing.features import Features, extract
from jepa_probes.probing.labels import accuracies, classify, make_task
from jepa_probes.probing.state import find_targets

logger = logging.getLogger(__name__)

Kind = Literal["knn", "linear"]
CLIPS = {"train": 256, "test": 128}
BATCH = 32


def online_probe(config: PretrainConfig) -> "OnlineProbe | None":
    """The probe that a config asks for with `trainer.probe_every`; None if it asks for none.

    Raises:
        UserError: as `OnlineProbe`; or the encoder that the config names cannot be found.
    """
    if not config.trainer.probe_every:
        return None
    config, _ = resolved(config)
    assert config.encoder is not None
    t = config.trainer
    return OnlineProbe(config.data, t.probe_every, t.probe, config.encoder.tubelet, config.seed)


class OnlineProbe(ScoringCallback):
    """Logs `probe/LABEL` (accuracy), `probe/state_r2` and `probe/QUANTITY_r2`, and writes them to the log.

    Of several processes the first one probes, and the others wait, or encode the same where the weights are sharded.

    Attributes:
        scores: the last ones, without "probe/".
        seconds: spent so far.

    Raises:
        UserError: the data have no test split, nothing that this kind of probe could find in it, or too short videos.
    """

    def __init__(self, data: StreamConfig, every: int, kind: Kind, frames_per_step: int, seed: int) -> None:
        super().__init__()
        self.every = every
        self.kind = kind
        self.frames_per_step = frames_per_step
        self.seed = seed
        self.probe: ClassProbe = PROBES.make(PROBES.config(kind).model_validate({}))
        where = data.sources[0].shards
        manifest = ShardSet.open(open_store(where, data.remote)).manifest
        self.names = manifest.state_names
        self.with_states = kind == "linear" and bool(find_targets(self.names))
        for split in CLIPS:
            if split not in manifest.splits or manifest.splits[split].episodes < 2:
                raise UserError(f"trainer.probe_every: {where} has no two videos to probe in its {split} split; use 0")
        if not self.with_states and not manifest.label_names:
            other = "; trainer.probe=linear finds its states" if self.names else ""
            raise UserError(f"trainer.probe_every: {where} has no labels that a {kind} probe could find{other}")
        whole = {"shards": data.sources[:1], "batch_size": BATCH, "clips_per_video": 1, "workers": 0}
        few = data.model_copy(update=whole)
        self.loaders = {split: make_loader(few, split, seed=seed, shuffle=False) for split in CLIPS}

    def on_train_batch_end(  # pyright: ignore[reportIncompatibleMethodOverride]
        self, trainer: L.Trainer, module: Pretraining, outputs: object, batch: ClipBatch, batch_idx: int
    ) -> None:
        step = step_to_look_at(trainer, module, batch_idx, self.every)
        if step is None:
            return
        began = time.perf_counter()
        train = self._features(module, "train")
        test = self._features(module, "test")
        if not trainer.is_global_zero:
            return
        tasks = [task for name in sorted(train.labels) if (task := make_task(name, train, test)) is not None]
        answers = {task.name: classify(self.probe, task, train, test, self.seed)[1] for task in tasks}
        self.scores = {task.name: accuracies(answers[task.name], task)["accuracy"] for task in tasks}
        if self.with_states:
            self.scores |= read_out(train, test, self.seed)
        self.seconds += time.perf_counter() - began
        module.log_dict({f"probe/{name}": value for name, value in self.scores.items()}, batch_size=len(batch))
        floors = {task.name: accuracies(task.majority(), task)["accuracy"] for task in tasks}
        scores = self.scores.items()
        message = "  ".join(f"{name} {value:.3f} (floor {floors.get(name, 0):.3f})" for name, value in scores)
        logger.info(f"step {step}: {self.kind} probe  {message or 'nothing to find in these videos'}")

    def _features(self, module: Pretraining, split: str) -> Features:
        return extract(module.encode, self.loaders[split], self.frames_per_step, self.names, clips=CLIPS[split])
