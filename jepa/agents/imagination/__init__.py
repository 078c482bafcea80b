"""Learning to act inside a frozen world model, and acting on what was learned."""

from jepa.config import Parts

CONTROLLERS = Parts(
    "controllers",
    "jepa.agents.imagination.learner:Learner",
    actor_critic="jepa.agents.imagination.actor_critic:ActorCritic",
    evolution="jepa.agents.imagination.evolution:Evolution",
)
