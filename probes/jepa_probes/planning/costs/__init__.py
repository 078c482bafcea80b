"""What plans cost beside the distance to their goal: the `costs:` of a config.

costs:
  - {kind: action_cost, weight: 0.01}
  - {kind: keep_out, names: [agent.x, agent.y], center: [0.5, 0.3], radius: 0.1}
"""

from jepa.config import Component, Parts
from jepa.config.fields import Positive

TERMS = Parts(
    "costs",
    "jepa_probes.planning.costs.base:CostTerm",
    action_cost="jepa_probes.planning.costs.action_cost:ActionCost",
    keep_out="jepa_probes.planning.costs.keep_out:KeepOut",
    state="jepa_probes.planning.costs.state:StateCost",
    image="jepa_probes.planning.costs.image:ImageCost",
)


class TermConfig(Component):
    """Settings that all terms have."""

    weight: Positive

    @property
    def states(self) -> tuple[str, ...]:
        """Names of the recorded states that the term reads off latents."""
        return ()
