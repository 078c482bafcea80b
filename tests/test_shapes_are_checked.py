"""The tests would pass over wrong shapes if the import hook in conftest.py did not work; these show that it does."""

import pytest
import torch
from jaxtyping import TypeCheckError

from jepa.methods.base import Batch
from jepa.world_model import block_actions


def test_a_tensor_with_a_missing_axis_is_refused() -> None:
    with pytest.raises(TypeCheckError, match="actions"):
        block_actions(torch.zeros(3, 2), 2)


def test_a_tensor_of_the_wrong_dtype_is_refused() -> None:
    with pytest.raises(TypeCheckError, match="actions"):
        block_actions(torch.zeros(1, 3, 2, dtype=torch.int64), 2)


def test_axes_of_one_name_must_agree_within_a_batch() -> None:
    Batch(video=torch.zeros(4, 8, 3, 16, 16), actions=torch.zeros(4, 7, 2))
    with pytest.raises(TypeCheckError, match="actions"):
        Batch(video=torch.zeros(4, 8, 3, 16, 16), actions=torch.zeros(4, 8, 2))
