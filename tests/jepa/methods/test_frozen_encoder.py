"""V-JEPA 2-AC and DINO-WM as methods: the encoder stays as it is, nothing leaks, states are told or predicted."""

import copy
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from jepa.config import UserError
from jepa.encoders.frame import FrameEncoder
from jepa.encoders.per_frame import PerFrameEncoder
from jepa.encoders.video_vit import VideoViT
from jepa.methods.base import Batch, ClipShape, Method
from jepa.methods.dino_wm import DinoWM
from jepa.methods.vjepa_ac import VJEPAAC
from jepa.normalize import NormalizationStats, Standardize
from jepa.training.encoder_from import check_freezable
from jepa.training.optim import adamw
from jepa.world_model import rollout

pytestmark = pytest.mark.usefixtures("one_thread")
A, FRAMES, SIZE = 2, 6, 32


def is_image() -> PerFrameEncoder:
    torch.manual_seed(0)
    vit = VideoViT(VideoViT.Config(patch=16, tubelet=2, width=24, depth=1, heads=2), SIZE, frames=2)
    return PerFrameEncoder.around(vit)


def backbone(name: str = "test_vit") -> FrameEncoder:
    torch.manual_seed(0)
    return FrameEncoder(FrameEncoder.Config(model=name), SIZE, 4)


SMALL = {"hidden": 48, "depth": 2, "heads": 4, "normalize_actions": False}
STATES = ("agent.x", "agent.y", "agent.angle")
CLIPS = ClipShape(FRAMES, A)


def ac(states: int = 0, **changes: Any) -> VJEPAAC:
    settings = SMALL | {"next_state": "predicted"} | changes.pop("predictor", {})
    config = VJEPAAC.Config.model_validate({"predictor": settings, "states": STATES[:states], **changes})
    encoder = is_image()
    torch.manual_seed(1)
    return VJEPAAC(config, encoder, CLIPS)


def dino(states: int = 0, name: str = "test_vit", **changes: Any) -> DinoWM:
    settings = SMALL | {"mlp_ratio": 4, "head_dim": None} | changes.pop("predictor", {})
    config = DinoWM.Config.model_validate({"predictor": settings, "states": STATES[:states], **changes})
    encoder = backbone(name)
    torch.manual_seed(1)
    return DinoWM(config, encoder, CLIPS)


METHODS = {"vjepa_ac": ac, "dino_wm": dino}


def batch(states: int = 0, frames: int = FRAMES) -> Batch:
    g = torch.Generator().manual_seed(2)
    told = torch.randn(3, frames, states, generator=g) if states else None
    return Batch(
        torch.randn(3, frames, 3, SIZE, SIZE, generator=g), torch.randn(3, frames - 1, A, generator=g), states=told
    )


def generator() -> torch.Generator:
    return torch.Generator().manual_seed(0)


@pytest.mark.parametrize("make", METHODS.values(), ids=list(METHODS))
@pytest.mark.parametrize("states", [0, 3])
def test_training_moves_the_predictor_and_not_a_bit_of_the_encoder(make, states: int) -> None:
    method = make(states)
    assert isinstance(method, Method) and method.evaluation_encoder() is method.encoder
    before = {name: x.clone() for name, x in method.state_dict().items()}
    optimizer = adamw(method, lr=1e-3, weight_decay=0.1, betas=(0.9, 0.999))
    trained = {id(p) for group in optimizer.param_groups for p in group["params"]}
    assert trained == {id(p) for p in method.dynamics.parameters()}
    method.train()
    losses = []
    for _ in range(8):
        optimizer.zero_grad()
        terms = method.loss(batch(states), generator())
        terms["loss"].backward()
        optimizer.step()
        losses.append(terms["loss"].item())
    assert losses[-1] < losses[0]
    for name, x in method.state_dict().items():
        assert torch.equal(x, before[name]) == name.startswith("encoder."), name
    assert all(p.grad is None and not p.requires_grad for p in method.encoder.parameters())
    assert all(p.grad is not None and p.grad.any() for p in method.dynamics.parameters())


def test_batch_statistics_and_dropout_of_a_frozen_backbone_stand_still() -> None:
    method = dino(name="test_resnet")
    assert any(isinstance(m, nn.BatchNorm2d) for m in method.encoder.modules())
    buffers = {name: x.clone() for name, x in method.encoder.named_buffers()}
    assert method.train() is method and method.training and method.dynamics.training
    assert not any(m.training for m in method.encoder.modules())
    method.loss(batch(), generator())
    assert all(torch.equal(x, buffers[name]) for name, x in method.encoder.named_buffers())


def test_an_encoder_that_is_frozen_keeps_nothing_for_a_backward_pass() -> None:
    method, data = ac(), batch()
    kept: list[Tensor] = []
    with torch.autograd.graph.saved_tensors_hooks(lambda x: kept.append(x) or x, lambda x: x):
        x, _ = method.sequence(data)
    assert not kept and not x.requires_grad


