"""Any predictor on a frozen encoder; and predictors of distributions under the methods that learn the encoder too."""

from typing import Any

import pytest
import torch

from jepa.encoders.conv import ConvEncoder
from jepa.encoders.frame import FrameEncoder
from jepa.methods.base import Batch, ClipShape, Method
from jepa.methods.latent_dynamics import LatentDynamics
from jepa.methods.lewm import LeWM
from jepa.methods.pldm import PLDM
from jepa.predictors.base import PredictorConfig
from jepa.predictors.causal import CausalPredictor
from jepa.predictors.gru import GRUPredictor
from jepa.predictors.hybrid import HybridPredictor
from jepa.predictors.mdn_rnn import MDNRNN
from jepa.predictors.mlp import MLPPredictor
from jepa.predictors.rssm import RSSM
from jepa.world_model import rollout

pytestmark = pytest.mark.usefixtures("one_thread")
CLIPS = ClipShape(frames=8, action_size=2)
VECTORS: dict[str, PredictorConfig] = {
    "mlp": MLPPredictor.Config(hidden=16),
    "gru": GRUPredictor.Config(),
    "causal": CausalPredictor.Config(hidden=16, depth=1, heads=2, conditioning="adaln"),
    "mdn_rnn": MDNRNN.Config(hidden=16),
    "rssm": RSSM.Config(recurrent_size=16, hidden=16, blocks=4, categoricals=4, classes=4),
}
TOKENS = {kind: VECTORS[kind] for kind in ("causal", "mdn_rnn", "rssm")}
DISTRIBUTIONS = {kind: VECTORS[kind] for kind in ("mdn_rnn", "rssm")}


def conv() -> ConvEncoder:
    torch.manual_seed(0)
    return ConvEncoder(ConvEncoder.Config(width=8, channels=8, hidden=16), 32, 4)


def patches() -> FrameEncoder:
    torch.manual_seed(0)
    return FrameEncoder(FrameEncoder.Config(model="test_vit"), 32, 4)


def batch() -> Batch:
    g = torch.Generator().manual_seed(0)
    return Batch(torch.randn(4, 8, 3, 32, 32, generator=g), torch.rand(4, 7, 2, generator=g) * 2 - 1)


def trained(method: Method, steps: int, lr: float = 3e-3) -> list[float]:
    parameters = [p for p in method.parameters() if p.requires_grad]
    optimizer = torch.optim.Adam(parameters, lr)
    losses = []
    for step in range(steps):
        optimizer.zero_grad()
        loss = method.loss(batch(), torch.Generator().manual_seed(step))["loss"]
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    return losses


@pytest.mark.parametrize(
    ("encoder", "kind"), [("conv", kind) for kind in VECTORS] + [("patches", kind) for kind in TOKENS]
)
def test_every_predictor_learns_on_a_frozen_encoder_that_stays_as_it_was(encoder: str, kind: str) -> None:
    made = conv() if encoder == "conv" else patches()
    before = {name: value.clone() for name, value in made.state_dict().items()}
    method = LatentDynamics(LatentDynamics.Config(predictor=VECTORS[kind]), made, CLIPS).train()
    losses = trained(method, 30)
    assert losses[-1] < losses[0]
    assert all(torch.equal(value, before[name]) for name, value in method.encoder.state_dict().items())
    unused = [name for name, p in method.dynamics.named_parameters() if p.grad is None]
    assert unused == []


@pytest.mark.parametrize("learns", [LeWM, PLDM])
@pytest.mark.parametrize("kind", DISTRIBUTIONS)
def test_distributions_are_learned_together_with_an_encoder(learns: Any, kind: str) -> None:
    method = learns(learns.Config(predictor=VECTORS[kind]), conv(), CLIPS)
    assert method.history == 3  # latents that the dynamics read: all before the last of each clip
    losses = trained(method.train(), 30)
    assert losses[-1] < losses[0]
    gradients = [p.grad for p in method.encoder.parameters()]
    assert all(gradient is not None and gradient.isfinite().all() for gradient in gradients)


