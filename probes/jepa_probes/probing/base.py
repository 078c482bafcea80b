"""What a probe of labels is: made from its `Config`, it learns the classes of training clips from frozen latents.

Shapes: n training clips, m clips to classify, of S latent steps with N tokens of width D. Latents are fp32 on the CPU.
"""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Any

from jaxtyping import Float, Int
from torch import Tensor

from jepa.config import Component


class FittedProbe(ABC):
    """Classifies clips."""

    @abstractmethod
    def __call__(self, latents: Float[Tensor, "m S N D"]) -> Int[Tensor, " m"]:
        """The class of each clip: 0 .. classes-1 of what it was fitted on."""

    @property
    def chosen(self) -> dict[str, Any]:
        """What was chosen on held-out training episodes, by name, for probe.json: anything that JSON can hold.

        A name stands there beside those of the other probes, so begin it with the probe's own: `mine_penalty`.
        """
        return {}


class ClassProbe(ABC):
    """Learns to classify clips by their latents; made from its nested `Config`, which it keeps.

    `config.kind` names its rows in probe.json: `class.LABEL.KIND.accuracy` and `.balanced`.
    """

    Config: type[Component]
    config: Any  # of its own Config

    def __init__(self, config: Component) -> None:
        self.config = config

    @abstractmethod
    def fit(
        self,
        latents: Float[Tensor, "n S N D"],
        target: Int[Tensor, " n"],
        keys: Sequence[str],
        classes: int,
        *,
        seed: int,
    ) -> FittedProbe:
        """Fit on training clips. The same seed gives the same probe, and the global random state stays as it is.

        Args:
            target: the class of each clip, 0 .. classes-1.
            keys: the episode of each clip. Several clips may share one: choose settings with `split_episodes(keys)`,
                which separates clips to fit on from clips of other episodes.
            classes: how many there are; every one of them occurs in `target`.
        """
