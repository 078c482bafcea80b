"""What frozen latents know, beside what is known without pretraining."""

from jepa.config import Parts

# Those that classify clips. A new one is a file like these and a line here; see base.py.
PROBES = Parts(
    "probes",
    "jepa_probes.probing.base:ClassProbe",
    linear="jepa_probes.probing.linear:LinearProbe",
    attentive="jepa_probes.probing.attentive:AttentiveProbe",
    knn="jepa_probes.probing.knn:NeighborProbe",
)