@pytest.mark.parametrize("learns", [LatentDynamics, LeWM, PLDM])
@pytest.mark.parametrize("kind", DISTRIBUTIONS)
def test_all_randomness_comes_from_the_generator(learns: Any, kind: str) -> None:
    method = learns(learns.Config(predictor=VECTORS[kind]), conv(), CLIPS).eval()
    losses = []
    for seed in (1, 1):
        torch.manual_seed(len(losses))
        losses.append(method.loss(batch(), torch.Generator().manual_seed(seed))["loss"].item())
    assert losses[0] == losses[1]


def test_the_loss_of_a_point_predictor_is_that_of_teacher_forcing() -> None:
    method = LatentDynamics(LatentDynamics.Config(predictor=VECTORS["mlp"]), conv(), CLIPS)
    clips = batch()
    z = method.encoder(clips.video)
    predicted = method.dynamics.parallel(z[:, :-1], method.actions_of(clips))
    loss = method.loss(clips, torch.Generator())["loss"]
    torch.testing.assert_close(loss, (predicted - z[:, 1:]).square().mean())


@pytest.mark.parametrize("kind", ["mlp", "gru", "causal", "hybrid"])
def test_rollouts_in_training_are_those_of_planning_and_add_their_error(kind: str) -> None:
    config = VECTORS[kind] if kind in VECTORS else HybridPredictor.Config(hidden=16, heads=2, kv_heads=1, mamba_heads=2)
    plain, rolled = (
        LatentDynamics(LatentDynamics.Config(predictor=config, rollout_steps=steps), conv(), CLIPS) for steps in (0, 3)
    )
    rolled.load_state_dict(plain.state_dict())
    clips = batch()
    z, actions = plain.frozen_latents(clips), plain.actions_of(clips)
    terms = rolled.loss(clips, torch.Generator())
    start = plain.dynamics.initial_state(z[:, :1], actions[:, :0])  # 3 steps fit into 4 latents in one way
    seen = rollout(plain.dynamics, start, actions[:, None])[:, 0]
    error = (seen - z[:, 1:]).square().mean()
    assert error > 0
    torch.testing.assert_close(terms["rollout"], error.detach())
    torch.testing.assert_close(terms["loss"], plain.loss(clips, torch.Generator())["loss"] + error)
    losses = trained(rolled.train(), 30)
    assert losses[-1] < losses[0]


def test_a_rollout_begins_after_any_number_of_true_latents() -> None:
    method = LatentDynamics(LatentDynamics.Config(predictor=VECTORS["causal"], rollout_steps=2), conv(), CLIPS)
    found = {round(method.loss(batch(), torch.Generator().manual_seed(seed))["rollout"].item(), 6) for seed in range(9)}
    assert len(found) == 2  # after one and after two of four


def test_rollouts_are_refused_where_they_cannot_be() -> None:
    with pytest.raises(ValueError, match="rollout_steps is for predictors of points, found mdn_rnn"):
        LatentDynamics(LatentDynamics.Config(predictor=VECTORS["mdn_rnn"], rollout_steps=2), conv(), CLIPS)
    with pytest.raises(ValueError, match=r"data.clip_frames is 8; expected 10 or more"):
        LatentDynamics(LatentDynamics.Config(predictor=VECTORS["mlp"], rollout_steps=4), conv(), CLIPS)
    with pytest.raises(ValueError, match="a rollout of 1 step is teacher forcing itself"):
        LatentDynamics.Config(rollout_steps=1)


def test_a_predictor_of_vectors_is_refused_for_patches() -> None:
    with pytest.raises(ValueError, match="mlp takes one vector a step, the encoder gives 4 tokens"):
        LatentDynamics(LatentDynamics.Config(predictor=VECTORS["mlp"]), patches(), CLIPS)


def test_clips_of_one_latent_are_refused() -> None:
    with pytest.raises(ValueError, match=r"data.clip_frames is 2; expected 4 or more"):
        LatentDynamics(LatentDynamics.Config(predictor=VECTORS["mlp"]), conv(), ClipShape(2, 2))
