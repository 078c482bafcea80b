"""Simulated worlds: sources of video, actions and true states, and environments to act in.

`make_batch` makes many parallel episodes, to record data. `make_goal_batch` does the same for worlds with tasks, to
evaluate plans. `make_env` makes one episode with the Gymnasium API. `base.py` defines the interface of a world.
"""

from jepa_data.worlds.env import make_batch, make_env, make_goal_batch, world_names

__all__ = ["make_batch", "make_env", "make_goal_batch", "world_names"]
