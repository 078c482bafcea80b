"""`make bench`: one CEM call, 300 samples x 30 iterations x horizon 5, against the way it is straightforward to write.

                 ours                                              straightforward, as reference systems have it
    images     encoded once, before the search                   encoded anew in every iteration, for every candidate
    each step    reads the keys and values that are kept           runs the whole sequence so far again
    episodes     all at once                                       one after the other

Both draw the same candidates and return the same plan. An iteration costs as much as any other, so some are timed and
stand for 30; the loop over episodes is timed on one of them.
"""

import time
from collections.abc import Callable
from dataclasses import dataclass

import pytest
import torch
from torch import Tensor, nn

from jepa.encoders.frame import FrameEncoder
from jepa.planners.cem import CEM
from jepa.planners.cost import goal_distance
from jepa.predictors.causal import CausalPredictor
from jepa.predictors.gru import GRUPredictor

SAMPLES, ELITES, ITERATIONS, HORIZON, HISTORY, ACTION = 300, 30, 30, 5, 3, 10
TIMED = {1: 3, 8: 1, 50: 1}  # iterations of ours that are timed, by the number of episodes
Compare = Callable[..., float]
SETTINGS = CEM.Config(samples=SAMPLES, elites=ELITES)


@dataclass
class Model:
    """An encoder and its dynamics; `whole` reads a sequence from its start and gives the latent after it."""

    encoder: nn.Module
    dynamics: CausalPredictor | GRUPredictor
    size: int

    def whole(self, z: Tensor, actions: Tensor) -> Tensor:
        if isinstance(self.dynamics, CausalPredictor):
            return self.dynamics(z, actions)[:, -1:]
        for step in range(HISTORY - 1, actions.shape[1]):  # a latent that is seen is read as it is
            z = torch.cat([z[:, : step + 1], self.dynamics(z[:, step], actions[:, step])[:, None]], 1)
        return z[:, -1:]

    @torch.no_grad()
    def plan(self, images: Tensor, seen: Tensor, goal: Tensor, iterations: int) -> Tensor:
        """Ours."""
        state = self.dynamics.initial_state(self.encoder(images), seen)
        cost = goal_distance(self.dynamics, state, self.encoder(goal)[:, 0], running_cost_weight=0.0)
        planner = CEM(SETTINGS.model_copy(update={"iterations": iterations}))
        start = images.new_zeros(len(images), HORIZON, ACTION)
        return planner.plan(cost, start, torch.Generator().manual_seed(0)).actions

    @torch.no_grad()
    def straightforward(
        self, images: Tensor, seen: Tensor, goal: Tensor, iterations: int, every_candidate: bool
    ) -> Tensor:
        """One episode."""
        generator = torch.Generator().manual_seed(0)
        mean, std = torch.zeros(1, HORIZON, ACTION), torch.full((1, HORIZON, ACTION), SETTINGS.std)
        best, found = torch.inf, mean
        for _ in range(iterations):
            noise = torch.randn(1, SAMPLES, HORIZON, ACTION, generator=generator)
            actions = (mean[:, None] + std[:, None] * noise).clamp(-1, 1)[0]
            actions[0] = mean[0]
            clips = images.expand(SAMPLES if every_candidate else 1, -1, -1, -1, -1)
            z = torch.cat([self.encoder(part) for part in clips.split(25)]).expand(SAMPLES, -1, -1, -1)
            taken = torch.cat([seen.expand(SAMPLES, -1, -1), actions], 1)
            for step in range(HISTORY, HISTORY + HORIZON):
                z = torch.cat([z, self.whole(z, taken[:, :step])], 1)
            costs = (z[:, -1] - self.encoder(goal)[:, 0]).square().mean((-2, -1))
            if costs.min() < best:
                best, found = costs.min(), actions[costs.argmin()][None]
            elites = actions[costs.topk(ELITES, largest=False).indices][None]
            mean, std = elites.mean(1), elites.std(1).clamp_min(SETTINGS.min_std)
        return found


def lewm_like(size: int = 224) -> Model:
    """LeWM's sizes: a ViT-tiny reads images of 224 px, a causal transformer of 6 layers predicts; 15 M in all."""
    encoder = FrameEncoder(FrameEncoder.Config(model="vit_tiny_patch16_224", output="pooled"), size, 4)
    return Model(
        encoder, CausalPredictor(CausalPredictor.Config(hidden=352, depth=6, heads=11), encoder.width, ACTION), size
    )


def gru_like() -> Model:
    """EB-JEPA's sizes: a small residual network reads images of 64 px, a GRU of 512 units predicts."""
    encoder = FrameEncoder(FrameEncoder.Config(model="resnet18", output="pooled"), 64, 4)
    return Model(encoder, GRUPredictor(GRUPredictor.Config(), encoder.width, ACTION), 64)


MODELS = {"lewm": lewm_like, "gru": gru_like}


@pytest.fixture(scope="module", params=MODELS)
def model(request: pytest.FixtureRequest) -> Model:
    torch.manual_seed(0)
    made = MODELS[request.param]()
    made.encoder.eval(), made.dynamics.eval()
    if request.param == "lewm":
        count = sum(p.numel() for part in (made.encoder, made.dynamics) for p in part.parameters())
        assert 14e6 < count < 16e6
    return made


def episodes(model: Model, count: int) -> tuple[Tensor, Tensor, Tensor]:
    generator = torch.Generator().manual_seed(1)
    images = torch.randn(count, HISTORY, 3, model.size, model.size, generator=generator)
    seen = torch.rand(count, HISTORY - 1, ACTION, generator=generator) * 2 - 1
    return images, seen, torch.randn(count, 1, 3, model.size, model.size, generator=generator)


def test_both_return_the_same_plan(model: Model) -> None:
    task = episodes(model, 1)
    torch.testing.assert_close(
        model.plan(*task, iterations=3), model.straightforward(*task, 3, False), atol=1e-4, rtol=0
    )


@pytest.mark.parametrize("count", TIMED)
@pytest.mark.parametrize("every_candidate", [True, False], ids=["every_candidate", "once"])
def test_one_cem_call(model: Model, count: int, every_candidate: bool, compare: Compare, request) -> None:
    name = request.node.callspec.params["model"]
    task, iterations = episodes(model, count), TIMED[count]
    one = tuple(part[:1] for part in task)

    def ours() -> None:
        began = time.perf_counter()
        model.plan(*task, iterations=iterations)
        ours.seconds = (time.perf_counter() - began) * ITERATIONS / iterations  # pyright: ignore

    def straightforward() -> None:
        began = time.perf_counter()
        model.straightforward(*one, 1, every_candidate)
        straightforward.seconds = (time.perf_counter() - began) * ITERATIONS * count  # pyright: ignore

    times = compare(
        f"plan_{name}_{count}" + ("" if every_candidate else "_encoded_once"),
        ours,
        straightforward,
        f"CEM {SAMPLES} x {ITERATIONS} x {HORIZON} for {count} episode(s), {name}, against a loop over episodes, no "
        f"cache, that encodes {'every candidate' if every_candidate else 'once'} in every iteration",
        rounds=2,
    )
    if every_candidate:
        assert times > 5
