"""Tensors on their way to a GPU."""

import torch
from torch import Tensor


def sent(x: Tensor, device: torch.device | str) -> Tensor:
    """`x` on `device`. From the CPU to a GPU it goes by pinned memory: a plain copy would first wait for the GPU.

    Random numbers are drawn on the CPU, so that they are alike on all devices, and sent by this in every step.
    """
    if x.device.type == "cpu" and torch.device(device).type == "cuda":
        return x.pin_memory().to(device, non_blocking=True)
    return x.to(device)
