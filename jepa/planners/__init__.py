"""Planners: search for actions of low cost."""

from jepa.config import Parts

# Those that need no gradient of the cost.
SAMPLERS = Parts(
    "planners",
    "jepa.planners.base:Planner",
    random="jepa.planners.random_shooting:RandomShooting",
    cem="jepa.planners.cem:CEM",
    icem="jepa.planners.icem:ICEM",
    mppi="jepa.planners.mppi:MPPI",
    mixture="jepa.planners.mixture:Mixture",
)
PLANNERS = Parts(
    "planners",
    "jepa.planners.base:Planner",
    **SAMPLERS.places,
    gradient="jepa.planners.gradient:Gradient",
    grasp="jepa.planners.grasp:GRASP",
    hybrid="jepa.planners.hybrid:Hybrid",
)
