"""Learning to act inside a frozen world model, and acting on what was learned."""

from jepa.agents.controller import Actor, Controller, Linear
from jepa.agents.imagination.actor_critic import ActorCritic, ActorCriticSettings
from jepa.agents.imagination.dream import Dream, Dreamt, Recorded
from jepa.agents.imagination.evolution import EvolutionSettings, evolve
from jepa.agents.imagination.heads import ContinueHead, HeadSettings, RewardHead, fit_continue, fit_reward
from jepa.agents.imagination.policy import ImaginationPolicy
from jepa.agents.imagination.reward import Distance, Head, Reward, Within

__all__ = [
    "Actor",
    "ActorCritic",
    "ActorCriticSettings",
    "ContinueHead",
    "Controller",
    "Distance",
    "Dream",
    "Dreamt",
    "EvolutionSettings",
    "Head",
    "HeadSettings",
    "ImaginationPolicy",
    "Linear",
    "Recorded",
    "Reward",
    "RewardHead",
    "Within",
    "evolve",
    "fit_continue",
    "fit_reward",
]
