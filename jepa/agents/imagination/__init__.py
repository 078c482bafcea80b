"""Controllers trained in imagined rollouts of a frozen world model."""

from jepa.config import Parts

CONTROLLERS = Parts(
    "controllers",
    "jepa.agents.imagination.learner:Learner",
    actor_critic="jepa.agents.imagination.actor_critic:ActorCritic",
    evolution="jepa.agents.imagination.evolution:Evolution",
)
