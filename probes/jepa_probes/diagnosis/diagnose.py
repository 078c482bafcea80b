"""`jepa diagnose`: what binds an agent that plans in latents? By substitution, in the world of its recordings.

RUN/diagnosis.json      the planning ladder, the read-out, errors of imagination, the cost, and what follows of them

With `--out FOLDER` it goes there.
"""

import logging
import time
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

from jepa.agents.controller import Actor, Controller
from jepa.agents.inverse import fit_inverse
from jepa.agents.observations import check_actions
from jepa.agents.policy import PlanSettings, Policy, stride_of
from jepa.agents.proposals import RecordedSegments
from jepa.config import UserError, errors_of
from jepa.models.build import build_encoder
from jepa.models.model import open_model
from jepa.training.run_state.run_folder import run_config
from jepa_data.shards.index import ShardSet
from jepa_probes.diagnosis.config import DiagnoseConfig
from jepa_probes.diagnosis.cost_quality import measure_cost
from jepa_probes.diagnosis.ladder import (
    GoalNumbers,
    Played,
    play,
    play_goal_now,
    play_others,
    play_readout,
    play_simulator,
    play_states,
)
from jepa_probes.diagnosis.learned import Learned, learn
from jepa_probes.diagnosis.open_loop import measure_exploitation
from jepa_probes.diagnosis.recordings import Subject
from jepa_probes.diagnosis.result import Diagnosis
from jepa_probes.diagnosis.verdict import conclude
from jepa_probes.imagination.dream import load_controller
from jepa_probes.output import output_folder
from jepa_probes.planning.costs.base import build_costs
from jepa_probes.planning.recordings import TrueSegments, action_space, recorded_blocks
from jepa_probes.planning.resolve import fitted, protocol_of
from jepa_probes.planning.settings import enlarged, make_planner, plan_settings, refined
from jepa_probes.planning.tasks import Tasks

logger = logging.getLogger(__name__)

NO_COPIES = "simulator_tasks is 0, this world makes no copies to plan on, or the planner needs gradients"
NOTHING_ELSE = "nothing else changes in this world's images, or it makes no copies"
NO_STATES = "the goal's quantities are not recorded"


def diagnose(run: Path, config: DiagnoseConfig, *, out: Path | None = None) -> Diagnosis:
    """Replace the links of the run's agent one at a time, and write what that tells.

    Args:
        out: folder for the result; None: the run's.

    Raises:
        UserError: the run has no model with dynamics, its data come from no simulated world that sets tasks, or hold no
            states; or nothing can be written.
    """
    opened = open_model(run)
    training = run_config(run)
    model = opened.world
    if model.dynamics is None:
        raise UserError(
            f"{run}: its method has no dynamics, so there is no planning to diagnose; `jepa probe` scores its encoder"
        )
    out = output_folder(run, out)
    plan = config.plan.model_copy(update={"tasks": config.tasks, "seed": config.seed})
    plan = fitted(run, plan, ShardSet.open(training.data.folder).manifest, model)
    fresh = partial(build_encoder, opened.config.encoder, model.preprocessing.image_size, opened.config.frames)
    config = config.model_copy(update={"plan": plan})
    subject = Subject(config, model, training.data, fresh, training, str(run))
    controller = load_controller(run, out) if plan.warm_start == "controller" else None
    with errors_of(run):
        result = examine(subject, controller)
    result.write(out)
    return result


def examine(subject: Subject, controller: Controller | None = None) -> Diagnosis:
    """The same of a model at hand.

    Args:
        controller: what `jepa dream` left, for plans that start from it.

    Raises:
        UserError: the recordings hold no states, or the tasks are not sound.
        ValueError: settings do not fit together, or the model has diverged.
    """
    began = time.perf_counter()
    cpu = time.process_time()
    model = subject.model
    config = subject.config
    plan = config.plan
    tasks = Tasks(protocol_of(plan))
    check_actions(model, tasks.start(1))
    settings = plan_settings(plan, build_costs(plan.costs, model, subject.data, tasks).terms)
    Policy(model, tasks.goal_images[:1], settings, fps=tasks.start(1).fps)  # refuses what does not fit, early
    learned = learn(subject, settings)
    inverse = _inverse(subject, learned)
    guide = {"inverse_dynamics": inverse, "controller": controller}
    ladder = _Ladder(subject, tasks, settings, learned, inverse, guide.get(plan.warm_start))
    played, left_out = ladder.climb()
    base = played["configured"]
    logger.info("comparing latent and true cost")
    policy = plan.goal_policy or tasks.start(1).policies[0]
    cost = measure_cost(model, tasks.protocol, settings, policy, config.starts, config.candidates)
    ahead = learned.imagined[:, : settings.horizon]
    exploitation = measure_exploitation(base.imagined, ahead, learned.train.latents, learned.test.latents)
    code = learned.space.code
    aims = ladder.goal.numbers if ladder.goal else set()
    result = Diagnosis(
        weakest="none",
        verdict="",
        ladder={name: done.rung(base) for name, done in played.items()},
        left_out=left_out,
        kinds={quantity.name: quantity.kind for quantity in code.quantities},
        goal_quantities=tuple(q.name for q in code.quantities if aims & set(q.numbers)),
        readout=learned.readout,
        open_loop=learned.open_loop,
        cost=cost,
        exploitation=exploitation,
        protocol=tasks.protocol,
        config=config.model_dump(mode="json", exclude={"plan": {"run"}}),
        seconds=round(time.perf_counter() - began, 2),
        cpu_seconds=round(time.process_time() - cpu, 2),
    )
    weakest, verdict = conclude(result)
    return result.model_copy(update={"weakest": weakest, "verdict": verdict})


