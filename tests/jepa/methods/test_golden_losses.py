"""The first 20 losses of each method, on clips that are drawn here: a change of them is a change of the method.

`python tests/jepa/methods/test_golden_losses.py` writes golden_losses.json again.
"""

import json
from pathlib import Path
from typing import Any

import pytest
import torch

from jepa.config import Component, Parts
from jepa.encoders import ENCODERS
from jepa.methods import METHODS
from jepa.methods.base import Batch, ClipShape

FILE = Path(__file__).with_name("golden_losses.json")
STEPS, CLIPS, FRAMES, SIZE = 20, 4, 4, 16
VIT = {"kind": "video_vit", "patch": 8, "width": 24, "depth": 2, "heads": 2}
CONV = {"kind": "conv", "width": 8, "channels": 8, "hidden": 32}
STILL = {"kind": "per_frame", "of": VIT}
CAUSAL = {"kind": "causal", "hidden": 24, "depth": 1, "heads": 2}
MASKED = {"width": 24, "depth": 1, "heads": 2}
DENSE = {"weight": 0.5, "start": 0, "end": 10}
CDIT = {"hidden": 16, "depth": 1, "heads": 2, "context": 2}
RSSM = {"recurrent_size": 16, "hidden": 16, "blocks": 4, "categoricals": 4, "classes": 4}
DREAMER = {"kind": "dreamer_conv", "channels": [4, 8]}
PROJECTOR = {"projector_width": 32, "embedding_width": 16}
CASES: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {
    "lewm": (CONV, {"kind": "lewm", "directions": 16, "predictor": {"hidden": 32}}),
    "pldm": (CONV, {"kind": "pldm", "predictor": {"hidden": 32}}),
    "vjepa": (VIT, {"kind": "vjepa", "predictor": MASKED, "ema": [0.9, 1.0]}),
    "vjepa 2.1": (VIT | {"levels": [0, 1]}, {"kind": "vjepa", "predictor": MASKED, "dense": DENSE}),
    "vpixel": (VIT, {"kind": "vpixel", "predictor": MASKED}),
    "levjepa": (VIT | {"cls_token": True}, {"kind": "levjepa", "drop": 0.5} | PROJECTOR),
    "vjepa_ac": (STILL, {"kind": "vjepa_ac", "predictor": CAUSAL}),
    "dino_wm": (STILL, {"kind": "dino_wm", "predictor": CAUSAL}),
    "latent_dynamics": (
        CONV,
        {"kind": "latent_dynamics", "predictor": {"kind": "unrolled", "hidden": 32, "state": 32}},
    ),
    "nwm": (CONV | {"tubelet": 1}, {"kind": "nwm", "predictor": CDIT}),
    "vae": ({"kind": "vae", "width": 8}, {"kind": "vae"}),
    "dreamer": (DREAMER, {"kind": "dreamer", "decoder_channels": 8, "predictor": RSSM}),
}
IMAGES = {"vae": 64}  # that is its size
ACTIONS = {"nwm": 3}  # forwards, sideways, and a turn


def losses(name: str) -> list[float]:
    """Of 20 steps of AdamW, each on a batch of its own: discs that move, and actions."""
    size, actions = IMAGES.get(name, SIZE), ACTIONS.get(name, 2)
    encoder, method = (read(table, each) for table, each in zip((ENCODERS, METHODS), CASES[name], strict=True))
    torch.manual_seed(0)
    built = METHODS.make(method, ENCODERS.make(encoder, size, FRAMES), ClipShape(FRAMES, actions)).train()
    optimizer = torch.optim.AdamW([p for p in built.parameters() if p.requires_grad], 1e-3)
    found = []
    for step in range(STEPS):
        terms = built.loss(batch(step, size, actions), torch.Generator().manual_seed(step))
        optimizer.zero_grad()
        terms["loss"].backward()
        optimizer.step()
        built.after_step(step + 1, STEPS)
        found.append(terms["loss"].item())
    return found


def read(table: Parts, settings: dict[str, Any]) -> Component:
    return table.config(settings["kind"]).model_validate_json(json.dumps(settings))


def batch(step: int, size: int, width: int) -> Batch:
    """Discs that the first two actions move; what is predicted of them, for Dreamer, is where they are, and an end."""
    generator = torch.Generator().manual_seed(100 + step)
    start = torch.rand(CLIPS, 1, 2, generator=generator)
    actions = torch.rand(CLIPS, FRAMES - 1, width, generator=generator)
    places = torch.cat([start, start + (0.2 * actions[..., :2] - 0.1).cumsum(1)], 1)  # [B, T, 2]
    pixels = (torch.arange(size) + 0.5) / size
    far = (pixels[:, None] - places[..., None, None, 0]) ** 2 + (pixels - places[..., None, None, 1]) ** 2
    video = (-far / 0.02).exp()[:, :, None] * torch.tensor([1.0, 0.5, -1.0])[:, None, None]
    targets = torch.stack([places[..., 0], torch.zeros_like(places[..., 0])], -1)
    return Batch(video, actions, targets=targets)


@pytest.mark.usefixtures("one_thread")
@pytest.mark.parametrize("name", CASES)
def test_the_first_losses_of_each_method_are_those_of_the_release(name: str) -> None:
    expected = json.loads(FILE.read_text())[name]
    found = losses(name)
    # The first is a forward pass. Rounding differs from processor to processor, and training makes it grow.
    assert found[0] == pytest.approx(expected[0], rel=1e-4)
    assert found == pytest.approx(expected, rel=5e-3)


if __name__ == "__main__":
    FILE.write_text(json.dumps({name: [round(x, 6) for x in losses(name)] for name in CASES}, indent=1) + "\n")
