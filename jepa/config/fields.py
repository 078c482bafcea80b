"""Kinds of numbers in configs, and the choice of a part by its `kind`. Imports no torch."""

from typing import Annotated, Any

from pydantic import Discriminator, Field

Share = Annotated[float, Field(ge=0, le=1)]
Positive = Annotated[float, Field(gt=0)]
Count = Annotated[int, Field(gt=0)]


def kind_or(default: str) -> Discriminator:
    """Chooses by `kind`, which may be left out."""

    def choose(value: Any) -> str:
        return str(value.get("kind", default) if isinstance(value, dict) else getattr(value, "kind", default))

    return Discriminator(choose)
