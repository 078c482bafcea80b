"""`jepa doctor`: a config to begin with."""

from jepa.training.doctor.advise import advise, clip_of, doctor, training_rate

__all__ = ["advise", "clip_of", "doctor", "training_rate"]
