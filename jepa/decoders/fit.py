"""Fits a decoder on frozen latents, so that small things which move are not left out.

    error  = Σ weight * (decoded - true)²          weight = 1 + moving_weight * moving / its mean over all pixels
    moving = (frame - the mean frame of its clip)²

A dot of eight pixels is less than a hundredth of an image of 32 px: unweighted, leaving it out costs nearly nothing,
and that is what a decoder does first. What moves is what differs from the mean of its own clip; walls and light, which
differ between episodes only, get no more weight than the rest. In the last third the extra weight falls to zero: then
all pixels count alike, and what the latents do not hold is blurred, not made up.
"""

from collections.abc import Callable

import torch
from jaxtyping import Float, UInt8
from torch import Tensor

from jepa.decoders import DECODERS
from jepa.decoders.base import Decoder, DecoderConfig

BATCH = 64
FALL = 1 / 3  # share of the steps, at the end, in which the extra weight falls to zero
SAMPLE = 2000  # frames that the mean image and the mean of `moving` are taken of


def fit_decoder(
    config: DecoderConfig,
    latents: Float[Tensor, "E S N D"],
    frames: UInt8[Tensor, "E S 3 h w"],
    *,
    steps: int = 1000,
    seed: int = 0,
    moving_weight: float = 0.1,
    on_step: Callable[[int, float], None] | None = None,
) -> Decoder:
    """Fit a decoder on the latents of E clips of S steps and the last frame of each step.

    Args:
        config: of a kind in `DECODERS`.
        latents: detached; the device they are on is the device used.
        frames: square images, 0..255, of training clips.
        steps: optimizer steps on 64 pairs each.
        seed: of the weights, the order and the noise; the global generator is left alone.
        moving_weight: extra weight of a pixel that moves as much as pixels do on average, beside the 1 of all.
        on_step: called with (step, loss) after each step.

    Raises:
        ValueError: there are no latents, as many frames as latents are not there, or their shapes do not fit a decoder.
    """
    if not latents.numel() or latents.shape[:2] != frames.shape[:2] or frames.shape[-1] != frames.shape[-2]:
        raise ValueError(f"expected one square image per latent, found {list(latents.shape)} and {list(frames.shape)}")
    device = latents.device
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        decoder: Decoder = DECODERS.make(config, *latents.shape[2:], frames.shape[-1]).to(device)
    z = latents.detach().flatten(0, 1)
    images = frames.flatten(0, 1)
    moving = Moving(frames)
    decoder.prepare(z, moving.mean_image.to(device))
    optimizer = torch.optim.AdamW(decoder.parameters(), decoder.peak_lr, weight_decay=1e-4, fused=True)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, decoder.peak_lr, total_steps=max(steps, 1), pct_start=0.1)
    generator = torch.Generator().manual_seed(seed)
    for step in range(steps):
        index = torch.randint(len(z), (min(BATCH, len(z)),), generator=generator)
        target = images[index.to(images.device)].to(device).float() / 255
        extra = moving_weight * min(1.0, (1 - step / steps) / FALL)
        weight = 1 + extra * moving(target, index)
        with torch.enable_grad():
            loss = decoder.error(z[index.to(device)], target, weight, generator)
            optimizer.zero_grad()
            loss.backward()
        optimizer.step()
        schedule.step()
        if on_step:
            on_step(step + 1, loss.item())
    return decoder.eval().requires_grad_(False)


class Moving:
    """How much pixels of frames differ from the mean frame of their clip, relative to the average pixel.

    Args:
        frames: of E clips of S frames; with one frame a clip, they are compared with the mean of all clips.
    """

    def __init__(self, frames: UInt8[Tensor, "E S 3 h w"]) -> None:
        self.steps = frames.shape[1]
        flat = frames.flatten(0, 1)
        every = max(1, len(flat) // SAMPLE)
        sample = flat[::every].float() / 255
        self.mean_image = sample.mean(0)
        if self.steps > 1:
            self.means = torch.stack([(clip.float() / 255).mean(0).half() for clip in frames])
        else:
            self.means = self.mean_image.half()[None].expand(len(frames), -1, -1, -1)
        clips = torch.arange(0, len(flat), every, device=flat.device) // self.steps
        self.average = (sample - self.means[clips].float()).square().mean().item()

    def __call__(self, target: Float[Tensor, "B 3 h w"], index: Tensor) -> Float[Tensor, "B 1 h w"]:
        """Of frames [B] with these numbers among all E*S, 0..1; about 1 on average."""
        means = self.means[index.to(self.means.device) // self.steps].to(target)
        return (target - means).square().mean(1, keepdim=True) / max(self.average, 1e-12)
