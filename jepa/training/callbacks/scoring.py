"""What `pretrain` asks of a callback that scores the encoder while it is trained, such as the online probe."""

import lightning as L


class ScoringCallback(L.Callback):
    """A callback whose last scores are written to `pretrain.json`.

    Attributes:
        scores: the last ones, by name.
        seconds: spent on scoring so far.
    """

    def __init__(self) -> None:
        self.scores: dict[str, float] = {}
        self.seconds = 0.0
