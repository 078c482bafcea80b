"""A small convolutional decoder: the latents of one step -> the image of that step's last frame.

It is fitted on frozen latents, so it shows what they hold; what they do not hold comes out as blur.

    N = 1      D -> 256 -> 8x8 map ─┐
                                    ├─ conv, pixel shuffle x2 … conv, pixel shuffle x4, + the mean image, sigmoid
    N = g·g    tokens -> gxg map   ─┘

Nothing is computed at full resolution: on a CPU that is what makes it fit in seconds.
"""

import math
from collections.abc import Callable

import torch
from einops import rearrange
from jaxtyping import Float, UInt8
from torch import Tensor, nn

VECTOR_GRID = 8  # pixels a side of the map that a vector latent is unfolded to
VECTOR_HIDDEN = 256
LAST_SHUFFLE = 4  # the last layer paints blocks of at most so many pixels a side (unless the rest of the way is odd)
BATCH = 64
PEAK_LR = 1e-2
RARE = 0.1  # weight at first of a pixel as unlike the mean image as pixels are on average, beside the 1 of all


class PixelDecoder(nn.Module):
    """Latents [B, N, D] -> images [B, 3, h, w] in 0..1.

    Args:
        tokens: N; 1, or a square number of tokens in rows (as VideoViT orders them).
        width: D.
        image_size: height and width in pixels, a multiple of the token grid (of 8 for N = 1).
        channels: of the maps, a multiple of 4.

    Raises:
        ValueError: the tokens are no square, or the image is no multiple of their grid.
    """

    mean: Tensor
    std: Tensor
    base: Tensor

    def __init__(self, tokens: int, width: int, image_size: int, *, channels: int = 32) -> None:
        super().__init__()
        grid = VECTOR_GRID if tokens == 1 else math.isqrt(tokens)
        if tokens < 1 or (tokens != 1 and grid * grid != tokens) or image_size % grid:
            raise ValueError(
                f"a pixel decoder needs 1 token, or a square grid of them that divides the image; "
                f"found {tokens} tokens for {image_size} pixels"
            )
        # What makes another one like it.
        self.settings = {"tokens": tokens, "width": width, "image_size": image_size, "channels": channels}
        self.shape = (tokens, width)
        self.grid = grid
        self.register_buffer("mean", torch.zeros(width))
        self.register_buffer("std", torch.ones(width))
        self.register_buffer("base", torch.zeros(3, image_size, image_size))  # logits of the mean image
        if tokens == 1:
            self.enter = nn.Sequential(
                nn.Linear(width, VECTOR_HIDDEN), nn.SiLU(), nn.Linear(VECTOR_HIDDEN, channels * grid * grid), nn.SiLU()
            )
        else:
            self.enter = nn.Sequential(nn.Linear(width, channels), nn.SiLU())
        layers: list[nn.Module] = []
        factor = image_size // grid
        while factor > LAST_SHUFFLE and factor % 2 == 0:
            factor //= 2
            convolution = nn.Conv2d(channels, 4 * channels, 3, padding=1)
            layers += [convolution, nn.PixelShuffle(2), nn.GroupNorm(4, channels), nn.SiLU()]
        self.grow = nn.Sequential(*layers, nn.Conv2d(channels, 3 * factor**2, 3, padding=1), nn.PixelShuffle(factor))

    def forward(self, z: Float[Tensor, "B N D"]) -> Float[Tensor, "B 3 h w"]:
        """Raises ValueError for latents of another shape than it was made for."""
        return torch.sigmoid(self._logits(z))

    @torch.no_grad()
    def decode(self, z: Float[Tensor, "B S N D"], *, chunk: int = 256) -> UInt8[Tensor, "B S 3 h w"]:
        """Videos of latents, one frame a step, 0..255."""
        parts = [(self(part) * 255).round().to(torch.uint8) for part in z.flatten(0, 1).split(chunk)]
        return torch.cat(parts).unflatten(0, z.shape[:2])

    def _logits(self, z: Float[Tensor, "B N D"]) -> Float[Tensor, "B 3 h w"]:
        if z.shape[1:] != self.shape:
            raise ValueError(f"decodes latents [B, {self.shape[0]}, {self.shape[1]}], found {list(z.shape)}")
        x = self.enter((z - self.mean) / self.std)
        pattern = "b 1 (c y x) -> b c y x" if self.shape[0] == 1 else "b (y x) c -> b c y x"
        return self.grow(rearrange(x, pattern, y=self.grid, x=self.grid).contiguous()) + self.base


def fit_pixel_decoder(
    latents: Float[Tensor, "M N D"],
    frames: UInt8[Tensor, "M 3 h w"],
    *,
    steps: int = 250,
    seed: int = 0,
    channels: int = 32,
    on_step: Callable[[int, float], None] | None = None,
) -> PixelDecoder:
    """Fit a decoder on M latents and the last frame of the step each stands for. About 15 s on one thread at 64 px.

    Squared error, from the mean image on. At first pixels unlike the mean image count more (`RARE`), or small
    things would be left out; in the end all count alike, so that what the latents do not hold is blurred, not made up.

    Args:
        latents: detached; the device they are on is the device used.
        frames: square images, 0..255.
        steps: optimizer steps on 64 pairs each.
        seed: of the weights and the order; it leaves the global generator alone.
        on_step: called with (step, loss) after each step.

    Raises:
        ValueError: no latents, as many frames as latents are not there, or their shapes do not fit a decoder.
    """
    if not len(latents) or len(latents) != len(frames) or frames.shape[-1] != frames.shape[-2]:
        raise ValueError(f"expected one square image per latent, found {list(latents.shape)} and {list(frames.shape)}")
    device = latents.device
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        decoder = PixelDecoder(latents.shape[1], latents.shape[2], frames.shape[-1], channels=channels).to(device)
    _prepare(decoder, latents, frames)
    mean_image = decoder.base.sigmoid()
    optimizer = torch.optim.AdamW(decoder.parameters(), PEAK_LR, weight_decay=1e-4)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, PEAK_LR, total_steps=max(steps, 1), pct_start=0.1)
    generator = torch.Generator().manual_seed(seed)
    for step in range(steps):
        index = torch.randint(len(latents), (min(BATCH, len(latents)),), generator=generator)
        target = frames[index].to(device).float() / 255
        with torch.enable_grad():
            unlike = (target - mean_image).square().mean(1, keepdim=True)
            weight = 1 + RARE * (1 - step / steps) * unlike / unlike.mean().clamp_min(1e-12)
            loss = (weight * (decoder(latents[index.to(device)].detach()) - target).square()).mean()
            optimizer.zero_grad()
            loss.backward()
        optimizer.step()
        schedule.step()
        if on_step:
            on_step(step + 1, loss.item())
    return decoder.eval().requires_grad_(False)


def _prepare(decoder: PixelDecoder, latents: Float[Tensor, "M N D"], frames: UInt8[Tensor, "M 3 h w"]) -> None:
    """Standardize the latents and start from the mean image."""
    flat = latents.detach().flatten(0, 1)
    decoder.mean.copy_(flat.mean(0))
    decoder.std.copy_(flat.std(0, correction=0).clamp_min(1e-6))
    sample = frames[:: max(1, len(frames) // 2000)].to(latents.device).float() / 255
    decoder.base.copy_(sample.mean(0).clamp(0.01, 0.99).logit())
