"""Simulated worlds: a source of video, actions and ground truth, and a place to act in.

`make_batch` gives many episodes side by side, which is how data is recorded and plans are scored; `make_env` gives one
of them with the Gymnasium API.
"""

from jepa_data.worlds.env import make_batch, make_env, world_names

__all__ = ["make_batch", "make_env", "world_names"]
