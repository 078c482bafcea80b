"""The config of `jepa compress`. Importing it imports no torch; reading `keep` does."""

from typing import Self

from pydantic import Field, model_validator

from jepa_probes.probing.config import ClipsConfig


class CompressConfig(ClipsConfig):
    """`jepa compress`: which reductions, and the clips that they are fitted to and judged on."""

    keep: tuple[str, ...] = Field(
        min_length=1,
        description="reductions, each as KIND:SIZE or several joined by +: pool:2x2 (means over blocks, a grid of 2x2 "
        "tokens is left), merge:16 (means over 16 learned sets of places), pca:32 (components of each token), "
        "joint_pca:64 (one vector a step)",
    )
    report_only: bool = Field(default=False, description="write the report and no models")

    @model_validator(mode="after")
    def _reductions_are_known(self) -> Self:
        from jepa.encoders.reductions.chain import parse  # here, for it imports torch

        for text in self.keep:
            parse(text)
        if twice := sorted({text for text in self.keep if self.keep.count(text) > 1}):
            raise ValueError(f"keep: expected each reduction once, found {', '.join(twice)} twice")
        return self
