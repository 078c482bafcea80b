"""Learning-rate schedules: a factor of the learning rate for every step."""

from jepa.config import Parts

SCHEDULES = Parts(  # built over (learning rate, steps of the run)
    "schedules",
    "jepa.training.schedules.base:Schedule",
    cosine="jepa.training.schedules.cosine:Cosine",
    flat="jepa.training.schedules.flat:Flat",
    wsd="jepa.training.schedules.wsd:WSD",
    linear="jepa.training.schedules.linear:Linear",
)
