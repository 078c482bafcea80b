"""`python -m tests.bench.push_t_ceiling`: how many tasks of Push-T planners solve on the true simulator.

    published   starts in the middle of `demonstrations`, at rest; goals 25 steps later
    ours        starts that the world draws; goals where the fast `pusher` gets in 25 steps

The budget is 50 steps; a plan has at most 25 different actions and is made again after 5; its cost is the true distance
that is left. Tasks are played 25 at a time: a line tells what was solved so far, at the end and at any time, with 95 %
Wilson intervals. Recorded segments come from 2,000 other episodes, and are compared by their true states.
"""

import argparse
import sys
import time
from collections.abc import Iterator

import numpy as np
import torch

from jepa.agents.policy import PlanSettings
from jepa.planners.base import Planner
from jepa.planners.cem import CEM
from jepa.planners.mixture import Mixture
from jepa_data.worlds import make_goal_batch
from jepa_probes.planning.baselines import simulator_ceiling
from jepa_probes.planning.recordings import TrueSegments
from jepa_probes.planning.tasks import Episodes, Protocol, Tasks, wilson
from jepa_probes.probing.features import Features

FORMS = {"published": ("demonstrations", 100), "ours": ("pusher", None)}
EPISODES, FRAMES, CLIP = 2000, 101, 50
AT_ONCE = 25  # tasks
LIBRARY_SEED = 7  # of no task
PLANNERS = {
    "mixture": lambda rounds: Mixture(Mixture.Config(samples=64, elites=8, iterations=rounds, std=0.2)),
    "cem": lambda rounds: CEM(CEM.Config(samples=64, elites=8, iterations=rounds, std=0.2)),
}


class Part(Tasks):
    """Some of the tasks of a protocol; keeps how they ended when they were played last."""

    last: Episodes

    def __init__(self, protocol: Protocol, chosen: slice) -> None:
        super().__init__(protocol)
        self._start = self._start.take(np.arange(protocol.tasks)[chosen])
        self.goal = self.goal[chosen]

    def run(self, act, count=None) -> Episodes:
        self.last = super().run(act, count)
        return self.last


def recorded(policy: str) -> TrueSegments:
    """Segments of fresh episodes, cut into clips."""
    world = make_goal_batch("push-t", np.arange(EPISODES), seed=LIBRARY_SEED)
    generators = [np.random.default_rng([LIBRARY_SEED, e]) for e in range(EPISODES)]
    actions = world.act(policy, generators, FRAMES)
    states = [world.states()]
    for t in range(FRAMES - 1):
        world.step(actions[:, t])
        states.append(world.states())
    seen = np.stack(states, 1)
    firsts = range(0, FRAMES - CLIP, CLIP)
    clips = torch.from_numpy(np.concatenate([seen[:, t : t + CLIP + 1] for t in firsts]))
    done = torch.from_numpy(np.concatenate([actions[:, t : t + CLIP] for t in firsts]))
    keys = tuple(str(e) for e in range(len(clips)))
    features = Features(torch.zeros(len(clips), CLIP + 1, 1, 1), clips, {}, keys, tuple(world.state_names))
    segments = TrueSegments.of(features, done, world.goal_names)
    assert segments is not None
    return segments


def play(tasks: int, seed: int, form: str, planner: Planner, segments: TrueSegments | None) -> Iterator[str]:
    """Lines that tell what was solved so far."""
    policy, offset = FORMS[form]
    about = make_goal_batch("push-t", np.arange(1))
    protocol = Protocol(
        "push-t", about.version, 64, tasks, 50, about.radius, about.radius, seed, 25, policy, start_offset=offset
    )
    settings = PlanSettings(horizon=25, replan_every=5, running_cost_weight=0.0, planner=planner, budget=50)
    began = time.process_time()
    solved: dict[str, list[bool]] = {"at the end": [], "ever": []}
    for first in range(0, tasks, AT_ONCE):
        part = Part(protocol, slice(first, first + AT_ONCE))
        simulator_ceiling(part, 1, settings, None, segments=segments)
        for judged, distance in zip(solved, (part.last.distance, part.last.nearest), strict=True):
            solved[judged] += part.solved(distance).tolist()
        scores = {judged: wilson(sum(of), len(of)) for judged, of in solved.items()}
        told = [f"{judged} {100 * s:.1f} % ({100 * a:.1f} to {100 * b:.1f})" for judged, (s, a, b) in scores.items()]
        yield f"{form}, {first + len(part.goal)} tasks: {', '.join(told)}, {time.process_time() - began:.0f} CPU s"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--form", choices=FORMS, default="ours")
    parser.add_argument("--planner", choices=PLANNERS, default="mixture")
    parser.add_argument("--rounds", type=int, default=8)
    parser.add_argument("--recordings", action=argparse.BooleanOptionalAction, default=True)
    parser.add_argument("--tasks", type=int, default=200)
    parser.add_argument("--seed", type=int, default=0)
    chosen = parser.parse_args()
    segments = recorded(FORMS[chosen.form][0]) if chosen.recordings else None
    planner = PLANNERS[chosen.planner](chosen.rounds)
    for line in play(chosen.tasks, chosen.seed, chosen.form, planner, segments):
        sys.stdout.write(line + "\n")
        sys.stdout.flush()


if __name__ == "__main__":
    main()
