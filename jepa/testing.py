"""Does a dynamics model keep the contract of jepa/world_model.py? In the style of Gymnasium's check_env.

from jepa.testing import check_dynamics
check_dynamics(MyDynamics(...), tokens=1, width=64, action_size=4)      # says nothing, or which promise is broken
"""

from collections.abc import Callable
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from jepa.world_model import Dynamics, State, rollout

BATCH = 3
SEEN = 3
HORIZON = 4
# Latents, actions and, for dynamics with states, states -> what follows each latent
Parallel = Callable[..., Float[Tensor, "B S N D"]]


class ContractError(AssertionError):
    """A promise of the contract that a dynamics model does not keep."""


def check_dynamics(
    dynamics: Any,
    *,
    tokens: int,
    width: int,
    action_size: int,
    state_size: int = 0,
    parallel: Parallel | None = None,
    tolerance: float = 1e-5,
    seed: int = 0,
) -> None:
    """Try every promise with random latents and actions, in evaluation mode.

    Args:
        dynamics: an object to be checked against `jepa.world_model.Dynamics`.
        tokens: N of its latents.
        width: D of its latents.
        action_size: A.
        state_size: size of the state given to the dynamics at every observed step; 0: no state.
        parallel: the teacher-forced pass over S latents, each with the action that follows it (and its state), if there
            is one; its prediction s has to equal a step from what was seen up to s.
        tolerance: largest allowed difference of numbers that should be equal, where sums are taken in another order.

    Raises:
        ContractError: naming the first promise that is broken.
    """
    if not isinstance(dynamics, Dynamics):
        raise ContractError(
            f"{type(dynamics).__name__} has no initial_state() and step(); see jepa.world_model.Dynamics"
        )
    training = isinstance(dynamics, nn.Module) and dynamics.training
    if isinstance(dynamics, nn.Module):
        dynamics.eval()
    try:
        _Check(dynamics, tokens, width, action_size, state_size, tolerance, seed).run(parallel)
    finally:
        if training and isinstance(dynamics, nn.Module):
            dynamics.train()


