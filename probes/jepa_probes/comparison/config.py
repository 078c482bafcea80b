"""The config of `jepa compare`. Imports no torch."""

import re
from typing import Annotated, Any, Literal, Self

from pydantic import Field, model_validator

from jepa.config import Config
from jepa.config.fields import Count, Positive
from jepa.training.config import PretrainConfig
from jepa_probes.imagination.config import DreamConfig
from jepa_probes.planning.config import PlanConfig

Sections = dict[str, Any]
Baseline = Literal["identity", "shuffled_actions", "random_encoder"]
BASELINES: tuple[Baseline, ...] = ("identity", "shuffled_actions", "random_encoder")


class Budget(Config):
    """How long each model is trained: one of the two."""

    cpu_minutes: Positive | None = Field(
        default=None, description="processor time of the training; a few steps of a pilot tell how many steps that are"
    )
    steps: Count | None = Field(default=None, description="optimizer steps")

    @model_validator(mode="after")
    def _one_of_them(self) -> Self:
        if (self.cpu_minutes is None) == (self.steps is None):
            raise ValueError("expected either cpu_minutes or steps")
        return self


class ModelEntry(Config):
    """A model of a comparison: what differs from `base`, or a run that is taken as it is."""

    run: str | None = Field(
        default=None, description="take this run and do not train; with {seed} in it, one for each seed"
    )
    encoder_of: str | None = Field(
        default=None, description="another model of the comparison, whose encoder of the same seed is frozen here"
    )
    budget: Budget | None = Field(default=None, description="in place of that of all")
    data: Sections = Field(default={})
    encoder: Sections = Field(default={})
    method: Sections = Field(default={})
    optimizer: Sections = Field(default={})
    schedule: Sections = Field(default={})
    trainer: Sections = Field(default={})

    @property
    def sections(self) -> dict[str, Sections]:
        """Changes of `base`, by section."""
        return {name: getattr(self, name) for name in SECTIONS if getattr(self, name)}

    @model_validator(mode="after")
    def _taken_as_it_is(self) -> Self:
        if self.run is not None and (others := self.model_fields_set - {"run"}):
            raise ValueError(f"a run is taken as it is, so {', '.join(sorted(others))} has no effect; leave it out")
        return self


SECTIONS = ("data", "encoder", "method", "optimizer", "schedule", "trainer")


class MeasureConfig(Config):
    """What is measured of each model, on recordings."""

    clips: Count = Field(default=500, description="training clips that states are read off, at most")
    test_clips: Count = Field(default=200, description="held-out clips, at most")
    horizons: Annotated[tuple[Count, ...], Field(min_length=1)] = Field(
        default=(1, 5, 10, 25), description="latent steps imagined; those that the recordings are too short for are cut"
    )
    history: Count | None = Field(
        default=None, description="true latents before a rollout, at most; none: as many as the model was trained with"
    )
    best_of: Annotated[tuple[Count, ...], Field(min_length=1)] = Field(
        default=(1, 4, 16), description="the nearest of so many sampled rollouts; the largest number is sampled"
    )
    starts: int = Field(default=40, gt=1, description="held-out starts at which the cost is compared with the truth")
    candidates: int = Field(default=100, gt=2, description="random plans from each of these starts")
    seed: int = Field(default=0, ge=0)


class CompareConfig(Config):
    """`jepa compare`: models, their data and budget, and what they are measured by."""

    out: str = Field(description="folder for the table, and for a run folder of each model and seed")
    base: Sections = Field(
        description="sections of a config of `jepa pretrain` that all share; without run, seed and trainer.steps"
    )
    models: Annotated[dict[str, ModelEntry | None], Field(min_length=1)] = Field(
        description="by name: sections whose keys go before those of `base`; another `kind` replaces a section; none: "
        "left out"
    )
    seeds: Annotated[tuple[int, ...], Field(min_length=1)] = (0,)
    budget: Budget
    baselines: tuple[Baseline, ...] = Field(
        default=BASELINES,
        description="that must lose. identity: the last latent again; shuffled_actions: the reference with actions "
        "of other rows of the batch; random_encoder: its predictor, trained on an encoder with random weights (for as "
        "many steps, where the reference reads stored latents)",
    )
    reference: str | None = Field(
        default=None, description="the model that the baselines are made of; none: the first that is trained"
    )
    tokenize: bool = Field(
        default=False,
        description="write the latents of a shared encoder once (CELL/latents); those that name it in encoder_of train "
        "on them, without video",
    )
    measure: MeasureConfig = MeasureConfig()
    plan: PlanConfig | None = Field(
        default={"tasks": 100, "simulator_tasks": 0},
        validate_default=True,
        description="tasks and planner; none: no planning",
    )
    dream: DreamConfig | None = Field(default=None, description="a controller that learns in dreams; none: left out")
    jobs: Count | None = Field(
        default=None, description="cells (a model and a seed) at the same time; none: as there are processors or GPUs"
    )
    threads: Count = Field(default=1, description="of torch in each cell")
    launcher: Literal["local", "inline", "slurm"] = Field(
        default="local",
        description="local: a process for each cell; inline: one after the other in this process, for a debugger; "
        "slurm: a job for each, submitted by submitit",
    )
    submitit: dict[str, str | int] = Field(
        default={}, description="parameters of submitit, such as slurm_partition and timeout_min"
    )

    @model_validator(mode="after")
    def _names_fit(self) -> Self:
        entries = self.entries
        for name, entry in entries.items():
            if not re.fullmatch(r"[A-Za-z0-9_.+]+", name) or name in BASELINES:
                raise ValueError(
                    f"models: {name!r} cannot be the name of a model: expected letters, digits and _ . +, and not "
                    f"the name of a baseline ({', '.join(BASELINES)})"
                )
            source = entry.encoder_of
            own = [other for other in entries if not entries[other].encoder_of and other != name]
            if source is not None and source not in own:
                raise ValueError(
                    f"models.{name}.encoder_of: expected another model of this comparison with an encoder of its own "
                    f"({', '.join(own)}), found {source!r}"
                )
        if self.reference is not None and self.reference not in self.trained:
            raise ValueError(
                f"reference: expected a model that is trained here ({', '.join(self.trained)}), found "
                f"{self.reference!r}"
            )
        if len(set(self.seeds)) < len(self.seeds):
            raise ValueError("seeds: expected each once")
        return self

    @property
    def entries(self) -> dict[str, ModelEntry]:
        """The models that are not left out."""
        return {name: entry for name, entry in self.models.items() if entry is not None}

    @property
    def trained(self) -> tuple[str, ...]:
        """Models that are not taken."""
        return tuple(name for name, entry in self.entries.items() if entry.run is None)


class CellConfig(Config):
    """One model with one seed: CELL/cell.yaml, all that its result depends on.

    `run`: the model that is measured, which is not trained here. `steps_of`: the cell whose number of training steps it
    gets, in place of the budget. `shared`: other cells take its encoder, so it may do without dynamics. `tokenize`: its
    latents are written for them.
    """

    model: str
    seed: int
    baseline: Baseline | None = None
    run: str | None = None
    shards: str
    training: PretrainConfig | None = None
    budget: Budget | None = None
    steps_of: str | None = None
    shared: bool = False
    tokenize: bool = False
    measure: MeasureConfig
    plan: PlanConfig | None = None
    dream: DreamConfig | None = None
    threads: Count = 1
