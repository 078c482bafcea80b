"""What `pretrain` asks of a callback that scores the encoder while it is trained, whoever wrote it."""

import lightning as L


class ScoringCallback(L.Callback):
    """Scores the encoder now and then.

    Attributes:
        scores: the last ones, by name.
        seconds: spent so far.
    """

    scores: dict[str, float]
    seconds: float