@dataclass
class _Ladder:
    """The agent, and what its links are replaced by."""

    subject: Subject
    tasks: Tasks
    settings: PlanSettings
    learned: Learned
    inverse: Controller | None
    guide: Controller | None

    def __post_init__(self) -> None:
        model = self.subject.model
        self.frames = model.spec.frames_per_step * stride_of(self.tasks.start(1).fps, model)
        self.goal = GoalNumbers.of(self.learned.space, self.tasks)
        self.segments = self.true_segments = None
        if self.settings.proposals:
            train = self.learned.train
            blocks = recorded_blocks(model, train)
            self.segments = RecordedSegments(train.latents, self.learned.goals, blocks)
            self.true_segments = TrueSegments.of(train, blocks, self.tasks.start(1).goal_names)

    def climb(self) -> tuple[dict[str, Played], dict[str, str]]:
        """What was played by name, and why the others were not. See ladder.py."""
        model = self.subject.model
        config = self.subject.config
        tasks = self.tasks
        settings = self.settings
        latents = partial(play, model, tasks, guide=self.guide, segments=self.segments)
        logger.info(f"planning {tasks.protocol.tasks} tasks")
        played: dict[str, Played | None] = {"configured": latents(settings, keep_imagined=True)}
        left_out: dict[str, str] = {}
        sooner = self._sooner()
        more = replace(settings, planner=make_planner(enlarged(config.plan.planner, config.more_search)))
        count = config.search_tasks
        if sooner is None:
            left_out["replan"] = "it plans again as soon as it can already"
        else:
            logger.info("planning more often")
            played["replan"] = latents(sooner)
        refine = refined(config.plan.planner, settings.planner)
        if refine is None:
            left_out["refine"] = "this planner follows gradients already"
        else:
            logger.info("planning with a refinement by gradient")
            played["refine"] = latents(replace(settings, planner=refine))
        logger.info(f"planning with {config.more_search} times as many plans")
        played["search"] = latents(more, count=count)
        if sooner is not None:
            logger.info("both")
            played["replan_search"] = latents(replace(sooner, planner=more.planner), count=count)
        logger.info("planning with all else in the goal image as it is now")
        played["goal_now"] = play_goal_now(model, tasks, settings, self.guide, self.segments)
        if played["goal_now"] is None:
            left_out["goal_now"] = NOTHING_ELSE
        if self.goal is None:
            left_out |= {"readout": NO_STATES, "state_dynamics": NO_STATES}
        else:
            logger.info("planning on what is read off latents, and on true states")
            learned = self.learned
            played["readout"] = play_readout(model, tasks, settings, learned.read, self.goal, self.guide, self.segments)
            played["state_dynamics"] = play_states(
                model, tasks, settings, learned.space, learned.dynamics, self.goal, self.true_segments
            )
        logger.info("planning in the true world")
        count = config.plan.simulator_tasks
        played["simulator"] = play_simulator(model, tasks, settings, self.frames, count, self.true_segments)
        if played["simulator"] is None:
            left_out["simulator"] = NO_COPIES
        played |= play_others(model, tasks, self.frames, self.inverse)
        return {name: done for name, done in played.items() if done is not None}, left_out

    def _sooner(self) -> PlanSettings | None:
        """Planning again as soon as an action's repetitions allow; None if it does."""
        fits = (n for n in range(1, self.settings.replan_every) if n * self.frames % self.settings.action_repeat == 0)
        return next((replace(self.settings, replan_every=n) for n in fits), None)


def _inverse(subject: Subject, learned: Learned) -> Actor | None:
    """Inverse dynamics, fitted to what was read of the recordings; None where the config wants none."""
    plan = subject.config.plan
    if plan.inverse is None:
        return None
    model = subject.model
    space = action_space(model, str(plan.world))
    blocks = recorded_blocks(model, learned.train)
    return fit_inverse(learned.train.latents, learned.goals, blocks, space, plan.inverse, plan.seed)
