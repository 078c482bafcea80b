"""Frozen features: every clip is encoded once, and all probes read the result.

    loader -> ClipBatch -> encode, encode, ... -> Features, Features, ...      one pass over the videos for all encoders
                                                   |
                                    cached(): FILE.safetensors, for one model, one data set, one way to cut clips

A latent step's state is the state at its last frame. Features stay fp32 on the CPU, tokens side by side as the encoder
made them: E * S * N * D * 4 bytes (500 clips of 20 steps with one token of 64: 2.6 MB; with 64 tokens of 192: 490 MB).
"""

import hashlib
import json
import logging
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float, Int, UInt8
from safetensors import SafetensorError, safe_open
from torch import Tensor, nn

from jepa.config import UserError
from jepa.config.reading import parse_json
from jepa.config.writing import replacing
from jepa.models.checkpoint import write_tensors
from jepa_data.shards.manifest import MANIFEST
from jepa_data.stream.loader import ClipLoader
from jepa_data.types import ClipBatch

logger = logging.getLogger(__name__)

Targets = Callable[[ClipBatch, int], dict[str, Tensor]]  # a batch and frames_per_step -> [B, S, _] by kind
Encode = Callable[[UInt8[Tensor, "B T C h w"]], Float[Tensor, "B S N D"]]


@dataclass(frozen=True)
class Features:
    """What an encoder makes of E clips, and what is true of them.

    Attributes:
        latents: of S steps, N tokens each.
        states: at the last frame of each step; NaN where a quantity does not exist. X may be 0.
        labels: one integer per clip and name; -1 where the label does not apply.
        keys: the sample each clip was cut from. Clips of one sample are never split between fitting and choosing.
        state_names: of the columns of `states`, such as puck.x or body1.visible.
        actions: the P = T-1 raw actions between the frames of each clip; None for plain video.
        spatial: targets of dense probes by kind, see dense/targets.py; {} without.
    """

    latents: Float[Tensor, "E S N D"]
    states: Float[Tensor, "E S X"]
    labels: dict[str, Int[Tensor, " E"]]
    keys: tuple[str, ...]
    state_names: tuple[str, ...]
    actions: Float[Tensor, "E P A"] | None = None
    spatial: dict[str, Float[Tensor, "E S _"]] = field(default_factory=dict)

    def __len__(self) -> int:
        return len(self.keys)


def extract(
    encode: Encode,
    loader: Iterable[ClipBatch],
    frames_per_step: int,
    state_names: Sequence[str],
    *,
    clips: int | None = None,
    targets: Targets | None = None,
) -> Features:
    """Encode every clip of a loader (one made with `shuffle=False`: each sample once).

    Args:
        frames_per_step: frames of one latent step; frames at the end that fill none are left out.
        state_names: of the columns of `ClipBatch.states`.
        clips: stop after so many.
        targets: makes targets of dense probes of a batch.

    Raises:
        UserError: the loader is empty, latents are not finite, or states are not as wide as `state_names` says.
        ValueError: `encode` does not make one latent step of every `frames_per_step` frames.
    """
    return extract_all({"features": encode}, loader, frames_per_step, state_names, clips=clips, targets=targets)[
        "features"
    ]


@torch.no_grad()
def extract_all(
    encodes: Mapping[str, Encode],
    loader: Iterable[ClipBatch],
    frames_per_step: int,
    state_names: Sequence[str],
    *,
    clips: int | None = None,
    targets: Targets | None = None,
) -> dict[str, Features]:
    """`extract` for several encoders at once: the videos are decoded only once, and states and labels are shared."""
    latents: dict[str, list[Tensor]] = {name: [] for name in encodes}
    states: list[Tensor] = []
    actions: list[Tensor] = []
    labels: dict[str, list[Tensor]] = {}
    spatial: dict[str, list[Tensor]] = {}
    keys: list[str] = []
    for batch in loader:
        take = clips and clips - len(keys)
        states.append(_step_states(batch, frames_per_step, state_names)[:take])
        for name, encode in encodes.items():
            z = encode(batch.video[:take]).float().cpu()
            if z.shape[1] != states[-1].shape[1]:
                raise ValueError(
                    f"{name}: {z.shape[1]} latent steps, expected {states[-1].shape[1]} (T / frames_per_step)"
                )
            if not z.isfinite().all():
                raise UserError(
                    f"{name}: the encoder's latents of {batch.keys[0]!r} and the clips after it are not finite"
                )
            latents[name].append(z)
        if batch.actions is not None:
            actions.append(batch.actions[:take].cpu())
        for name, x in batch.labels.items():
            labels.setdefault(name, []).append(x[:take].cpu())
        for kind, x in (targets(batch, frames_per_step) if targets else {}).items():
            spatial.setdefault(kind, []).append(x[:take])
        keys += batch.keys[:take]
        if len(keys) == clips:
            break
    if not keys:
        raise UserError("there is nothing to probe: the split has no clips")
    shared = (
        torch.cat(states),
        {name: torch.cat(x) for name, x in labels.items()},
        tuple(keys),
        tuple(state_names),
        torch.cat(actions) if actions else None,
        {kind: torch.cat(parts) for kind, parts in spatial.items()},
    )
    return {name: Features(torch.cat(parts), *shared) for name, parts in latents.items()}


