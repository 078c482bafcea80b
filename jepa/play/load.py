"""From a run folder to a session: model, decoder, and the world that its data come from."""

import logging
from collections.abc import Callable
from pathlib import Path

import numpy as np

from jepa.config import UserError
from jepa.decoders.base import Decoder
from jepa.models.model import load
from jepa.play.config import PlayConfig
from jepa.play.ground import Ground, HeldOutClip, TrueWorld
from jepa.play.readout import Readout, fit_readout, shows_goals
from jepa.play.record import Recorder, free_folder
from jepa.play.session import Latents, Session
from jepa.training.config import PretrainConfig
from jepa.training.run_state.run_folder import run_config
from jepa.world_model import LatentWorldModel
from jepa_data.shards.index import ShardSet
from jepa_data.stream.loader import make_loader
from jepa_data.types import ClipBatch
from jepa_data.worlds import make_batch
from jepa_data.worlds.base import WorldBatch

logger = logging.getLogger(__name__)

MakeDecoder = Callable[[Path, LatentWorldModel, PretrainConfig], Decoder | None]

PLAYED = 2_000_000  # number of the first episode that is played: in no recording, and no task
SAMPLED = 3_000_000  # of those that the readout is fitted to
CLIPS = 16  # held-out ones: where there is no world, to start from; and for the unit of drift


def open_session(run: Path, config: PlayConfig, make_decoder: MakeDecoder, out: Path | None = None) -> Session:
    """A run that can be played.

    Args:
        make_decoder: the run's pixel decoder; None if its latents cannot be decoded.
        out: folder for recordings; None: the next free one in RUN/play.

    Raises:
        UserError: the run has no model, no dynamics, or latents that cannot be decoded; or its world needs a package.
    """
    model = load(run)
    if model.dynamics is None:
        raise UserError(
            f"{run}: its method has no dynamics, so nothing can be imagined. Train some on its latents: "
            f"`jepa pretrain configs/pretrain/latent_dynamics.yaml method.encoder_from={run}`"
        )
    training = run_config(run)
    decoder = make_decoder(run, model, training)
    if decoder is None:
        raise UserError(
            f"{run}: its {model.spec.tokens} tokens are no square grid, so they cannot be decoded to a picture. "
            f"Pool them: `jepa compress {run} OUT --keep pool:1x1`, and train dynamics on OUT (method.encoder_from=OUT)"
        )
    world = ShardSet.open(training.data.folder).manifest.world
    clips = _clips(training)
    latents = Latents.of(model.encode_clips(clips.video).flatten(0, 1))
    readout = None
    if world is None:
        ground: Ground = _held_out(model, clips, training)
    else:
        ground, readout = _in_world(world, model, training, config)
    recorder = Recorder(free_folder(run / "play") if out is None else out, config.seed)
    session = Session(
        str(run), model, decoder.decode, ground, config, readout=readout, latents=latents, recorder=recorder
    )
    logger.info(_summary(session))
    return session


def _in_world(
    name: str, model: LatentWorldModel, training: PretrainConfig, config: PlayConfig
) -> tuple[Ground, Readout | None]:
    """The world of the data with its image size, and places read off latents."""
    recorded = ShardSet.open(training.data.folder).manifest.image_size
    size = recorded or model.preprocessing.image_size

    def start(episodes: np.ndarray, seed: int) -> WorldBatch:
        return make_batch(name, episodes, image_size=size, seed=seed)

    ground = TrueWorld(lambda number: start(np.array([PLAYED + number]), config.seed), model)
    if not shows_goals(ground.world):
        return ground, None
    sampled = TrueWorld(lambda number: start(SAMPLED + np.arange(config.readout_images), config.seed), model)
    return ground, fit_readout(sampled)


def _clips(training: PretrainConfig) -> ClipBatch:
    """Clips of the test split, or of the training where there is none."""
    data = training.data.model_copy(update={"batch_size": CLIPS})
    splits = ShardSet.open(data.folder).manifest.splits
    split = "test" if "test" in splits else "train"
    return next(iter(make_loader(data, split, seed=training.seed, shuffle=False)))


def _held_out(model: LatentWorldModel, clips: ClipBatch, training: PretrainConfig) -> HeldOutClip:
    """Raises UserError if the clips have no actions."""
    if clips.actions is None:
        raise UserError(f"{training.data.folder}: its video has no actions, so there is nothing to drive with")
    states = None
    if model.spec.states and clips.states is not None:
        names = ShardSet.open(training.data.folder).manifest.state_names
        states = clips.states[..., [names.index(name) for name in model.spec.states]]
    return HeldOutClip(model, clips.video, clips.actions, states)


def _summary(session: Session) -> str:
    about = session.about()
    kind = "samples" if session.is_stochastic else "one future"
    line = f"{session.name}: {about['world']}, {about['step_seconds']:g} s a step, {kind}"
    if session.readout is not None:
        line += f"; places are read off its latents with R² {session.readout.r2:.2f}"
    return line
