"""Encode video frame by frame with a causal encoder and a key-value cache: each step is computed once.

    stream = StreamingEncoder(model.encoder)
    for frame in camera:                                            # uint8 [B, 1, C, h, w]
        z = stream.push(model.prepare(frame))                       # [B, 0 or 1, N, D]: a latent when a tubelet is full

Tokens of a causal encoder only attend to the past, so their keys and values never change, and each block caches them:

    cache of a block   | cls | step 0 | step 1 | … | step t |       CLS reads everything, so its row is recomputed at
    new rows            cls'  ···· read ····  and   step t'         every step; no patch reads it

Step t of N tokens costs N * (8*D² + 4*D²*mlp_ratio + 4*(t+1)*N*D) FLOPs per block, instead of the whole clip. The
result equals that of the whole clip; with a `window`, see `StreamingEncoder`.
"""

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from jepa.config import UserError
from jepa.encoders.video_vit import Features, VideoViT
from jepa.transformer import Grid, grid_positions


class StreamingEncoder:
    """A VideoViT for streams of frames; for inference.

    Attributes: steps, latent steps since the last reset; features, tokens [B, N, D], CLS and levels of the latest step
    (CLS is that of all steps so far), None before the first step.

    Args:
        encoder: with attention "causal" or "block_causal".
        window: number of latest latent steps in the cache; None keeps all. With a window, memory and time per step are
            constant. It is an approximation for which the encoder was not trained: no block attends beyond the window
            (deep tokens still depend on older frames, through tokens that attended to them).

    Rotary angles are fp32: call `reset()` before about 100,000 steps. All frames are encoded as video, not as images.

    Raises:
        UserError: the encoder reads the future, or the window holds no step.
    """

    def __init__(self, encoder: VideoViT, window: int | None = None) -> None:
        if encoder.attention == "bidirectional":
            raise UserError(
                "this encoder has bidirectional attention: its tokens read frames that are still to come. Stream one "
                "that was pretrained with encoder.attention=block_causal or causal"
            )
        if window is not None and window < 1:
            raise UserError(f"window counts latent steps and is at least 1, found {window}")
        self.encoder, self.window = encoder, window
        self.reset()

    def reset(self) -> None:
        """Start a new video: clear the cache."""
        self.steps = 0
        self.features: Features | None = None
        self._waiting: Tensor | None = None
        self._grid: Grid | None = None
        self._caches = [_Cache(self.window, self.encoder.summaries) for _ in self.encoder.blocks]

    @torch.no_grad()
    def push(self, frames: Float[Tensor, "B T C h w"]) -> Float[Tensor, "B S N D"]:
        """The latents of the steps that these normalized frames complete; S is 0 if they complete no tubelet.

        Raises:
            ValueError: the patch does not divide the frames, or batch or image size changed since the last reset.
        """
        tubelet = self.encoder.tubelet
        frames = self._with_waiting(frames)
        _, rows, columns = grid = self.encoder.grid(frames[:, :1].expand(-1, tubelet, -1, -1, -1))
        if self._grid not in (None, grid):
            raise ValueError(
                f"the stream began with frames of {self._grid[1:]} patches, found {grid[1:]}; reset() first"
            )
        self._grid = grid
        whole = frames.shape[1] - frames.shape[1] % tubelet
        tokens = [self._step(part, grid) for part in frames[:, :whole].split(tubelet, 1) if whole]
        self._waiting = frames[:, whole:] if whole < frames.shape[1] else None
        if not tokens:
            return frames.new_empty(len(frames), 0, rows * columns, self.encoder.width)
        return torch.stack(tokens, 1)

    @property
    def nbytes(self) -> int:
        """Memory of the cache, in bytes."""
        return sum(cache.nbytes for cache in self._caches)

    def _with_waiting(self, frames: Tensor) -> Tensor:
        waiting = self._waiting
        if waiting is None:
            return frames
        if waiting.shape[:1] + waiting.shape[2:] != frames.shape[:1] + frames.shape[2:]:
            raise ValueError(f"frames of {list(frames.shape)} do not continue those of {list(waiting.shape)}")
        return torch.cat((waiting, frames), 1)

    def _step(self, frames: Float[Tensor, "B tubelet C h w"], grid: Grid) -> Float[Tensor, "B N D"]:
        encoder = self.encoder
        tokens = grid[1] * grid[2]
        index = torch.arange(self.steps * tokens, (self.steps + 1) * tokens, device=frames.device)[None]
        positions = grid_positions(index, grid, encoder.position_grid)
        x = encoder.embed(frames, None, positions, "video")
        rotary = encoder.rotary_table(positions)
        mask = self._mask(tokens, frames.device)
        outputs = []
        for number, (block, cache) in enumerate(zip(encoder.blocks, self._caches, strict=True)):
            x = block.step(x, rotary, cache.append, mask)  # pyright: ignore[reportCallIssue]
            if number in encoder.given_out:
                outputs.append(x)
        self.steps += 1
        self.features = encoder.read_out(outputs)
        return self.features.tokens

    def _mask(self, tokens: int, device: torch.device) -> Bool[Tensor, "1 1 L K"] | None:
        """Attention of CLS and the new tokens to the entries of the caches; None if unmasked."""
        causal = self.encoder.attention == "causal"
        if not causal and not self.encoder.summaries:
            return None
        first, used = _slots(self.steps, tokens, self.window, self.encoder.summaries)
        mask = torch.ones(self.encoder.summaries + tokens, used, dtype=torch.bool, device=device)
        mask[self.encoder.summaries :, : self.encoder.summaries] = False
        if causal:
            mask[self.encoder.summaries :, first : first + tokens].tril_()
        return mask[None, None]


