"""`python -m tests.bench.push_t_ceiling`: how many tasks of Push-T planners solve on the true simulator.

    published   starts in the middle of `demonstrations`, at rest; goals 25 steps later
    ours        starts that the world draws; goals where the fast `pusher` gets in 25 steps

The budget is 50 steps; a plan has at most 25 different actions and is made again after 5; its cost is the true distance
that is left. Prints what was solved at the end and at any time, with 95 % Wilson intervals. Recorded segments come from
2,000 other episodes, and are compared by their true states.
"""

import argparse
import sys
import time

import numpy as np
import torch

from jepa.agents.policy import PlanSettings
from jepa.planners.cem import CEM
from jepa.planners.mixture import Mixture
from jepa_data.worlds import make_goal_batch
from jepa_probes.planning.baselines import simulator_ceiling
from jepa_probes.planning.recordings import TrueSegments
from jepa_probes.planning.tasks import Protocol, Tasks, wilson
from jepa_probes.probing.features import Features

FORMS = {"published": ("demonstrations", 100), "ours": ("pusher", None)}
EPISODES, FRAMES, CLIP = 2000, 101, 50
LIBRARY_SEED = 7  # of no task
PLANNERS = {"mixture": Mixture, "cem": CEM}


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


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--form", choices=FORMS, default="ours")
    parser.add_argument("--planner", choices=PLANNERS, default="mixture")
    parser.add_argument("--rounds", type=int, default=8)
    parser.add_argument("--recordings", action=argparse.BooleanOptionalAction, default=True)
    parser.add_argument("--tasks", type=int, default=200)
    parser.add_argument("--seed", type=int, default=0)
    chosen = parser.parse_args()
    policy, start_offset = FORMS[chosen.form]
    segments = recorded(policy) if chosen.recordings else None
    kind = PLANNERS[chosen.planner]
    planner = kind(kind.Config(samples=64, elites=8, iterations=chosen.rounds, std=0.2))
    world = make_goal_batch("push-t", np.arange(1))
    near = world.radius
    tasks = Tasks(
        Protocol(
            "push-t",
            world.version,
            64,
            chosen.tasks,
            50,
            near,
            near,
            chosen.seed,
            25,
            policy,
            start_offset=start_offset,
        )
    )
    settings = PlanSettings(horizon=25, replan_every=5, running_cost_weight=0.0, planner=planner, budget=50)
    began = time.process_time()
    episodes = simulator_ceiling(tasks, 1, settings, None, segments=segments)
    assert episodes is not None
    seconds = time.process_time() - began
    for judged, distance in {"at the end": episodes.distance, "ever": episodes.nearest}.items():
        share, low, high = wilson(int(tasks.reached(distance).sum()), chosen.tasks)
        sys.stdout.write(f"{chosen.form}, {judged}: {100 * share:.1f} % ({100 * low:.1f} to {100 * high:.1f})\n")
    sys.stdout.write(f"{chosen.tasks} tasks, {seconds:.0f} CPU s\n")


if __name__ == "__main__":
    main()
