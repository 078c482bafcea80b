"""The agent that `jepa online` leaves: a model, and in model/actor the controller that reads the model's state.

agent = load_agent("runs/pendulum-online")
image, _ = env.reset()
agent.reset()
action = agent.act(image)
"""

from pathlib import Path

from jepa.agents.controller import ActionSpace, Actor, Bounds, ObservationNormalizer
from jepa.agents.imagination.belief import BeliefPolicy
from jepa.config import Config, UserError, from_dict
from jepa.config.fields import Count
from jepa.methods.dreamer import Dreamer
from jepa.models import checkpoint
from jepa.models.config import ModelConfig
from jepa.models.model import FILE_KEYS, Model, load, model_folder
from jepa.online.config import OnlineConfig
from jepa.online.environment import Environment
from jepa.world_model import LatentSpec, LatentWorldModel, Preprocessing
from jepa_data.transforms import IMAGENET_MEAN, IMAGENET_STD

FOLDER = "actor"


class ActorConfig(Config):
    """`model/actor/model.json`: all that it takes to build the controller again."""

    features: Count
    action_size: Count
    bounds: Bounds
    hidden: Count
    layers: int


def agent_model(method: Dreamer, config: OnlineConfig, environment: Environment) -> Model:
    """The encoder and the dynamics of a method that is trained in this environment, as a model; weights are shared."""
    encoder = method.encoder
    spec = LatentSpec(
        encoder.tokens, encoder.width, 1 / environment.fps, 1, environment.action_size, history=method.history
    )
    frames = config.replay.sequence_frames
    size = config.environment.image_size
    preprocessing = Preprocessing(size, environment.fps, IMAGENET_MEAN, IMAGENET_STD, clip_frames=frames)
    model_config = ModelConfig(
        method=config.method.kind,
        frames=frames,
        encoder=config.encoder,
        dynamics=method.dynamics.config,
        spec=spec,
        preprocessing=preprocessing,
    )
    return Model(LatentWorldModel(encoder, method.dynamics, spec, preprocessing), model_config)


def save_actor(actor: Actor, model: Path, hidden: int, layers: int) -> None:
    """Write the controller beside the model in the folder `model`."""
    space = actor.space
    config = ActorConfig(
        features=actor.normalizer.size, action_size=space.width, bounds=space.bounds, hidden=hidden, layers=layers
    )
    checkpoint.save(model / FOLDER, actor, config.model_dump(mode="json"))


def load_agent(run: Path | str) -> BeliefPolicy:
    """The policy of a run of `jepa online`, without exploration: images in, actions out.

    Raises:
        UserError: there is none.
    """
    folder = model_folder(Path(run)) / FOLDER
    if not folder.is_dir():
        raise UserError(f"{run}: no controller here (model/{FOLDER}); give a folder that `jepa online` wrote")
    stored = {k: v for k, v in checkpoint.read_description(folder).items() if k not in FILE_KEYS}
    config = from_dict(stored, ActorConfig, source=str(folder / checkpoint.DESCRIPTION))
    space = ActionSpace(config.action_size, bounds=config.bounds)
    normalizer = ObservationNormalizer(1, config.features, "latent")
    actor = Actor(normalizer, space, hidden=config.hidden, layers=config.layers)
    checkpoint.load_into(actor, folder)
    return BeliefPolicy(load(run), actor.eval().requires_grad_(False))