def split_episodes(
    keys: Sequence[str], *, seed: int, share: float = 0.2
) -> tuple[Int[Tensor, " F"], Int[Tensor, " H"]]:
    """Clips to fit on and clips to choose settings with: both of the training split, no sample in both.

    Raises ValueError for fewer than two samples.
    """
    names = sorted(set(keys))
    if len(names) < 2:
        raise ValueError(
            f"settings are chosen on held-out episodes, so a probe needs at least 2 episodes, found {len(names)}"
        )
    order = torch.randperm(len(names), generator=torch.Generator().manual_seed(seed)).tolist()
    holdout = {names[i] for i in order[: max(1, round(share * len(names)))]}
    chosen = torch.tensor([key in holdout for key in keys])
    return (~chosen).nonzero()[:, 0], chosen.nonzero()[:, 0]


def clip_embedding(latents: Float[Tensor, "E S N D"]) -> Float[Tensor, "E D"]:
    """One vector per clip: the mean over its steps and tokens. It knows what is there, not in which order."""
    return latents.mean((1, 2))


def fingerprint(module: nn.Module, loader: ClipLoader) -> dict[str, Any]:
    """What features depend on: the weights, the data set, the split, and how clips are cut."""
    digest = hashlib.sha256()
    for name, x in sorted(module.state_dict().items()):
        digest.update(f"{name} {x.dtype} {tuple(x.shape)}".encode())
        digest.update(x.detach().cpu().contiguous().flatten().view(torch.uint8).numpy().tobytes())
    manifests = [hashlib.sha256(source.store.fetch(MANIFEST).read_bytes()).hexdigest() for source in loader.sources]
    cut = ("clip_frames", "fps", "stride", "clips_per_video", "start_seconds", "short")
    seen = ("image_size", "fit", "shortest_edge")
    return {
        "model": digest.hexdigest(),
        "data": manifests,
        "split": loader.split,
        "clips": {name: getattr(loader.config, name) for name in cut + seen},
    }


def cached(path: Path, wanted: Mapping[str, Any], make: Callable[[], Features]) -> Features:
    """The features in `path` if they were made from what is wanted, else `make()`, which is then stored there.

    Args:
        path: a .safetensors file; fingerprint, keys and names stand as JSON in its header. Replaced in one step.
        wanted: see `fingerprint`; anything that JSON can hold.
    """
    wanted = json.loads(json.dumps(wanted))  # tuples become lists, as they do in the file
    if path.is_file():
        try:
            with safe_open(path, "pt") as file:
                about = parse_json((file.metadata() or {})["features"])
                changed = sorted(k for k in wanted | about["of"] if wanted.get(k) != about["of"].get(k))
                if not changed:
                    return _assemble({name: file.get_tensor(name) for name in file.keys()}, about)  # noqa: SIM118
            logger.info(f"{path}: features of another {' and '.join(changed)}; computed again")
        except (SafetensorError, KeyError, ValueError) as error:
            logger.info(f"{path}: not readable ({error}); computed again")
    features = make()
    path.parent.mkdir(parents=True, exist_ok=True)
    tensors = {"latents": features.latents, "states": features.states}
    tensors |= {f"label.{name}": x for name, x in features.labels.items()}
    tensors |= {f"spatial.{kind}": x for kind, x in features.spatial.items()}
    if features.actions is not None:
        tensors["actions"] = features.actions
    about = {"of": wanted, "keys": features.keys, "state_names": features.state_names}
    with replacing(path) as partial:
        write_tensors({name: x.contiguous() for name, x in tensors.items()}, partial, {"features": json.dumps(about)})
    return features


def _assemble(tensors: dict[str, Tensor], about: Mapping[str, Any]) -> Features:
    labels = {name.removeprefix("label."): x for name, x in tensors.items() if name.startswith("label.")}
    spatial = {name.removeprefix("spatial."): x for name, x in tensors.items() if name.startswith("spatial.")}
    names = tuple(about["state_names"])
    keys = tuple(about["keys"])
    return Features(tensors["latents"], tensors["states"], labels, keys, names, tensors.get("actions"), spatial)


def _step_states(batch: ClipBatch, frames_per_step: int, state_names: Sequence[str]) -> Float[Tensor, "B S X"]:
    last = torch.arange(frames_per_step - 1, batch.video.shape[1], frames_per_step)
    if batch.states is None:
        if state_names:
            raise UserError(f"the clips have no states, expected {len(state_names)} columns")
        return torch.empty(len(batch), len(last), 0)
    if batch.states.shape[-1] != len(state_names):
        raise UserError(f"the clips have {batch.states.shape[-1]} state columns, expected {len(state_names)}")
    return batch.states[:, last].float().cpu()
