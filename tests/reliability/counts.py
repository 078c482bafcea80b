"""How often a property was tried, and where it did not hold."""

from dataclasses import dataclass, field
from typing import Any


@dataclass
class Counts:
    """Of one experiment.

    Attributes:
        tries: by property: how often it was looked at.
        failures: what did not hold, a line each.
        figures: what was measured beside it.
        skipped: why it could not be tried here.
    """

    tries: dict[str, int] = field(default_factory=dict)
    failures: list[str] = field(default_factory=list)
    figures: dict[str, Any] = field(default_factory=dict)
    skipped: str = ""

    def check(self, what: str, holds: bool, where: str) -> None:
        """Count a try; `where` names it if the property does not hold."""
        self.tries[what] = self.tries.get(what, 0) + 1
        if not holds:
            self.failures.append(f"{what}: {where}")

    def add(self, figure: str, number: int = 1) -> None:
        self.figures[figure] = self.figures.get(figure, 0) + number

    def most(self, figure: str, number: float) -> None:
        self.figures[figure] = max(self.figures.get(figure, 0.0), round(number, 2))
