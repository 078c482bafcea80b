"""From the description of a run to its method, what is trained; and from a trained method to its model."""

import torch

from jepa.config import UserError, errors_of
from jepa.encoders.module import Encoder
from jepa.events import EventLayout
from jepa.methods import METHODS
from jepa.methods.base import ClipShape, Method
from jepa.models.build import build_encoder
from jepa.models.config import ModelConfig
from jepa.models.model import Model, load
from jepa.training.config import PretrainConfig
from jepa.training.encoder_from import check_freezable, load_frozen
from jepa.world_model import LatentWorldModel


def build_method(config: PretrainConfig, image_size: int, action_size: int, events: tuple[str, ...] = ()) -> Method:
    """The method of a run with fresh weights, drawn from the run's seed; a frozen encoder has those it was trained to.

    Args:
        image_size: of the clips in pixels.
        action_size: width of one raw action; 0 if the clips have none.
        events: names of those that the method's dynamics take beside actions.

    Raises:
        UserError: the parts do not fit together, or the method needs actions and there are none.
    """
    kind = METHODS[config.method.kind]
    if kind.needs_actions and not action_size:
        raise UserError(
            f"{config.data.sources[0].shards} has no actions, and method {config.method.kind} learns from them; "
            "use vjepa or levjepa"
        )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(config.seed)
        encoder = _initial_encoder(config, image_size)
        if "encoder" in kind.frozen:
            check_freezable(encoder, encoder.image_size, encoder.tubelet)
        origin = config.method.teacher_source()
        teacher = {} if origin is None else {"trained": load(origin).encoder}
        clips = ClipShape(config.data.clip_frames, action_size, events)
        with errors_of("method"):
            method = METHODS.make(config.method, encoder, clips, **teacher)
            if events and method.dynamics is not None:
                method.dynamics.read_events(EventLayout(action_size, events, encoder.tubelet))
            return method


def _initial_encoder(config: PretrainConfig, image_size: int) -> Encoder:
    """What training starts from: random weights, or those that the config names."""
    encoder = config.encoder
    assert encoder is not None, "jepa.training.encoder_from.resolved names it"
    if (origin := config.method.encoder_source()) is not None:
        return load_frozen(origin, encoder, image_size, config.data.clip_frames)
    return build_encoder(encoder, image_size, config.data.clip_frames, load_weights=True)


def trained(method: Method, model_config: ModelConfig) -> Model:
    """What is kept of a method after training."""
    encoder = method.evaluation_encoder()
    world = LatentWorldModel(encoder, method.dynamics, model_config.spec, model_config.preprocessing).eval()
    return Model(world, model_config, method.masked_predictor())
