"""What a diagnosis learns from the run's recordings before anything is played."""

import logging
from dataclasses import dataclass, replace

from jaxtyping import Float
from torch import Tensor

from jepa.agents.policy import PlanSettings, history_of
from jepa.predictors.mlp import MLPPredictor
from jepa_probes.diagnosis.config import DiagnoseConfig
from jepa_probes.diagnosis.networks import StateRead, StateSpace, fit_read, fit_state_dynamics
from jepa_probes.diagnosis.open_loop import imagine, measure_open_loop
from jepa_probes.diagnosis.quantities import StateCode
from jepa_probes.diagnosis.recordings import GOALS, PRETRAINED, Subject, all_finite, clip_steps, encoders, read_split
from jepa_probes.diagnosis.result import OpenLoop, ReadOut
from jepa_probes.planning.recordings import recorded_blocks
from jepa_probes.probing.features import Features
from jepa_probes.probing.state import fit_state

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Learned:
    """Networks, and the recordings that they are held against.

    Attributes:
        train, test: of the run's encoder. `goals`: latents of the same moments of `train`, as goal images show them.
        imagined: latents that the recorded actions of `test` lead to, after `history` of them.
        readout: quantity -> encoder -> R².
        open_loop: errors of imagination.
    """

    space: StateSpace
    read: StateRead
    dynamics: MLPPredictor
    train: Features
    test: Features
    goals: Float[Tensor, "V S N D"]
    imagined: Float[Tensor, "E H N D"]
    readout: dict[str, dict[str, ReadOut]]
    open_loop: list[OpenLoop]


def learn(subject: Subject, settings: PlanSettings) -> Learned:
    """Read states off latents of every encoder, learn dynamics on states, and imagine what was recorded.

    Raises:
        UserError: the recordings hold no states, or none of them is long enough.
    """
    model = subject.model
    config = subject.config
    history = settings.history or history_of(model, settings.horizon)
    wanted = encoders(subject)
    frames = model.spec.frames_per_step
    steps = clip_steps(subject.data, frames, "train", max(2, settings.horizon + 1))
    train = read_split(subject, "train", steps, wanted)
    ahead = max(*config.horizons, settings.horizon)
    test = read_split(subject, "test", clip_steps(subject.data, frames, "test", history + ahead), wanted)
    own = train[PRETRAINED]
    code = StateCode.fit(own.state_names, own.states)
    numbers = code.encode(own.states)
    space = StateSpace.of(code, numbers)
    logger.info(f"reading {len(code.quantities)} quantities off the latents of {len(wanted)} encoders")
    readout: dict[str, dict[str, ReadOut]] = {quantity.name: {} for quantity in code.quantities}
    reads = {}
    for name in wanted:
        reads[name], scores = _read(train[name], test[name], space, config)
        for quantity, score in scores.items():
            readout[quantity][name] = score
    logger.info(f"learning dynamics on true states, {config.state_updates} updates")
    assert model.spec.actions is not None
    stats = model.spec.actions.resized(model.spec.block_size)
    options = {"hidden": config.hidden, "updates": config.state_updates, "seed": config.seed}
    dynamics = fit_state_dynamics(space, numbers, recorded_blocks(model, own), stats, **options)
    held_out = all_finite(test[PRETRAINED], model.spec.states)
    seen = min(history, held_out.latents.shape[1] - 1)
    longest = min(ahead, held_out.latents.shape[1] - seen)
    blocks = recorded_blocks(model, held_out)
    imagined = imagine(model, held_out, blocks, seen, longest)
    read = reads[PRETRAINED]
    open_loop = measure_open_loop(imagined, held_out, blocks, seen, config.horizons, read, space, dynamics)
    return Learned(space, read, dynamics, own, test[PRETRAINED], train[GOALS].latents, imagined, readout, open_loop)


def _read(
    train: Features, test: Features, space: StateSpace, config: DiagnoseConfig
) -> tuple[StateRead, dict[str, ReadOut]]:
    """The network, and how well it and a linear map read each quantity on held-out episodes."""
    code = space.code
    names = tuple(number.name for number in code.numbers)
    known = replace(train, states=code.encode(train.states), state_names=names)
    truth = replace(test, states=code.encode(test.states), state_names=names)
    options = {"hidden": config.hidden, "updates": config.read_updates, "seed": config.seed}
    read = fit_read(known.latents, known.states, known.keys, **options)
    linear = fit_state(known, seed=config.seed)
    assert tuple(target.name for target in linear.targets) == names
    predicted = {"linear": linear.predict(truth.latents).float(), "mlp": read(truth.latents)}
    scores = {
        quantity.name: ReadOut(**{how: code.r2(quantity, x, truth.states) for how, x in predicted.items()})
        for quantity in code.quantities
    }
    return read, scores
