"""No training step asks its device for a number: on a GPU, it would wait there for all that it has asked for before."""

import traceback
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from jepa.normalize import NormalizationStats, Standardize
from jepa_data.config import AugmentConfig, CropConfig
from jepa_data.transforms import to_input
from jepa_data.types import ClipBatch
from tests.jepa.test_rank_losses import CASES, batch, build, loss_and_gradients

ASKING = ("_local_scalar_dense", "nonzero", "masked_select", "is_nonzero", "equal.default", "unique")
ON_THE_CPU = ("/jepa/masks/",)  # masks are drawn there, and sent


class Waits(TorchDispatchMode):
    """Where a number was asked for, in the words of a traceback."""

    def __init__(self) -> None:
        super().__init__()
        self.places = list[str]()

    def __torch_dispatch__(self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None) -> Any:
        asks = any(name in str(func) for name in ASKING)
        if str(func) == "aten.index.Tensor":
            asks = any(isinstance(x, Tensor) and x.dtype is torch.bool for x in args[1])
        if asks:
            frames = [f"{f.filename}:{f.lineno} {f.line}" for f in traceback.extract_stack() if "/jepa" in f.filename]
            if not any(place in frame for place in ON_THE_CPU for frame in frames):
                self.places.append(f"{func}: {frames[-1]}")
        return func(*args, **(kwargs or {}))


@pytest.mark.parametrize("name", sorted(set(CASES) - {"vjepa of images and video"}))  # parts of a batch are chosen
def test_loss_and_gradients_ask_for_no_number(name: str) -> None:
    method, clips = build(name), batch(name)
    with Waits() as waits:
        loss_and_gradients(method, clips)
    assert not waits.places


def test_changes_of_clips_ask_for_no_number() -> None:
    augment = AugmentConfig(crop=CropConfig(), flip=0.5, color=0.5, gray=0.2)
    video = torch.randint(256, (2, 3, 3, 24, 24), dtype=torch.uint8)
    clips = ClipBatch(video, None, None, ("a", "b"), torch.zeros(2), seeds=torch.tensor([1, 2]))
    with Waits() as waits:
        to_input(clips, augment, (0.5, 0.5, 0.5), (0.25, 0.25, 0.25))
    assert all("seeds.tolist" in place for place in waits.places), "seeds stay on the CPU"


def test_a_number_that_is_asked_for_is_found() -> None:
    with Waits() as waits:
        Standardize(2).fit(NormalizationStats(torch.zeros(2), torch.ones(2)))
    assert waits.places