class _Check:
    def __init__(
        self,
        dynamics: Dynamics,
        tokens: int,
        width: int,
        action_size: int,
        state_size: int,
        tolerance: float,
        seed: int,
    ) -> None:
        g = torch.Generator().manual_seed(seed)
        self.dynamics = dynamics
        self.tolerance = tolerance
        self.size = (tokens, width)
        self.z = torch.randn(BATCH, SEEN, tokens, width, generator=g)
        self.past = torch.randn(BATCH, SEEN - 1, action_size, generator=g)
        self.action, self.other = torch.randn(2, BATCH, action_size, generator=g)
        self.plans = torch.randn(BATCH, 2, HORIZON, action_size, generator=g)
        self.noise = torch.randn(BATCH, tokens, width, generator=g)
        self.states = torch.randn(BATCH, SEEN, state_size, generator=g) if state_size else None

    def run(self, parallel: Parallel | None) -> None:
        with torch.no_grad():
            self.shapes()
            self.inputs_unchanged()
            self.rows_are_independent()
            self.repeat_and_gather()
            self.steps_and_rollouts()
            self.is_causal()
            self.noise_decides()
            if parallel is not None:
                self.steps_equal_the_parallel_pass(parallel)
        self.gradients()
        self.wrong_actions()

    def seen(self, count: int = SEEN, rows: int = BATCH) -> State:
        states = None if self.states is None else self.states[:rows, :count].clone()
        return self.dynamics.initial_state(self.z[:rows, :count].clone(), self.past[:rows, : count - 1].clone(), states)

    def mean(self, state: State, action: Tensor) -> Tensor:
        return self.dynamics.step(state, action)[1].mean()

    def shapes(self) -> None:
        for count in (1, SEEN):
            latent = self.mean(self.seen(count), self.action)
            expected = (BATCH, *self.size)
            _promise(latent.shape == expected, f"a next latent has shape {expected}, found {tuple(latent.shape)}")
            _promise(bool(latent.isfinite().all()), "a next latent is finite")
        size = self.seen().nbytes()
        _promise(isinstance(size, int) and size > 0, f"nbytes() of a state is a positive int, found {size!r}")

    def inputs_unchanged(self) -> None:
        inputs = (self.z, self.past, self.action)
        z, past, action = copies = [x.clone() for x in inputs]
        state = self.dynamics.initial_state(z, past, self.states)
        first = self.mean(state, action)
        later, _ = self.dynamics.step(state, self.other)
        self.dynamics.step(later, self.other)
        _promise(torch.equal(self.mean(state, action), first), "step() leaves the state as it was")
        _promise(all(map(torch.equal, copies, inputs)), "initial_state() and step() leave their inputs as they were")

    def rows_are_independent(self) -> None:
        alone = self.mean(self.seen(rows=1), self.action[:1])
        self.equal(self.mean(self.seen(), self.action)[:1], alone, "a row is predicted as if alone")

    def repeat_and_gather(self) -> None:
        state, _ = self.dynamics.step(self.seen(), self.other)
        expected = self.mean(state, self.action)
        often = self.mean(state.repeat(2), self.action.repeat_interleave(2, 0))
        self.equal(often, expected.repeat_interleave(2, 0), "repeat(k) puts every row k times in a row")
        index = torch.tensor([2, 0, 2])
        gathered = self.mean(state.gather(index), self.action[index])
        self.equal(gathered, expected[index], "gather(index) takes these rows, repeats allowed")
        _promise(torch.equal(self.mean(state.detach(), self.action), expected), "detach() keeps the values")

    def steps_and_rollouts(self) -> None:
        imagined = rollout(self.dynamics, self.seen(), self.plans)
        state = self.seen()
        for h in range(HORIZON):
            state, next_latent = self.dynamics.step(state, self.plans[:, 1, h])
            self.equal(imagined[:, 1, h], next_latent.mean(), "a rollout equals single steps")

    def is_causal(self) -> None:
        changed = self.plans.clone()
        changed[:, :, 2:] += 1.0
        before = rollout(self.dynamics, self.seen(), self.plans)
        after = rollout(self.dynamics, self.seen(), changed)
        self.equal(before[:, :, :2], after[:, :, :2], "an action does not reach the latents before it")
        _promise(not torch.equal(before[:, :, 2:], after[:, :, 2:]), "an action reaches the latents after it")

    def noise_decides(self) -> None:
        pairs = [self.dynamics.step(self.seen(), self.action, self.noise)[1] for _ in range(2)]
        samples = [next_latent.sample(self.noise) for next_latent in pairs]
        _promise(torch.equal(*samples), "the same noise gives the same sample")
        _promise(samples[0].shape == (BATCH, *self.size), "a sample has the shape of a latent")
        _promise(
            torch.equal(pairs[0].sample(self.noise, 1.0), samples[0]), "a sample's temperature is 1 if none is said"
        )
        warm = [self.dynamics.step(self.seen(), self.action, self.noise, 2.0)[0] for _ in range(2)]
        later = [self.mean(state, self.other) for state in warm]
        _promise(torch.equal(*later), "step(state, action, noise, temperature) goes on from what the noise draws")
        density = pairs[0].log_prob(samples[0])
        _promise(density is None or density.shape == (BATCH,), "log_prob() is None or one number a row")

    def steps_equal_the_parallel_pass(self, parallel: Parallel) -> None:
        actions = torch.cat((self.past, self.action[:, None]), 1)
        whole = parallel(self.z, actions) if self.states is None else parallel(self.z, actions, self.states)
        for count in range(1, SEEN + 1):
            latent = self.mean(self.seen(count), actions[:, count - 1])
            self.equal(latent, whole[:, count - 1], "a step equals the teacher-forced parallel pass")

    def gradients(self) -> None:
        plans = self.plans.clone().requires_grad_()
        with torch.enable_grad():
            rollout(self.dynamics, self.seen(), plans)[:, :, -1].square().sum().backward(inputs=[plans])
        gradient = plans.grad
        _promise(gradient is not None, "gradients reach the actions")
        assert gradient is not None
        _promise(bool(gradient.isfinite().all()), "gradients of actions are finite")
        _promise(bool((gradient.abs().sum(-1) > 0).all()), "every action of a plan has a gradient")
        _promise(not self.mean(self.seen().detach(), self.action.detach()).isnan().any(), "detached states go on")

    def wrong_actions(self) -> None:
        try:
            self.mean(self.seen(), torch.zeros(BATCH, self.action.shape[-1] + 1))
        except (ValueError, TypeError):  # TypeError: what checks of annotated shapes raise
            return
        raise ContractError("an action of another width is refused by a ValueError")

    def equal(self, output: Tensor, expected: Tensor, promise: str) -> None:
        apart = (output - expected).abs().max().item()
        _promise(apart <= self.tolerance, f"{promise}; they are up to {apart:.1e} apart")


def _promise(kept: bool, what: str) -> None:
    if not kept:
        raise ContractError(f"expected: {what}")
