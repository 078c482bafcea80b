"""What a controller is rewarded for in dreams: the `reward:` of a config."""

from jepa.config import Parts

REWARDS = Parts(
    "rewards",
    "jepa_probes.imagination.rewards.base:DreamReward",
    distance="jepa_probes.imagination.rewards.distance:DistanceReward",
    state="jepa_probes.imagination.rewards.state:StateReward",
    world="jepa_probes.imagination.rewards.world:WorldReward",
)