@pytest.mark.parametrize("make", METHODS.values(), ids=list(METHODS))
def test_the_loss_is_that_of_the_paper(make) -> None:
    """Both terms once more from `Dynamics.step`, in the distance that was published."""
    method, data = make(rollout_steps=2, rollout_context=2), batch()
    measure = F.l1_loss if isinstance(method, VJEPAAC) else F.mse_loss
    method.dynamics.eval()
    with torch.no_grad():
        z = method.encoder(data.video)
        assert data.actions is not None
        forced = torch.stack(
            [
                method.dynamics.step(
                    method.dynamics.initial_state(z[:, : s + 1], data.actions[:, :s]), data.actions[:, s]
                )[1].z
                for s in range(FRAMES - 1)
            ],
            1,
        )
        state = method.dynamics.initial_state(z[:, :2], data.actions[:, :1])
        rolled = rollout(method.dynamics, state, data.actions[:, None, 1:3])[:, 0]
        expected = measure(forced, z[:, 1:]) + measure(rolled, z[:, 2:4])
        found = method.loss(data, generator())
    torch.testing.assert_close(found["loss"], expected, atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(found["loss"], found["forced"] + found["rollout"])


def test_published_defaults() -> None:
    one, other = ac(), dino()
    c = one.config
    assert (c.distance, c.rollout_steps, c.rollout_context, c.detach_rollout) == ("l1", 2, 1, False)
    assert (other.config.distance, other.config.rollout_steps) == ("l2", 0)
    assert set(one.loss(batch(), generator())) == {"loss", "forced", "rollout", "cosine"}
    assert set(other.loss(batch(), generator())) == {"loss", "forced", "cosine"}


def test_latents_of_v_jepa_2_ac_are_layer_normed_and_so_are_its_predictions() -> None:
    x, predict = ac().sequence(batch())
    with torch.no_grad():
        for latents in (x, predict(x[:, :-1])):
            torch.testing.assert_close(latents.mean(-1), torch.zeros(latents.shape[:-1]), atol=1e-4, rtol=0)
            torch.testing.assert_close(latents.var(-1, correction=0), torch.ones(latents.shape[:-1]), atol=1e-2, rtol=0)


@torch.no_grad()
@pytest.mark.parametrize("make", METHODS.values(), ids=list(METHODS))
@pytest.mark.parametrize("states", [0, 3])
def test_nothing_of_the_future_reaches_a_prediction(make, states: int) -> None:
    method, data = make(states), batch(states)
    x, predict = method.sequence(data)
    before = predict(x[:, :-1])
    assert data.actions is not None
    for t in range(1, FRAMES - 1):
        video, actions = data.video.clone(), data.actions.clone()
        video[:, t + 1 :] += 1.0
        actions[:, t + 1 :] -= 1.0
        told = None if data.states is None else data.states.clone()
        if told is not None:
            told[:, t + 1 :] *= -2.0
        x, predict = method.sequence(Batch(video, actions, states=told))
        after = predict(x[:, :-1])
        torch.testing.assert_close(after[:, : t + 1], before[:, : t + 1], atol=1e-5, rtol=1e-5)
        if t + 1 < before.shape[1]:
            assert (after[:, t + 1] - before[:, t + 1]).abs().max() > 1e-3


def test_a_random_context_comes_from_the_generator_and_stays_within_the_clip() -> None:
    method = dino(rollout_steps=2, rollout_context="random")
    drawn = {method._context(FRAMES, torch.Generator().manual_seed(seed)) for seed in range(60)}
    assert drawn == {1, 2, 3, 4}
    assert method._context(3, generator()) == 1
    losses = [method.loss(batch(), torch.Generator().manual_seed(seed))["loss"].item() for seed in (3, 3, 4, 5, 6)]
    assert losses[0] == losses[1] and len(set(losses)) > 1


@torch.no_grad()
def test_states_are_predicted_along_with_the_patches_in_training_as_in_imagination() -> None:
    method = dino(3)
    assert isinstance(method.dynamics.scale_states, nn.Identity)
    scaled = dino(3, predictor={"normalize_states": True})
    assert isinstance(scaled.dynamics.scale_states, Standardize)
    scaled.dynamics.load_state_dict(method.dynamics.state_dict(), strict=False)
    scaled.dynamics.scale_states.fit(NormalizationStats(torch.full((3,), 5.0), torch.full((3,), 100.0)))
    data = batch(3)
    assert data.states is not None and data.actions is not None
    wide = Batch(data.video, data.actions, states=100 * data.states + 5)
    for one, clips in ((method, data), (scaled, wide)):
        assert clips.states is not None
        x, predict = one.sequence(clips)
        assert x.shape[-1] == one.encoder.width + 3
        torch.testing.assert_close(x[:, :, 1, -3:], data.states, atol=1e-4, rtol=1e-4)
        state = one.dynamics.initial_state(x[:, :2, :, :-3], data.actions[:, :1], clips.states[:, :2])
        state, next_latent = one.dynamics.step(state, data.actions[:, 1])
        both = predict(x[:, :2])[:, -1]
        torch.testing.assert_close(next_latent.mean(), both[..., :-3], atol=1e-4, rtol=1e-4)
        assert state.state is not None
        torch.testing.assert_close(one.dynamics.scale_states(state.state), both[..., -3:].mean(1), atol=1e-4, rtol=1e-4)
    torch.testing.assert_close(*(m.loss(d, generator())["loss"] for m, d in ((method, data), (scaled, wide))))


def test_states_that_a_rule_moves_are_reported_and_not_predicted() -> None:
    encoder = is_image()
    method = ac(A, predictor={"next_state": "add_action"})
    x, predict = method.sequence(batch(A))
    assert x.shape[-1] == encoder.width and not method.dynamics.predicts_states
    method.loss(batch(A), generator())["loss"].backward()
    assert method.dynamics.state_encoder is not None
    assert method.dynamics.state_encoder.weight.grad is not None
    other = batch(A)
    assert other.states is not None
    other.states[:, 1] += 3.0
    changed, predict_changed = method.sequence(other)
    torch.testing.assert_close(changed, x)
    difference = (predict_changed(x[:, :-1]) - predict(x[:, :-1])).abs().amax((0, 2, 3))
    assert difference[0] < 1e-6 and (difference[1:] > 1e-5).all()


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (Batch(batch().video, None), "VJEPAAC learns from actions, and these clips have none"),
        (batch(), "the predictor takes states 3 wide, the clips have 0"),
        (batch(2), "the predictor takes states 3 wide, the clips have 2"),
    ],
    ids=["no actions", "no states", "other states"],
)
def test_clips_that_lack_something_are_refused(data: Batch, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        ac(3).loss(data, generator())


def test_actions_of_another_width_are_refused() -> None:
    wide = Batch(batch().video, torch.zeros(3, FRAMES - 1, A + 1))
    with pytest.raises(ValueError, match=r"takes actions 2 wide .* found 3"):
        dino().loss(wide, generator())


def test_a_predictor_that_reads_cameras_or_is_not_causal_is_refused() -> None:
    with pytest.raises(ValueError, match="camera_size 0"):
        ac(predictor={"camera_size": 6})
    config = DinoWM.Config.model_validate({"predictor": {"kind": "mlp"}})
    with pytest.raises(ValueError, match=r"dino_wm needs a predictor that reads patches \(.*causal.*\), found mlp"):
        DinoWM(config, backbone(), CLIPS)


HYBRID = {
    "kind": "hybrid",
    "pattern": "M*-M",
    "hidden": 24,
    "heads": 4,
    "mamba_heads": 3,
    "mamba_head_dim": 8,
    "mamba_state": 8,
    "chunk": 8,
}


def test_a_hybrid_learns_patches_from_the_truth_and_its_own_predictions() -> None:
    config = DinoWM.Config.model_validate({"predictor": HYBRID, "rollout_steps": 2})
    torch.manual_seed(1)
    method = DinoWM(config, backbone(), CLIPS).train()
    optimizer = adamw(method, lr=3e-3, weight_decay=0.0, betas=(0.9, 0.999))
    losses = []
    for _ in range(12):
        optimizer.zero_grad()
        terms = method.loss(batch(), generator())
        terms["loss"].backward()
        optimizer.step()
        losses.append(terms["loss"].item())
    assert losses[-1] < 0.95 * losses[0] and terms["rollout"] > 0
    assert all(p.grad is not None and p.grad.any() for p in method.dynamics.parameters())
    config = DinoWM.Config.model_validate({"predictor": HYBRID, "states": STATES})
    with pytest.raises(ValueError, match=r"method.states: .*kind causal reads states, found hybrid"):
        DinoWM(config, backbone(), CLIPS)


def test_an_encoder_that_looks_ahead_cannot_be_frozen_and_others_can() -> None:
    video = VideoViT(VideoViT.Config(patch=16, tubelet=2, width=24, depth=1, heads=2), SIZE, frames=4)
    with pytest.raises(UserError, match=r"changes with later frames.*kind: per_frame"):
        check_freezable(video, SIZE, 2)
    for encoder in (is_image(), backbone(), backbone("test_resnet")):
        modes = [m.training for m in encoder.modules()]
        check_freezable(encoder, SIZE, 1)
        assert [m.training for m in encoder.modules()] == modes


def test_a_copy_of_a_method_is_frozen_too() -> None:
    method = copy.deepcopy(ac()).train()
    assert not any(m.training for m in method.encoder.modules())
    assert not any(p.requires_grad for p in method.encoder.parameters())
