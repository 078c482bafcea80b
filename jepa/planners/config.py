"""What a config says of a planner. Imports no torch."""

from typing import Annotated, Literal

from pydantic import Field, Tag

from jepa.config import Config
from jepa.config.fields import Count, Positive, Share, kind_or


class RandomShootingConfig(Config):
    """jepa/planners/random_shooting.py."""

    kind: Literal["random"] = "random"
    samples: Count = 1000


class CEMConfig(Config):
    """jepa/planners/cem.py."""

    kind: Literal["cem"] = "cem"
    samples: int = Field(default=100, gt=1)
    elites: int = Field(default=10, gt=1)
    iterations: Count = 4
    std: Positive = 0.7
    min_std: Positive = 0.05
    cost_tolerance: float | None = None


class ICEMConfig(Config):
    """jepa/planners/icem.py."""

    kind: Literal["icem"] = "icem"
    samples: int = Field(default=100, gt=1)
    elites: int = Field(default=10, gt=1)
    iterations: Count = 4
    std: Positive = 0.7
    min_std: Positive = 0.05
    beta: float = Field(default=2.0, ge=0)
    keep: Share = 0.3
    decay: float = Field(default=1.25, ge=1)
    momentum: float = Field(default=0.1, ge=0, lt=1)
    cost_tolerance: float | None = None


class MPPIConfig(Config):
    """jepa/planners/mppi.py."""

    kind: Literal["mppi"] = "mppi"
    samples: int = Field(default=100, gt=1)
    elites: int = Field(default=20, gt=1)
    iterations: Count = 6
    std: Positive = 0.7
    min_std: Positive = 0.05
    temperature: Positive = 0.5
    cost_tolerance: float | None = None


class GradientConfig(Config):
    """jepa/planners/gradient.py."""

    kind: Literal["gradient"] = "gradient"
    steps: Count = 50
    lr: Positive = 0.05
    starts: Count = 8
    std: Positive = 0.7
    cost_tolerance: float | None = None


class GRASPConfig(Config):
    """jepa/planners/grasp.py."""

    kind: Literal["grasp"] = "grasp"
    steps: Count = 60
    lr: Positive = 0.05
    latent_lr: Positive = 0.05
    consistency: float = Field(default=1.0, ge=0)
    starts: Count = 8
    std: Positive = 0.7
    noise: float = Field(default=0.05, ge=0)
    sync_every: Count = 10
    cost_tolerance: float | None = None


Sampler = Annotated[RandomShootingConfig | CEMConfig | ICEMConfig | MPPIConfig, Field(discriminator="kind")]


class HybridConfig(Config):
    """jepa/planners/hybrid.py: sample, then refine by gradient."""

    kind: Literal["hybrid"] = "hybrid"
    sampler: Sampler = CEMConfig()
    refine: GradientConfig = GradientConfig(steps=20, lr=0.02, starts=1)


PlannerConfig = Annotated[
    Annotated[RandomShootingConfig, Tag("random")]
    | Annotated[CEMConfig, Tag("cem")]
    | Annotated[ICEMConfig, Tag("icem")]
    | Annotated[MPPIConfig, Tag("mppi")]
    | Annotated[GradientConfig, Tag("gradient")]
    | Annotated[GRASPConfig, Tag("grasp")]
    | Annotated[HybridConfig, Tag("hybrid")],
    kind_or("cem"),
]
