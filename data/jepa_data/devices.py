"""What a device can do, and tensors on their way to a GPU."""

import torch
from torch import Tensor


def sent(x: Tensor, device: torch.device | str) -> Tensor:
    """`x` on `device`. From the CPU to a GPU it goes by pinned memory: a plain copy would first wait for the GPU.

    Random numbers are drawn on the CPU, so that they are alike on all devices, and sent by this in every step.
    """
    if x.device.type == "cpu" and torch.device(device).type == "cuda":
        return x.pin_memory().to(device, non_blocking=True)
    return x.to(device)


def multiplies_bf16(device: torch.device | str) -> bool:
    """Whether its products in bf16 are native. Where they are not, they can take seventy times as long as in fp32."""
    if torch.device(device).type == "cuda":
        return torch.cuda.is_bf16_supported()
    capabilities = torch.cpu.get_capabilities()
    return bool(capabilities.get("avx512_bf16") or capabilities.get("amx_bf16"))
