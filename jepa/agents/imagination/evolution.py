"""A linear controller found by CMA-ES in dreams: the C of World Models (Ha & Schmidhuber 2018).

    repeat   P candidates ~ N(m, sigma² C)      the same R starts and goals for all of them, others every generation
             some mirrored: m - x for m + x     antithetic samples: less noise in the update of m
             P * R dreams in one batch          fitness: their mean return
             CMA-ES moves m, sigma, C           by pycma (Hansen)
    keep     the best candidate or m            if better than the best so far on a fixed set of dreams

Needs the package cma: pip install 'openjepa[dream]'.
"""

import logging
from typing import Any, Literal

import numpy as np
import torch
from jaxtyping import Float
from pydantic import Field
from torch import Tensor

from jepa.agents.controller import Linear
from jepa.agents.imagination.learner import History, Learner
from jepa.config import Component, UserError
from jepa.config.fields import Count, Positive

logger = logging.getLogger(__name__)

MAX_PARAMETERS = 5000  # the covariance has the square of them


class Evolution(Learner):
    """A linear controller, optimized by CMA-ES; population and rollouts as in World Models.

    Raises:
        ValueError: there are too many weights for a covariance matrix.
    """

    class Config(Component):
        """A linear controller, optimized by CMA-ES in imagined rollouts."""

        kind: Literal["evolution"] = "evolution"
        generations: Count = Field(default=300, description="maximum number of CMA-ES generations")
        population: int = Field(default=64, ge=4, description="candidates per generation")
        rollouts: Count = Field(
            default=16, description="dreams per candidate, with the same starts for all candidates of a generation"
        )
        horizon: Count = Field(default=15, description="latent steps of a dream")
        std: Positive = Field(
            default=0.1, description="initial step size, in units of the weights of standardized features"
        )
        checks: Count = Field(default=256, description="dreams by which the best is kept")
        diagonal: bool = Field(
            default=False,
            description="adapt only the variance of each weight (separable CMA-ES): as good in few generations, and "
            "faster with hundreds of weights",
        )
        mirrored: float = Field(
            default=0.0,
            ge=0,
            le=0.5,
            description="share of mirrored candidates; at most a quarter works best",
        )

    build = Linear

    def _build(self) -> None:
        self.network = {}
        self.controller = Linear(self.normalizer, self.space)
        if self.controller.parameter_count > MAX_PARAMETERS:
            raise ValueError(
                f"a linear controller of these latents has {self.controller.parameter_count} weights, too many for "
                f"CMA-ES ({MAX_PARAMETERS} at most); use an actor-critic, or a model with one token"
            )

    @torch.no_grad()
    def train(self) -> tuple[Linear, History]:
        """Returns the best controller, and the mean return of the best so far, before and after each generation.

        Raises:
            UserError: cma is not installed.
        """
        config = self.config
        generator = torch.Generator().manual_seed(self.seed)
        checks = self.recorded.draw(config.checks, generator, self.goals)
        search = _cma(self.controller.parameter_count, config, self.seed)
        best = torch.zeros(self.controller.parameter_count)
        history = [(0, self._returns(best[None], *checks, 0).item())]
        for number in range(1, config.generations + 1):
            asked = search.ask()
            candidates = torch.from_numpy(np.stack(asked)).float()
            fitness = self._returns(candidates, *self.recorded.draw(config.rollouts, generator, self.goals), number)
            search.tell(asked, (-fitness).double().tolist())
            contenders = torch.stack([candidates[fitness.argmax()], torch.from_numpy(search.mean).float()])
            scores = self._returns(contenders, *checks, 0)
            if scores.max() > history[-1][1]:
                best = contenders[scores.argmax()]
            history.append((number, max(history[-1][1], scores.max().item())))
            if number % max(1, config.generations // 20) == 0:
                logger.info(f"generation {number}/{config.generations}  return in the dream {history[-1][1]:.3f}")
            if search.stop().keys() & {"tolx", "conditioncov"}:
                break
        self.controller.set(best)
        return self.controller, history

    def _returns(
        self,
        candidates: Float[Tensor, "P W"],
        start: Float[Tensor, "R N D"],
        goal: Float[Tensor, "R N D"],
        noise_seed: int,
    ) -> Float[Tensor, " P"]:
        """The mean return of R dreams for each of P candidates, in one batch."""
        count = len(candidates)
        dreamt = self.dream.run(
            lambda z, goal: self.controller.act_all(candidates, z, goal),
            start.repeat(count, 1, 1),
            goal.repeat(count, 1, 1),
            self.horizon,
            torch.Generator().manual_seed(noise_seed),
        )
        return dreamt.expected_rewards.sum(1).view(count, len(start)).mean(1)


def _cma(size: int, config: Evolution.Config, seed: int) -> Any:
    try:
        import cma
    except ImportError:
        raise UserError("evolution needs the package cma: pip install 'openjepa[dream]'") from None
    # With numbers of our own: given a seed, pycma would seed numpy's for the whole process.
    options = {
        "popsize": config.population,
        "randn": lambda *shape: rng.standard_normal(shape),
        "seed": float("nan"),
        "verbose": -9,
        # Below 0.5 a share, above 1 a number; unconditional mirrors, not only of the worst.
        "CMA_mirrors": config.mirrored if config.mirrored < 0.5 else config.population // 2,
        "CMA_mirrormethod": 0,
        "CMA_diagonal": config.diagonal,
    }
    rng = np.random.default_rng(seed)
    return cma.CMAEvolutionStrategy(np.zeros(size), config.std, options)
