"""The config of `jepa plan`: tasks, costs and how they are planned."""

from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from jepa.agents.config import InverseSettings
from jepa.config import DEFAULT, Component, Config, part
from jepa.config.fields import Count, Positive, Share
from jepa.planners import PLANNERS
from jepa.planners.futures import Outlook
from jepa_probes.planning.costs import TERMS, TermConfig


class TasksConfig(Config):
    """Held-out tasks in the run's own world: what a protocol says, as far as it is not left to the world."""

    run: str | None = Field(default=None, description="the run, if the command names this file instead")
    world: str | None = Field(default=None, description="refuse a run that was recorded in another world")
    world_version: Count | None = Field(default=None, description="refuse another version of that world")
    image_size: Count | None = Field(default=None, description="pixels of rendered images; none: as recorded")
    tasks: int = Field(default=200, gt=1)
    steps: Count = Field(default=40, description="budget of world steps per task")
    radius: Positive | None = Field(
        default=None, description="success: it ends this close to the goal, in the world's unit; none: the world's own"
    )
    min_distance: Positive | None = Field(
        default=None, description="goals nearer to the start than this are drawn again; none: those within the radius"
    )
    goal_offset: Count | None = Field(
        default=None, description="a goal is where goal_policy gets within this many steps; none: drawn by the world"
    )
    goal_policy: str | None = Field(default=None, description="with goal_offset; none: the world's first policy")
    keep_out_radius: Positive | None = Field(
        default=None,
        description="near the way of each task lies a ball of this radius; who enters it has not solved the task",
    )
    max_action_cost: Positive | None = Field(
        default=None,
        description="sum over the steps of the mean square of the actions; who takes more has not solved the task",
    )
    start_offset: Count | None = Field(
        default=None,
        description="with goal_offset: tasks start where goal_policy is after at most so many steps, at rest; none: "
        "where the world starts",
    )
    judge: Literal["end", "ever"] = Field(
        default="end", description="success is at the goal at the end of the budget, or ever until then"
    )
    action_repeat: Count = Field(default=1, description="environment steps for which an action repeats")
    seed: int = Field(default=0, ge=0)

    @model_validator(mode="after")
    def _starts_under_way(self) -> Self:
        if self.start_offset and not self.goal_offset:
            raise ValueError("start_offset is where goal_policy has got to: set goal_offset too, or leave it out")
        return self


class InverseConfig(InverseSettings):
    """What was done in the recordings, as a controller: a baseline, and a start of plans."""

    clip_frames: Count | None = Field(
        default=None, description="frames of the clips whose later frames are goals; none: as in training"
    )
    clips: Count | None = Field(default=2000, description="at most so many recorded clips; none: all")
    clips_per_video: Count = 2


class ProposalConfig(Config):
    """What was done in the recordings between two moments much like the present and the goal, as starts of plans."""

    count: Count = Field(default=64, description="recorded segments that each plan starts from, of different clips")
    clip_frames: Count | None = Field(
        default=None,
        description="frames of the clips; segments are shorter, and as long as the horizon at most; "
        "none: as long as the horizon, or as the recordings allow",
    )
    clips: Count | None = Field(default=3000, description="at most so many recorded clips; none: all")
    clips_per_video: Count = 2


class PlanConfig(TasksConfig):
    """`jepa plan`: held-out tasks in the run's own world, and how they are planned."""

    simulator_tasks: int | None = Field(
        default=None, ge=0, description="how many of the tasks are also planned on the true simulator; none: all"
    )
    gifs: int = Field(default=4, ge=0, le=24, description="how many tasks are drawn")
    horizon: Count = Field(default=6, description="latent steps looked ahead")
    replan_every: Count = Field(default=2, description="latent steps acted on before planning again")
    history: Count | None = Field(
        default=None, description="latents that a plan starts from; none: as many as the model was trained with"
    )
    random_action_if_stuck: float = Field(
        default=0.0,
        ge=0,
        lt=1,
        description="an action is drawn where the last plan moved less than this share of what was imagined; 0: never",
    )
    bounds: Literal["box", "ball", "none"] = Field(
        default="box",
        description="box: actions stay in the range of the data; ball: also a norm of at most 1, for worlds that "
        "clip longer ones; none: no bounds, and the planner's std counts standard deviations of the data",
    )
    running_cost_weight: Share = 1.0
    futures: int = Field(
        default=0,
        ge=0,
        description="sampled futures of each plan, for a predictor of distributions; 0: one, without noise",
    )
    outlook: Outlook = Field(
        default="mean", description="which of their costs counts: the mean, the lowest or the highest"
    )
    costs: tuple[Annotated[TermConfig, part(TERMS)], ...] = Field(
        default=(), description="costs added to the distance to the goal, which has weight 1"
    )
    planner: Annotated[Component, part(PLANNERS, "cem")] = DEFAULT
    know_budget: bool = Field(default=False, description="a plan is no longer than what is left of `steps`")
    warm_start: Literal["previous", "none", "inverse_dynamics", "controller"] = Field(
        default="previous",
        description="a plan starts from the rest of the last one, from no action, from what inverse dynamics would do, "
        "or from what the controller of `jepa dream` would do",
    )
    proposals: ProposalConfig | None = Field(
        default=None,
        description="recorded segments with the nearest start and goal, and standing still, as starts of plans beside "
        "`warm_start`; none: left out",
    )
    inverse: InverseConfig | None = Field(
        default=InverseConfig(), description="plays the tasks too, without planning; none: left out"
    )

    @model_validator(mode="after")
    def _fits(self) -> Self:
        if self.replan_every > self.horizon:
            raise ValueError(f"replan_every must be the horizon ({self.horizon}) at most, found {self.replan_every}")
        if self.warm_start == "inverse_dynamics" and self.inverse is None:
            raise ValueError(
                "warm_start: inverse_dynamics needs inverse dynamics; leave `inverse` as it is, or start elsewhere"
            )
        return self


class PlannersConfig(Config):
    """`jepa plan --planners`: planners that play the same tasks, and how they are timed."""

    baseline: Annotated[Component, part(PLANNERS, "cem", samples=300, elites=30, iterations=30)] = DEFAULT
    planners: Annotated[tuple[Annotated[Component, part(PLANNERS)], ...], Field(min_length=1)]
    rounds: Count = Field(default=5, description="times that each is timed, one after the other; the median counts")
    episodes: Count = Field(default=10, description="planned at once where that is timed")
