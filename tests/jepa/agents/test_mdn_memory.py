"""Controllers that read an LSTM beside the latent: the same [z, h, c] in recordings, in dreams and in the world."""

import pytest
import torch
from torch import Tensor

from jepa.agents.controller import ActionSpace, Linear, ObservationNormalizer
from jepa.agents.imagination.dream import Dream
from jepa.agents.imagination.mdn_memory import Memory
from jepa.predictors.mdn_rnn import MDNRNN
from jepa.predictors.mlp import MLPPredictor
from jepa.testing import check_dynamics

pytestmark = pytest.mark.usefixtures("one_thread")
WIDTH, HIDDEN, ACTION = 6, 8, 2
SIZE = WIDTH + 2 * HIDDEN


def dynamics() -> MDNRNN:
    torch.manual_seed(0)
    return MDNRNN(MDNRNN.Config(hidden=HIDDEN, normalize_actions=False), WIDTH, ACTION).eval()


def memory() -> Memory:
    return Memory(dynamics(), 1, WIDTH)


def episodes() -> tuple[Tensor, Tensor, Tensor]:
    """Latents, the actions that led there, and the episode of each: of 3, 1 and 5 moments."""
    g = torch.Generator().manual_seed(0)
    return (
        torch.randn(9, 1, WIDTH, generator=g),
        torch.randn(9, ACTION, generator=g),
        torch.tensor([7] * 3 + [2] + [4] * 5),
    )


@torch.no_grad()
def test_recorded_memory_is_that_of_the_whole_past_and_of_no_other_episode() -> None:
    z, actions, episode = episodes()
    beliefs = memory().along(z, actions, episode)
    for moment, first in ((2, 0), (3, 3), (8, 4)):
        past = slice(first, moment + 1)
        state = dynamics().initial_state(z[None, past], actions[None, first + 1 : moment + 1])
        expected = torch.cat((z[moment].flatten(), state.hidden[0], state.cell[0]))
        torch.testing.assert_close(beliefs[moment, 0], expected, atol=1e-5, rtol=1e-5)
    assert (beliefs[[0, 3, 4], 0, WIDTH:] == 0).all()


@torch.no_grad()
def test_what_is_seen_while_acting_is_what_was_recorded() -> None:
    z, actions, episode = episodes()
    beliefs = memory().along(z, actions, episode)
    belief = None
    for t in range(4, 9):
        belief = memory().observed(belief, actions[t : t + 1], z[t : t + 1])
    assert belief is not None
    torch.testing.assert_close(belief[0], beliefs[8], atol=1e-5, rtol=1e-5)


@torch.no_grad()
@pytest.mark.parametrize("temperature", [0.2, 1.0, 1.3])
def test_a_dream_with_memory_is_the_mdn_rnns(temperature: float) -> None:
    z, actions, episode = episodes()
    start = memory().along(z, actions, episode)[[2, 8]]
    noise = torch.randn(2, 1, SIZE)
    state, following = memory().step(
        memory().initial_state(start[:, None], actions[:0][None].repeat(2, 1, 1)), actions[:2], noise, temperature
    )
    for row, (moment, first) in enumerate(((2, 0), (8, 4))):
        seen = dynamics().initial_state(z[None, first : moment + 1], actions[None, first + 1 : moment + 1])
        _, mixture = dynamics().step(seen, actions[row : row + 1])
        drawn = mixture.sample(noise[row : row + 1, :, :WIDTH], temperature)
        torch.testing.assert_close(following.mean()[row, 0, :WIDTH], drawn[0, 0], atol=1e-5, rtol=1e-5)
    assert torch.equal(following.mean()[:, 0, WIDTH : WIDTH + HIDDEN], state.hidden)


def test_it_keeps_the_contract_of_dynamics() -> None:
    check_dynamics(memory(), tokens=1, width=SIZE, action_size=ACTION)


def test_a_dream_draws_from_the_mixture() -> None:
    z, actions, episode = episodes()
    dream = Dream(memory(), ACTION, lambda z, goal: z[:, 0, 0], temperature=1.0)
    with torch.no_grad():
        assert dream.varies(memory().along(z, actions, episode))


@pytest.mark.parametrize(("latent", "hidden", "actions", "weights"), [(32, 256, 3, 864), (64, 1024, 1, 1088)])
def test_the_linear_controller_has_the_papers_weights(latent: int, hidden: int, actions: int, weights: int) -> None:
    """CarRacing: [z, h], three actions with a bias, 867 in all. Doom: [z, h, c], one action; ours also has its bias."""
    controller = Linear(ObservationNormalizer(1, latent + hidden, "memory"), ActionSpace(actions))
    assert controller.weight.numel() == weights
    assert controller.parameter_count == weights + actions


def test_other_dynamics_are_refused() -> None:
    with pytest.raises(ValueError, match=r"memory: .* expected dynamics of kind mdn_rnn"):
        Memory(MLPPredictor(MLPPredictor.Config(), WIDTH, ACTION), 1, WIDTH)
