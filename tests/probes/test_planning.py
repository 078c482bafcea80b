"""The ceiling of the planning benchmark: the planner itself, told the truth."""

import numpy as np

from jepa.agents.policy import PlanSettings
from jepa.planners.cem import CEM
from jepa_data.worlds import make_batch
from jepa_probes.planning import random_floor, simulator_ceiling
from jepa_probes.tasks import Protocol, Tasks


def test_cem_over_true_dynamics_solves_two_rooms():
    about = make_batch("two-rooms", np.arange(1))
    tasks = Tasks(Protocol("two-rooms", about.version, 64, 200, 200, about.radius, about.radius, seed=7))
    settings = PlanSettings(horizon=4, execute=1, hold=5, planner=CEM(samples=100, elites=10, iterations=4))
    solved = simulator_ceiling(tasks, 5, settings, None)
    assert solved.mean() >= 0.99
    assert random_floor(tasks, 5).mean() < 0.05
