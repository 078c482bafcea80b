"""OUT/compression.json: what reductions of tokens take and what they lose."""

from typing import ClassVar

from jepa.config.result import Number, Part, Result

ORIGINAL = "original"


class Latents(Part):
    """The latents of an encoder with or without reductions.

    Attributes:
        tokens, width, numbers: of a latent step.
        bytes_per_frame: of `jepa data tokenize` in bf16, which stores a latent step for each frame.
        variance_kept: share of the variance of the original latents that is left, on held-out clips.
        fit_seconds: spent on fitting the reductions, without encoding.
        folder: of the model, from OUT; None if it was not written.
    """

    tokens: int
    width: int
    numbers: int
    bytes_per_frame: int
    variance_kept: Number
    fit_seconds: float
    folder: str | None


class CompressionResult(Result):
    """Sizes and probe scores of an encoder's latents, and of their reductions.

    Attributes:
        model, encoder_sha256: the encoder, and of its tensors.
        latents: by column: `original`, and the reductions as they were asked for.
        scores: row -> column -> score, as in probe.json, with `floor`; None where there are too few samples.
        episodes, clips: by split.
    """

    FILE: ClassVar[str] = "compression.json"
    VERB: ClassVar[str] = "compress"
    model: str
    encoder_sha256: str
    shards: str
    seed: int
    latents: dict[str, Latents]
    scores: dict[str, dict[str, Number]]
    episodes: dict[str, int]
    clips: dict[str, int]
    seconds: float

    def loss(self, row: str, column: str) -> float | None:
        """By how much a score is below that of the original latents; None where one of both is missing."""
        before, after = self.scores[row][ORIGINAL], self.scores[row][column]
        return None if before is None or after is None else before - after
