"""The state of a causal predictor: keys and values of past frames, shared by candidates with the same past.

past    | segment: frames 0 … 3 | segment: frame 4 | …       each frame is computed once, and never changes
z                                                      z 5   the latest frame, whose action is not known yet
"""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

Pair = tuple[Tensor, Tensor]  # keys and values of a block, [B, heads, L, C]


@dataclass(frozen=True)
class Segment:
    """Keys and values of some frames, a pair for each block. `rows`: the row of each candidate, so that candidates can
    share rows; None: one row each."""

    pairs: tuple[Pair, ...]
    rows: Int[Tensor, " B"] | None = None

    def gather(self, index: Int[Tensor, " M"]) -> "Segment":
        return Segment(self.pairs, index if self.rows is None else self.rows[index])

    def read(self, block: int) -> Pair:
        key, value = self.pairs[block]
        return (key, value) if self.rows is None else (key[self.rows], value[self.rows])

    def detach(self) -> "Segment":
        return Segment(tuple((key.detach(), value.detach()) for key, value in self.pairs), self.rows)

    def nbytes(self) -> int:
        rows = 0 if self.rows is None else self.rows.nbytes
        return rows + sum(key.nbytes + value.nbytes for key, value in self.pairs)


@dataclass(frozen=True)
class CausalState:
    """`steps` frames in `past`, and the latest frame `z`, whose action is not known yet, with its `state` and `camera`;
    None if the predictor takes none."""

    past: tuple[Segment, ...]
    steps: int
    z: Float[Tensor, "B N D"]
    state: Float[Tensor, "B X"] | None = None
    camera: Float[Tensor, "B E"] | None = None

    def repeat(self, k: int) -> "CausalState":
        """Does not copy the past."""
        return self.gather(torch.arange(len(self.z), device=self.z.device).repeat_interleave(k))

    def gather(self, index: Int[Tensor, " M"]) -> "CausalState":
        past = tuple(part.gather(index) for part in self.past)
        given = where_given(lambda x: x[index], self.state, self.camera)
        return CausalState(past, self.steps, self.z[index], *given)

    def detach(self) -> "CausalState":
        past = tuple(part.detach() for part in self.past)
        return CausalState(past, self.steps, self.z.detach(), *where_given(Tensor.detach, self.state, self.camera))

    def nbytes(self) -> int:
        own = sum(x.nbytes for x in (self.z, self.state, self.camera) if x is not None)
        return own + sum(part.nbytes() for part in self.past)


def where_given(function: Callable[[Tensor], Tensor], *tensors: Tensor | None) -> list[Tensor | None]:
    """Apply `function` to each tensor; None stays None."""
    return [None if x is None else function(x) for x in tensors]


def append(before: list[Pair], pairs: list[Pair] | None, key: Tensor, value: Tensor) -> Pair:
    """Append new keys and values, and return all that can be read."""
    if pairs is not None:  # copies: these are views of memory that holds the queries too
        pairs.append((key.clone(), value.clone()))
    if not before:
        return key, value
    keys, values = zip(*before, (key, value), strict=True)
    return torch.cat(keys, 2), torch.cat(values, 2)


def trim(past: tuple[Segment, ...], window: int | None, frame: int) -> tuple[Segment, ...]:
    """Drop what the next frame does not read; `frame`: tokens per frame."""
    if window is None:
        return past
    kept = list[Segment]()
    tokens = (window - 1) * frame
    for part in reversed(past):
        if tokens <= 0:
            break
        length = min(tokens, part.pairs[0][0].shape[2])
        kept.insert(0, Segment(tuple((k[:, :, -length:], v[:, :, -length:]) for k, v in part.pairs), part.rows))
        tokens -= length
    return tuple(kept)


def frame_mask(
    first: int, steps: int, tokens: int, window: int | None, device: torch.device
) -> Bool[Tensor, "1 1 L K"]:
    """True where a token of the new frames may read: its own frame and all before, or the last ones of them."""
    frame = torch.arange((first + steps) * tokens, device=device) // tokens
    ago = frame[first * tokens :, None] - frame
    return ((ago >= 0) & (ago < (window or first + steps)))[None, None]
