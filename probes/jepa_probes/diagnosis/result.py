"""RUN/diagnosis.json: what binds, and the numbers that say so."""

from typing import Any, ClassVar

from jepa.config.result import Number, Part, Result
from jepa_probes.planning.result import Success
from jepa_probes.planning.tasks import Protocol


class Rung(Success):
    """The tasks with a link of the agent replaced.

    Attributes:
        cpu_seconds_per_plan: of all threads, encoding included; None of agents that do not plan.
        plans_imagined: candidates for each plan; None where none are.
        gained, lost: tasks that are solved here and not as configured, and the other way round.
        p_value: McNemar's exact test, two-sided.
    """

    cpu_seconds_per_plan: Number = None
    plans_imagined: int | None = None
    gained: int = 0
    lost: int = 0
    p_value: float = 1.0


class ReadOut(Part):
    """R² of a quantity on held-out episodes, read off one latent step; None where nothing varies."""

    linear: Number
    mlp: Number


class OpenLoop(Part):
    """Root mean square errors of a quantity so many latent steps ahead, in its own unit.

    Attributes:
        imagined: read off imagined latents.
        still: of the claim that nothing moves.
        read: read off the latents that the encoder makes of the truth: the error of the reading itself.
        on_states: of the dynamics that were learned on true states.
    """

    quantity: str
    unit: str
    horizon: int
    imagined: Number
    still: Number
    read: Number
    on_states: Number


class CostQuality(Part):
    """Does a low latent cost mean a low true one? Means over starts.

    Attributes:
        spread: coefficient of variation of the latent costs of random plans; `true_spread` of their true costs.
        recorded_rank: share of the random plans that cost less than what was done on the way to the goal, in latents;
            of those that cost the same, half.
        correlation: Spearman's, of latent and true cost; None where the world makes no copies.
    """

    starts: int
    candidates: int
    spread: Number
    true_spread: Number = None
    recorded_rank: Number
    correlation: Number = None


class Exploitation(Part):
    """Shares of latents that lie farther from all recorded ones than 99 % of held-out recorded latents do.

    Attributes:
        plans: of the steps that the plans made lead to, in imagination.
        recorded_actions: the same of recorded actions: what the model's own error makes of it.
        distance: that 99th percentile.
    """

    plans: Number
    recorded_actions: Number
    distance: Number


class Diagnosis(Result):
    """What binds a planning agent.

    Attributes:
        weakest: the link that binds: replanning, refinement, search, goal, metric, encoder, dynamics, data, model,
            tasks, or none.
        verdict: the same in words, and what to try.
        ladder: by substitution, see ladder.py. `left_out` says why others are not there.
        kinds: of quantities: position, velocity, angle or other.
        goal_quantities: those of the goal, and of the body that has to get there.
        readout: quantity -> encoder -> R².
    """

    FILE: ClassVar[str] = "diagnosis.json"
    VERB: ClassVar[str] = "diagnose"
    weakest: str
    verdict: str
    ladder: dict[str, Rung]
    left_out: dict[str, str]
    kinds: dict[str, str]
    goal_quantities: tuple[str, ...]
    readout: dict[str, dict[str, ReadOut]]
    open_loop: list[OpenLoop]
    cost: CostQuality
    exploitation: Exploitation
    protocol: Protocol
    config: dict[str, Any]
    seconds: float
    cpu_seconds: float
