"""The clips that a run is trained on, and what they tell its model: size, rate and pixels, which states."""

import difflib
from functools import cached_property
from typing import Any

import lightning as L
import torch
import torch.distributed as dist
from jaxtyping import Float
from torch import Tensor, nn

from jepa.config import UserError
from jepa.methods import METHODS
from jepa.training.config import PretrainConfig
from jepa.training.encoder_from import EncoderOrigin
from jepa.training.run_state.checkpoints import tensors_sha256
from jepa.world_model import Preprocessing
from jepa_data.stream.clips import Bad
from jepa_data.stream.loader import make_loader
from jepa_data.transforms import normalize


class TrainingClips:
    """Clips for all steps of a run.

    Args:
        origin: says how the encoder wants its pixels.
        trainer: of several processes, each takes its share.
        rollbacks: so often the run was rolled back: the order of its clips is another one each time.

    Attributes:
        loader: yields them.
        wanted: the recorded states that the dynamics read, by name.
        targets: those that the method predicts.
        events: that its dynamics take as a condition; () for methods that learn from video alone.

    Raises:
        UserError: `data.augment.flip` with actions.
        DataError: as `make_loader`.
    """

    def __init__(self, config: PretrainConfig, origin: EncoderOrigin, trainer: L.Trainer, rollbacks: int = 0) -> None:
        self.data, self.seed = config.data, config.seed
        self.origin = origin
        self.kind = config.method.kind
        self.wanted = config.method.state_names()
        self.targets = config.method.target_names()
        self.loader = make_loader(
            config.data,
            "train",
            seed=order_seed(config.seed, rollbacks),
            total_batches=config.trainer.steps * config.trainer.accumulate,
            rank=trainer.global_rank,
            world_size=trainer.world_size,
            latents=config.method.latents_source(),
        )
        self.events = self.loader.events if METHODS[config.method.kind].needs_actions else ()
        if self.loader.action_size and config.data.augment.flip:
            raise UserError(
                "data.augment.flip mirrors the images and not the actions; use it for video without actions"
            )

    @property
    def notes(self) -> tuple[str, ...]:
        """What a user should know of the data and the encoder, a line each."""
        return (*self.loader.notes, *self.origin.notes)

    def some(self, count: int) -> Float[Tensor, "B T C h w"]:
        """At least so many normalized clips, drawn as in training; the same for every process."""
        size = min(count, self.data.batch_size)
        data = self.data.model_copy(update={"batch_size": size})
        loader = make_loader(data, "train", seed=self.seed, total_batches=-(-count // size))
        mean, std = self.preprocessing.mean, self.preprocessing.std
        return torch.cat([normalize(batch.video, mean, std) for batch in loader])

    @cached_property
    def preprocessing(self) -> Preprocessing:
        """How a model has to be shown video. Raises UserError if clips differ in size or rate, or are no squares."""
        data = self.data
        manifest = self.loader.shards.manifest
        size = data.image_size or manifest.image_size
        fps = data.fps or manifest.fps
        if size is None or fps is None:
            what = "data.image_size" if size is None else "data.fps"
            raise UserError(
                f"{self.loader.shards.url}: its videos differ in this; say what the model gets: {what}=NUMBER"
            )
        self._check_square()
        return Preprocessing(
            size,
            fps / data.stride,
            self.origin.mean,
            self.origin.std,
            fit=data.fit,
            shortest_edge=data.shortest_edge,
            clip_frames=data.clip_frames,
        )

    def check_encoder(self, encoder: nn.Module) -> None:
        """Raises UserError if stored latents are of another encoder, or of images that it was shown otherwise."""
        latents = self.loader.latents
        if latents is None:
            return
        about = latents.about
        if about.encoder_sha256 != tensors_sha256(encoder):
            raise UserError(
                f"method.latents_from: {latents.folder} holds latents of another encoder, {about.model}; name that one "
                "(method.encoder_from), or tokenize the shards with this one"
            )
        seen = pixels_of(self.preprocessing)
        differ = [name for name in seen if seen[name] != about.pixels.get(name)]
        if differ:
            name = differ[0]
            raise UserError(
                f"method.latents_from: {latents.folder} was made with {name} {about.pixels.get(name)}, and this run "
                f"has {seen[name]}; set data.{name}, or tokenize the shards again"
            )

    @cached_property
    def state_columns(self) -> tuple[int, ...]:
        """Where the states that the dynamics read stand among the recorded ones. Raises UserError if they do not."""
        return self._columns("method.states", self.wanted)

    @cached_property
    def target_columns(self) -> tuple[int, ...]:
        """Where those stand that the method predicts. Raises UserError if they do not."""
        return self._columns(f"method {self.kind} predicts them", self.targets)

    def _columns(self, key: str, names: tuple[str, ...]) -> tuple[int, ...]:
        shards = self.loader.shards
        known = shards.manifest.state_names if all(corpus.states for corpus in self.loader.corpora) else ()
        for name in names:
            if name not in known:
                raise UserError(f"{key}: {shards.url} has no state {name!r}; {_hint(name, known)}")
        return tuple(map(known.index, names))

    def left_out(self) -> dict[str, Bad]:
        """What could not be read, by any process."""
        if not (dist.is_available() and dist.is_initialized()):
            return self.loader.bad
        gathered: list[Any] = [None] * dist.get_world_size()
        dist.all_gather_object(gathered, self.loader.bad)
        return {key: bad for part in gathered for key, bad in part.items()}

    def _check_square(self) -> None:
        """Clips as stored must be square, as everything is that a model is shown later."""
        if self.data.image_size is not None or not len(self.loader.samples):
            return
        index = self.loader.samples[0].video_index()
        if index is not None and index.height != index.width:
            raise UserError(
                f"{self.loader.shards.url}: its videos are {index.width}x{index.height}, and models see square "
                "images; give data.image_size=NUMBER (the middle part is taken; data.fit=stretch takes all of it)"
            )


def order_seed(seed: int, rollbacks: int) -> int:
    """What the order of clips, their masks and views are drawn from; another one after each rollback."""
    return seed + 1_000_003 * rollbacks


def pixels_of(preprocessing: Preprocessing) -> dict[str, Any]:
    """How images are shown to an encoder, without their rate, in types of JSON."""
    shown = {"image_size": preprocessing.image_size, "fit": preprocessing.fit}
    shown |= {"shortest_edge": preprocessing.shortest_edge}
    return shown | {"mean": list(preprocessing.mean), "std": list(preprocessing.std)}


def _hint(name: str, known: tuple[str, ...]) -> str:
    if near := difflib.get_close_matches(name, known, n=1):
        return f"did you mean {near[0]!r}?"
    return f"there are {', '.join(known) or 'none (or sources with different ones)'}"
