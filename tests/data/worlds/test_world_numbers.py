"""The same (seed, episode, policy) gives the numbers and images it gave when version 1 of each world was recorded.

Numbers are compared within a tolerance, because processors and OpenGL drivers round differently. A world that changes
for good gets another `version`, and then `python tests/data/worlds/test_world_numbers.py` writes the file again.
"""

import json
import os
from pathlib import Path

import numpy as np
import pytest

from jepa_data.errors import DataError
from jepa_data.worlds import make_batch, world_names
from jepa_data.worlds.base import GoalBatch

FILE = Path(__file__).with_name("world_numbers.json")
NAMES = [*(name for name in world_names() if name != "gym:ID"), "gym:Pendulum-v1", "gym:CartPole-v1"]
FRAMES = 16


def numbers(name: str) -> dict[str, object]:
    """Of two episodes: what each policy does, where that ends, what is seen there, and goals drawn there."""
    batch = make_batch(name, np.array([3, 70]), image_size=32, seed=5)
    values: dict[str, object] = {"version": batch.version, "labels": {k: x.tolist() for k, x in batch.labels.items()}}
    for policy in batch.policies:
        world = batch.take(np.arange(2))
        actions = world.act(policy, [np.random.default_rng([7, e]) for e in range(2)], FRAMES)
        for t in range(FRAMES - 1):
            world.step(actions[:, t])
        image = world.render().astype(float)
        values[policy] = {
            "actions": actions.sum(1).round(5).tolist(),
            "states": np.nan_to_num(world.states(), nan=-1).astype(float).round(5).tolist(),
            "rows": image.mean((2, 3)).round(2).tolist(),
            "columns": image.mean((1, 3)).round(2).tolist(),
        }
        if isinstance(world, GoalBatch):
            goals = world.draw_goals(np.random.default_rng(0))
            values[policy] |= {"goals": goals.round(5).tolist(), "distance": world.distance(goals).round(5).tolist()}
    return values


@pytest.mark.parametrize("name", NAMES)
def test_a_seed_gives_what_it_always_gave(name: str) -> None:
    try:
        measured = numbers(name)
    except DataError as error:
        if os.environ.get("CI") or not ("pip install" in str(error) or "apt install" in str(error)):
            raise
        pytest.skip(f"{name} is not here: {error}")
    expected = json.loads(FILE.read_text())[name]
    assert measured.keys() == expected.keys()
    assert (measured.pop("version"), measured.pop("labels")) == (expected.pop("version"), expected.pop("labels"))
    for policy, values in expected.items():
        for key, value in values.items():
            tolerance = 1.0 if key in ("rows", "columns") else 1e-3  # gray levels of 255, units of the state
            np.testing.assert_allclose(
                measured[policy][key], value, rtol=1e-3, atol=tolerance, err_msg=f"{policy} {key}"
            )


if __name__ == "__main__":
    FILE.write_text(json.dumps({name: numbers(name) for name in NAMES}) + "\n")
