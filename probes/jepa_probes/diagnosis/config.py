"""The config of `jepa diagnose`."""

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

from pydantic import Field

from jepa.config import Config, UserError, from_dict, load
from jepa.config.fields import Count
from jepa_probes.planning.config import PlanConfig


class DiagnoseConfig(Config):
    """`jepa diagnose`: the agent that is diagnosed, and the effort that each of its links is measured with."""

    plan: PlanConfig = Field(
        default=PlanConfig(), description="protocol and planner of the agent: of --config, or of RUN/plan.yaml"
    )
    tasks: int = Field(default=50, gt=1, description="in place of those of `plan`")
    seed: int = Field(
        default=1000, ge=0, description="of the tasks and of all that is drawn; not that of `plan`, so tasks are new"
    )
    more_search: Count = Field(default=10, description="times as many plans are imagined where more search is tried")
    search_tasks: Count | None = Field(
        default=12, description="how many of the tasks are searched so, as that takes longest; none: all"
    )
    clips: Count = Field(default=1000, description="recorded clips to learn from, at most")
    clips_per_video: Count = 2
    test_clips: Count = Field(default=200, description="held-out recorded clips, at most")
    read_updates: Count = Field(default=1000, description="Adam steps of the network that reads states off latents")
    state_updates: Count = Field(default=2000, description="Adam steps of the dynamics on true states")
    hidden: Count = Field(default=128, description="width of both networks")
    supervised: bool = Field(
        default=False, description="also read an encoder that is trained on the true states, with the budget of the run"
    )
    horizons: Annotated[tuple[Count, ...], Field(min_length=1)] = Field(
        default=(1, 5, 10, 25), description="latent steps imagined; those that the recordings are too short for are cut"
    )
    starts: int = Field(default=40, gt=1, description="held-out starts at which the cost is compared with the truth")
    candidates: int = Field(default=100, gt=2, description="random plans from each of these starts")


OWN = {  # of a diagnosis, in place of those of `plan`
    "run": "the run is the first word of the command",
    "seed": "its tasks are new; give seed=NUMBER",
    "tasks": "give tasks=NUMBER",
}


def diagnose_config(run: Path, plan: Path | None, overrides: Sequence[str]) -> DiagnoseConfig:
    """The config of `jepa diagnose RUN [--config PLAN] [KEY=VALUE]...`.

    Args:
        plan: a config of `jepa plan`; None: RUN/plan.yaml, or the defaults where there is none.

    Raises:
        UserError: a key or a value of one of them is wrong.
    """
    if plan is None and (run / "plan.yaml").is_file():
        plan = run / "plan.yaml"
    settings = load(plan, PlanConfig).model_dump(mode="json", exclude_unset=True, exclude=set(OWN)) if plan else {}
    config = from_dict({"plan": settings}, DiagnoseConfig, overrides, source=str(plan or "config"))
    if given := config.plan.model_fields_set & OWN.keys():
        key = min(given)
        raise UserError(f"command line: plan.{key}: has no effect on a diagnosis; {OWN[key]}")
    return config
