"""CELL/cell.json and OUT/compare.json: models side by side, in numbers."""

from collections.abc import Iterable
from typing import Any, ClassVar, Literal

from pydantic import Field

from jepa.config.result import Number, Part, Result
from jepa_probes.diagnosis.result import CostQuality
from jepa_probes.imagination.result import Score
from jepa_probes.planning.result import Success
from jepa_probes.probing.result import PredictionErrors


class TrainingCost(Result):
    """CELL/training.json: what a training took; of a run that is taken, what it noted itself.

    Attributes:
        cpu_seconds: of all threads and workers, from building the model to its last step.
        peak_memory_mib: of the process; `peak_gpu_memory_mib` of torch on a GPU.
    """

    FILE: ClassVar[str] = "training.json"
    VERB: ClassVar[str] = "compare"
    steps: int
    seconds: float
    cpu_seconds: Number
    peak_memory_mib: Number
    peak_gpu_memory_mib: Number = None


class Sampled(Part):
    """Sampled rollouts, `horizon` latent steps ahead, in units of the error of the last latent (identity).

    Attributes:
        energy: score of the sampled distribution, E|X-y| - E|X-X'|/2; for a point prediction its mean distance.
        best_of: number of samples -> mean squared error of the nearest.
    """

    horizon: int
    energy: Number
    best_of: dict[int, Number]


class Forecast(Part):
    """How well the future of held-out clips is imagined.

    Attributes:
        history: true latents before each rollout.
        errors: of the mean prediction.
        state_r2: horizon -> R² of the state, read off imagined latents by the linear probe of true latents.
        nll: negative log density of the next latent in nats a number, latents standardized: 1.42 is a Gaussian fitted
            to all latents. None without a density.
    """

    history: int = 0
    errors: list[PredictionErrors] = Field(default=[])
    state_r2: dict[int, Number] = Field(default={})
    sampled: list[Sampled] = Field(default=[])
    nll: Number = None


class CellResult(Result):
    """One model with one seed.

    Attributes:
        baseline: which one it is; None for a model.
        encoder: cells of one text share their latents.
        parameters: of the dynamics, 0 without any; `encoder_parameters` of the encoder.
        training: None for baselines that are not trained.
        state_r2: of a linear map from one latent step to states: `all` (the headline of `jepa probe`), `position`,
            `angle`, `velocity`; only those that there are.
        cost: does a low latent cost mean a low true one? plan: success; agents: of others at the same tasks.
        dream: of a controller that learned in the model's dreams; dream_agents: of others.
        frames_per_second: of imagined video. calls_per_step: how often a step runs the network.

    A model without dynamics, whose encoder others share, has only its `state_r2`.
    """

    FILE: ClassVar[str] = "cell.json"
    VERB: ClassVar[str] = "compare"
    model: str
    seed: int
    baseline: str | None
    method: str
    predictor: str
    encoder: str
    parameters: int
    encoder_parameters: int
    training: TrainingCost | None
    state_r2: dict[str, Number]
    forecast: Forecast = Forecast()
    cost: CostQuality | None = None
    plan: Success | None = None
    agents: dict[str, Success] = Field(default={})
    seconds_per_plan: Number = None
    dream: Score | None = None
    dream_agents: dict[str, Score] = Field(default={})
    frames_per_second: Number = None
    calls_per_step: int | None = None
    cpu_seconds: float

    def error(self, horizon: int, other: Literal["model", "shuffled"] = "model") -> float | None:
        """Squared error of what is imagined, over that of the last latent seen; None where it was not measured.

        Args:
            other: "shuffled": with the actions of other clips.
        """
        for errors in self.forecast.errors:
            value = getattr(errors, other)
            if errors.horizon == horizon and value is not None and errors.identity:
                return value / errors.identity
        return None

    def sampled(self, horizon: int) -> Sampled | None:
        """Scores of sampled rollouts; None where they were not measured."""
        return next((scores for scores in self.forecast.sampled if scores.horizon == horizon), None)


class Comparison(Result):
    """All cells that finished.

    Attributes:
        failed: cell -> why.
        verdicts: a sentence for each baseline: what it loses, and what not.
        cpu_seconds: of all trainings and measurements.
    """

    FILE: ClassVar[str] = "compare.json"
    VERB: ClassVar[str] = "compare"
    cells: list[CellResult]
    failed: dict[str, str]
    verdicts: list[str]
    config: dict[str, Any]
    cpu_seconds: float


def by_model(cells: Iterable[CellResult]) -> dict[str, list[CellResult]]:
    """Cells by model, in the order in which they came."""
    groups: dict[str, list[CellResult]] = {}
    for cell in cells:
        groups.setdefault(cell.model, []).append(cell)
    return groups


def cell_name(model: str, seed: int) -> str:
    """Of its folder and in messages."""
    return f"{model}-{seed}"
