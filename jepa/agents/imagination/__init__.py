"""Learning to act inside a frozen world model, and acting on what was learned."""

from jepa.agents.controller import Actor, Controller, Linear
from jepa.agents.imagination.actor_critic import ActorCritic
from jepa.agents.imagination.dream import Dream, Dreamt, Recorded
from jepa.agents.imagination.evolution import Evolution
from jepa.agents.imagination.heads import ContinueHead, HeadSettings, RewardHead, fit_continue, fit_reward
from jepa.agents.imagination.policy import ImaginationPolicy
from jepa.agents.imagination.reward import Distance, Head, Reward, Within
from jepa.config import Parts

CONTROLLERS = Parts(
    "controllers",
    actor_critic="jepa.agents.imagination.actor_critic:ActorCritic",
    evolution="jepa.agents.imagination.evolution:Evolution",
)

__all__ = [
    "CONTROLLERS",
    "Actor",
    "ActorCritic",
    "ContinueHead",
    "Controller",
    "Distance",
    "Dream",
    "Dreamt",
    "Evolution",
    "Head",
    "HeadSettings",
    "ImaginationPolicy",
    "Linear",
    "Recorded",
    "Reward",
    "RewardHead",
    "Within",
    "fit_continue",
    "fit_reward",
]
