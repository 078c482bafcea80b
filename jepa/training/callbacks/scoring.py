"""What `pretrain` asks of a callback that scores the encoder while it is trained, such as the online probe."""

import lightning as L


class ScoringCallback(L.Callback):
    """Scores the encoder now and then.

    Attributes:
        scores: the last ones, by name.
        seconds: spent so far.
    """

    def __init__(self) -> None:
        self.scores: dict[str, float] = {}
        self.seconds = 0.0