class _Cache:
    """Keys and values of one block: of CLS at this step, then of the cached steps (a ring buffer with a window)."""

    def __init__(self, window: int | None, summaries: int) -> None:
        self.window, self.summaries = window, summaries
        self.steps = 0
        self.stored: Tensor | None = None  # [2, B, heads, room, C]

    def append(
        self, key: Float[Tensor, "B heads L C"], value: Float[Tensor, "B heads L C"]
    ) -> tuple[Float[Tensor, "B heads K C"], Float[Tensor, "B heads K C"]]:
        """Add CLS and one step, and return all that can be attended to, in any order."""
        new = torch.stack((key, value))
        tokens = new.shape[3] - self.summaries
        first, used = _slots(self.steps, tokens, self.window, self.summaries)
        stored = self._with_room(new, used)
        stored[:, :, :, : self.summaries] = new[:, :, :, : self.summaries]
        stored[:, :, :, first : first + tokens] = new[:, :, :, self.summaries :]
        self.steps += 1
        keys, values = stored[:, :, :, :used].unbind()
        return keys, values

    @property
    def nbytes(self) -> int:
        return 0 if self.stored is None else self.stored.nbytes

    def _with_room(self, new: Float[Tensor, "2 B heads L C"], used: int) -> Float[Tensor, "2 B heads room C"]:
        """`stored` with at least `used` slots; a cache without a window doubles when it is full."""
        before = self.stored
        if before is not None and before.shape[1] != new.shape[1]:
            raise ValueError(f"the stream began with {before.shape[1]} clips, found {new.shape[1]}; reset() first")
        if before is None or before.shape[3] < used:
            room = used * (1 + (before is not None))
            if self.window is not None:
                room = self.summaries + self.window * (new.shape[3] - self.summaries)
            self.stored = new.new_zeros(*new.shape[:3], room, new.shape[4])
            if before is not None:
                self.stored[:, :, :, : before.shape[3]] = before
        assert self.stored is not None
        return self.stored


def _slots(steps: int, tokens: int, window: int | None, summaries: int) -> tuple[int, int]:
    """Where the tokens of step number `steps` go, and how many slots are in use afterwards."""
    window = window or steps + 1
    return summaries + steps % window * tokens, summaries + min(steps + 1, window) * tokens
