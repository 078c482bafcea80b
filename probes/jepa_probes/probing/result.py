"""FOLDER/probe.json: what frozen latents know, beside the baselines."""

from typing import Any, ClassVar

from jepa.config.result import Number, Part, Result

Table = dict[str, dict[str, Number]]  # row -> column -> score


class PredictionErrors(Part):
    """Mean squared errors per latent number, `horizon` latent steps ahead; `samples` pairs (clip, start)."""

    horizon: int
    model: Number
    identity: Number
    shuffled: Number
    samples: int


class ProbeResult(Result):
    """Scores of all probes on all representations.

    Attributes:
        scores: None where there are too few samples.
        prediction: by latent steps ahead; empty without dynamics.
        episodes, clips: by split.
        dropped: samples that were scored and left out, see `ProbeTable.counts`.
        chosen: by column, what was chosen on held-out training episodes.
    """

    FILE: ClassVar[str] = "probe.json"
    VERB: ClassVar[str] = "probe"
    seed: int
    scores: Table
    prediction: dict[str, PredictionErrors]
    episodes: dict[str, int]
    clips: dict[str, int]
    dropped: dict[str, Any]
    chosen: dict[str, dict[str, Any]]
    seconds: float
