"""Can the model act? Its agent plays the tasks of a protocol, and so do others, beside which its score is read.

Every score has its 95 % Wilson interval and its number of tasks; the others are those of baselines.py.
"""

import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field, replace

import numpy as np
from jaxtyping import Bool, Float, UInt8
from numpy.typing import NDArray
from torch import Tensor

from jepa.agents.controller import Controller
from jepa.agents.observations import check_actions, proprioception
from jepa.agents.policy import PlanSettings, Policy
from jepa.world_model import LatentWorldModel
from jepa_data.worlds.base import GoalBatch
from jepa_probes.planning.baselines import score_baselines
from jepa_probes.planning.costs.base import Costs, Region
from jepa_probes.planning.recordings import Segments
from jepa_probes.planning.result import Entered, PlanResult, Rules, Success
from jepa_probes.planning.tasks import Episodes, Tasks
from jepa_probes.planning.trajectory import Walk, trajectory_errors


@dataclass(frozen=True)
class Evaluation:
    """A result, and of the first tasks what was seen and imagined.

    `images` of all frames of the kept tasks; `imagined`: the latents that their first plans lead to.
    """

    result: PlanResult
    tasks: Tasks
    solved: NDArray[np.bool_]
    images: UInt8[np.ndarray, "T E h w 3"]
    imagined: Float[Tensor, "E H N D"]
    frames_per_step: int


def evaluate(
    model: LatentWorldModel,
    tasks: Tasks,
    settings: PlanSettings,
    *,
    costs: Costs | None = None,
    inverse: Callable[[], Controller] | None = None,
    guide: Controller | None = None,
    segments: Segments | None = None,
    simulator_tasks: int | None = None,
    keep: int = 24,
) -> Evaluation:
    """Plan every task with the model, and let the others play the same tasks.

    Args:
        costs: the other terms of the cost, in place of those of the settings.
        inverse: makes the agent `inverse_dynamics`, once planning was done; None leaves it out.
        guide: what plans start from, see `Policy`.
        segments: recordings that plans start from as well: by latents, and by true states for the simulator.
        simulator_tasks: tasks for the planner on the true simulator, the expensive part; 0 leaves it
            out, None: all.
        keep: tasks whose images are kept.
    """
    world = tasks.start(1)
    check_actions(model, world)
    costs = costs or Costs()
    settings = replace(settings, terms=costs.terms)

    def ready(goal: UInt8[np.ndarray, "B h w 3"]) -> Policy:
        return Policy(model, goal, settings, tasks.protocol.seed, world.fps, guide, segments and segments.latent)

    policy = ready(tasks.goal_images)
    player = _Player(policy, costs.regions, keep, np.zeros(tasks.protocol.tasks, dtype=bool))
    began = time.perf_counter()
    episodes = (walk := Walk(player)).play(tasks)
    seconds = time.perf_counter() - began
    frames = model.spec.frames_per_step * policy.stride
    result = PlanResult(
        **dict(Success.of(episodes.solved)),
        baselines=score_baselines(model, tasks, frames, settings, inverse, guide, simulator_tasks, segments),
        ever_reached=float(tasks.reached(episodes.nearest).mean()),
        reached_at_end=float(tasks.reached(episodes.distance).mean()),
        median_distance=float(np.median(episodes.judged)),
        unit=world.unit,
        plans_per_task=policy.plans,
        seconds_per_plan=player.seconds / (policy.plans * tasks.protocol.tasks),
        seconds_per_plan_alone=_time_of_one(ready(tasks.goal_images[:1]), world),
        model_calls_per_plan=round(policy.model_calls / policy.plans),
        differentiated_calls_per_plan=round(policy.differentiated * settings.horizon / policy.plans),
        protocol=tasks.protocol,
        settings=asdict(replace(settings, terms=())) | {"planner": repr(settings.planner), "terms": costs.configs},
        seconds=seconds,
        distances=episodes.judged.tolist(),
        entered=_entered(player.entered, tasks, costs.regions),
        rules=_rules(tasks, episodes),
        trajectory=trajectory_errors(tasks, walk, frames),
    )
    assert player.imagined is not None
    images = np.stack([*player.images, episodes.world.render()[:keep]])
    return Evaluation(result, tasks, episodes.solved, images, player.imagined[:keep], frames)


def _entered(entered: NDArray[np.bool_], tasks: Tasks, regions: Sequence[Region]) -> Entered | None:
    if not regions:
        return None
    ends = np.logical_or.reduce([r.contains(at) for r in regions for at in (tasks.start(), tasks.at_goal())])
    free = entered[~ends]
    return Entered(share=float(free.mean()) if len(free) else None, tasks=len(free))


def _rules(tasks: Tasks, episodes: Episodes) -> Rules | None:
    protocol = tasks.protocol
    if protocol.keep_out_radius is None and protocol.max_action_cost is None:
        return None
    cost = episodes.action_cost
    over = None if protocol.max_action_cost is None else float((cost > protocol.max_action_cost).mean())
    return Rules(
        entered=None if tasks.regions is None else float(episodes.entered.mean()),
        over_action_cost=over,
        median_action_cost=float(np.median(cost)),
        solved=episodes.solved.tolist(),
    )


@dataclass
class _Player:
    """The policy at play, and what is noted meanwhile.

    Attributes:
        keep: tasks whose images are kept.
        entered: which tasks were in a forbidden region at some time.
        seconds: that it took to encode and to plan.
        images: that it was shown, those of the kept tasks.
        imagined: what its first plans lead to.
    """

    policy: Policy
    regions: Sequence[Region]
    keep: int
    entered: Bool[np.ndarray, " B"]
    seconds: float = 0.0
    images: list[UInt8[np.ndarray, "E h w 3"]] = field(default_factory=list)
    imagined: Float[Tensor, "B H N D"] | None = None

    def __call__(self, world: GoalBatch) -> NDArray[np.floating]:
        for region in self.regions:
            self.entered |= region.contains(world)
        seen = world.render()
        self.images.append(seen[: self.keep])
        known = proprioception(self.policy.model, world)
        began = time.perf_counter()
        action = self.policy.act(seen, known)
        self.seconds += time.perf_counter() - began
        if self.imagined is None:
            self.imagined = self.policy.imagine()
        return action


def act_in(policy: Policy, world: GoalBatch) -> NDArray[np.floating]:
    """What a policy does in a world as it is now."""
    return policy.act(world.render(), proprioception(policy.model, world))


def _time_of_one(policy: Policy, world: GoalBatch) -> float:
    """Seconds for the plan of a single episode, encoding included: the second one, as the first warms up."""
    for _ in range(2):
        policy.reset()
        began = time.perf_counter()
        act_in(policy, world)
    return time.perf_counter() - began
