"""OUT.json, beside the video of `jepa imagine`: how far imagination and truth are apart."""

from pathlib import Path
from typing import Any, ClassVar

from jepa.config.result import Number, Part, Result


class StepError(Part):
    """One imagined step.

    Attributes:
        seconds: after the last frame seen.
        latent: squared error of the imagined latent over that of the last one seen, mean over the samples; 1 is as bad
            as standing still, None where the true latent does not move.
        pixels: root mean squared error of imagined frames in gray levels, 0..255; `decoded`: the same of the decoded
            true latent, the decoder's own part.
    """

    seconds: float
    latent: Number
    pixels: Number
    decoded: Number


class ImagineResult(Result):
    """What was imagined, and from what.

    Attributes:
        start: where the first frames are from.
        actions: where the actions are from.
        errors: of each imagined step; empty where the truth is not known.
        decoder: kind.
        frames_per_second: imagined and decoded.
    """

    FILE: ClassVar[str] = "imagine.json"
    VERB: ClassVar[str] = "imagine"
    run: str
    start: str
    actions: str
    seen: int
    steps: int
    step_seconds: float
    samples: int
    sampled: bool
    temperature: float
    errors: list[StepError]
    decoder: str
    frames_per_second: float
    settings: dict[str, Any]

    @staticmethod
    def beside(video: Path) -> Path:
        """Where the result of a video is written."""
        return video.with_suffix(".json")
