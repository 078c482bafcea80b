"""What the clip stream yields.

Shapes: B clips · T frames · S latent steps · N tokens · D width · C channels · h w pixels
· A action width · X state width · E events.
`actions[:, t]` takes frame t to frame t+1, so T frames have T-1 actions.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from jaxtyping import Bool, Float, Int, Int64, Shaped, UInt8
from torch import Tensor

from jepa_data.devices import sent


@dataclass(frozen=True)
class ClipBatch:
    """One batch of clips, all of the same length and size.

    Attributes:
        video: RGB, 0..255; without pixels (h = w = 0) where `latents` are read in its place.
        latents: of a frozen encoder, S steps of N tokens; None: there is video.
        actions: what the agent did between neighboring frames; None for plain video.
        events: which named events happen between neighboring frames, 0 or 1 for each of E; None if there are none.
        states: ground truth per frame, NaN where a quantity does not exist in an episode; None for plain video.
        labels: one integer per clip and label name; -1 where the label does not apply.
        spatial: what `data.spatial` asks for, at the frames and in the pixels of `video`: "mask" uint8 [B, T, h, w],
            "depth" float32 [B, T, h, w], "keypoints" [B, T, K, 2 or 3], "pose" [B, T, P, 3 or 7]; see spatial/kinds.py.
        keys: the sample each clip was cut from.
        start_seconds: where in its video each clip starts.
        is_image: whether a clip is one image, repeated.
        seeds: of the random numbers of each clip, which are drawn on the CPU: the same for any number of workers and
            ranks.
    """

    video: UInt8[Tensor, "B T C h w"]
    actions: Float[Tensor, "B T-1 A"] | None
    states: Float[Tensor, "B T X"] | None
    keys: tuple[str, ...]
    start_seconds: Float[Tensor, " B"]
    is_image: Bool[Tensor, " B"] | None = None
    seeds: Int64[Tensor, " B"] | None = None
    latents: Float[Tensor, "B S N D"] | None = None
    labels: dict[str, Int[Tensor, " B"]] = field(default_factory=dict)
    spatial: dict[str, Shaped[Tensor, "B T ..."]] = field(default_factory=dict)
    events: Float[Tensor, "B T-1 E"] | None = None

    def to(self, device: torch.device | str, non_blocking: bool = False) -> "ClipBatch":
        """The same batch with every tensor but `seeds` on `device`; with `non_blocking` without a wait for a GPU."""

        def moved(values: Mapping[str, Any]) -> dict[str, Any]:
            tensors = {name: x for name, x in values.items() if isinstance(x, Tensor) and name != "seeds"}
            return {name: sent(x, device) if non_blocking else x.to(device) for name, x in tensors.items()}

        return replace(self, **moved(vars(self)), labels=moved(self.labels), spatial=moved(self.spatial))

    def __len__(self) -> int:
        return len(self.keys)
