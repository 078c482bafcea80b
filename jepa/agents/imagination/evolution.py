"""A linear controller found by CMA-ES in dreams: the C of World Models (Ha & Schmidhuber 2018).

    repeat   P candidates ~ N(m, sigma² C)      the same R starts and goals for all of them, others every generation
             some mirrored: m - x for m + x     what one side gains the other loses: less noise in where m goes
             P * R dreams in one batch          fitness: their mean return
             CMA-ES moves m, sigma, C           by pycma (Hansen)
    keep     of the best candidate and of m     whichever is better than the best so far on dreams that never change

Needs the package cma: pip install 'openjepa[dream]'.
"""

import logging
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from jepa.agents.controller import ActionSpace, ActorInputs, Linear, ObservationNormalizer
from jepa.agents.imagination.dream import Dream, Goals, Recorded
from jepa.config import UserError

logger = logging.getLogger(__name__)

CHECKS = 256  # dreams by which the best is kept
MAX_PARAMETERS = 5000  # the covariance has the square of them


@dataclass(frozen=True)
class EvolutionSettings:
    """How it is searched; population and rollouts as in World Models.

    Attributes:
        generations: of CMA-ES; fewer if it has converged.
        population: P, candidates of a generation.
        rollouts: R, dreams of each candidate.
        horizon: H, latent steps of a dream.
        std: of the first generation, in units of the weights of standardized features.
        mirrored: share of the candidates that mirror another one at the mean (antithetic sampling); at most half, and
            pycma advises against more than a quarter, where the search becomes biased.
        goals: of other episodes too ("any"), or of the start's own.
        actor_inputs: what the controller sees.
    """

    generations: int = 300
    population: int = 64
    rollouts: int = 16
    horizon: int = 15
    std: float = 0.1
    mirrored: float = 0.0
    goals: Goals = "episode"
    actor_inputs: ActorInputs = "goal"

    def __post_init__(self) -> None:
        if self.population < 4:
            raise ValueError(f"CMA-ES needs a population of at least 4, found {self.population}")
        if not 0 <= self.mirrored <= 0.5:
            raise ValueError(f"at most half of the candidates can be mirrored (0 to 0.5), found {self.mirrored:g}")


@torch.no_grad()
def evolve(
    dream: Dream,
    recorded: Recorded,
    space: ActionSpace,
    settings: EvolutionSettings | None = None,
    seed: int = 0,
) -> tuple[Linear, list[tuple[int, float]]]:
    """The best controller that was found, and the mean return of the best so far, before and after each generation:
    (generations done, return).

    Args:
        dream: where it is searched.
        recorded: where dreams start, and their goals.
        space: of the actions.
        settings: see there.
        seed: of starts, goals and candidates.

    Raises:
        UserError: cma is not installed.
        ValueError: there are too many weights for a covariance matrix.
    """
    s = settings or EvolutionSettings()
    senses = ObservationNormalizer(recorded.z.shape[1], recorded.z.shape[2], s.actor_inputs)
    senses.fit(recorded.z)
    controller = Linear(senses, space)
    if controller.parameter_count > MAX_PARAMETERS:
        raise ValueError(
            f"a linear controller of these latents has {controller.parameter_count} weights, too many for CMA-ES "
            f"({MAX_PARAMETERS} at most); use an actor-critic, or a model with one token"
        )
    generator = torch.Generator().manual_seed(seed)
    checks = recorded.draw(CHECKS, generator, s.goals)

    def returns(candidates: Float[Tensor, "P W"], start: Tensor, goal: Tensor, noise_seed: int) -> Float[Tensor, " P"]:
        return _returns(dream, controller, candidates, start, goal, s.horizon, noise_seed)

    search = _cma(controller.parameter_count, s, seed)
    best = torch.zeros(controller.parameter_count)
    history = [(0, returns(best[None], *checks, 0).item())]
    for number in range(1, s.generations + 1):
        asked = search.ask()
        candidates = torch.from_numpy(np.stack(asked)).float()
        fitness = returns(candidates, *recorded.draw(s.rollouts, generator, s.goals), number)
        search.tell(asked, (-fitness).double().tolist())
        contenders = torch.stack([candidates[fitness.argmax()], torch.from_numpy(search.mean).float()])
        scores = returns(contenders, *checks, 0)
        if scores.max() > history[-1][1]:
            best = contenders[scores.argmax()]
        history.append((number, max(history[-1][1], scores.max().item())))
        if number % max(1, s.generations // 20) == 0:
            logger.info(f"generation {number}/{s.generations}  return in the dream {history[-1][1]:.3f}")
        if search.stop().keys() & {"tolx", "conditioncov"}:
            break
    controller.set(best)
    return controller, history


def _returns(
    dream: Dream,
    controller: Linear,
    candidates: Float[Tensor, "P W"],
    start: Float[Tensor, "R N D"],
    goal: Float[Tensor, "R N D"],
    steps: int,
    noise_seed: int,
) -> Float[Tensor, " P"]:
    """What R dreams are worth to each of P candidates, on average: all in one batch."""
    count = len(candidates)
    dreamt = dream.run(
        lambda z, goal: controller.act_all(candidates, z, goal),
        start.repeat(count, 1, 1),
        goal.repeat(count, 1, 1),
        steps,
        torch.Generator().manual_seed(noise_seed),
    )
    return dreamt.worth.sum(1).view(count, len(start)).mean(1)


def _cma(size: int, settings: EvolutionSettings, seed: int) -> Any:
    try:
        import cma
    except ImportError:
        raise UserError("evolution needs the package cma: pip install 'openjepa[dream]'") from None
    # With numbers of our own: given a seed, pycma would seed numpy's for the whole process.
    options = {
        "popsize": settings.population,
        "randn": lambda *shape: rng.standard_normal(shape),
        "seed": float("nan"),
        "verbose": -9,
        # Below 0.5 a share, above 1 a number; unconditional mirrors, not only of the worst.
        "CMA_mirrors": settings.mirrored if settings.mirrored < 0.5 else settings.population // 2,
        "CMA_mirrormethod": 0,
    }
    rng = np.random.default_rng(seed)
    return cma.CMAEvolutionStrategy(np.zeros(size), settings.std, options)
