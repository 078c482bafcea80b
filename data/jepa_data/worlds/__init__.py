"""Simulated worlds: a source of video, actions and ground truth, and a place to act in.

`make_batch` gives many episodes side by side, which is how data is recorded; `make_goal_batch` the same of a world that
sets tasks, which is how plans are scored; `make_env` gives one episode with the Gymnasium API. What a world must have:
`base.py`.
"""

from jepa_data.worlds.env import make_batch, make_env, make_goal_batch, world_names

__all__ = ["make_batch", "make_env", "make_goal_batch", "world_names"]
