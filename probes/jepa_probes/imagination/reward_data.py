"""What the rewards and ends in a run's recordings are to those that learn to act from them.

    frames of an episode   f0 f1 f2 f3 f4 f5 f6 f7 f8 f9       reward[t] is of what led to frame t
    latent steps, of 4           [    z0   ] [    z1   ]       laid so that the last one ends where the episode did
    rewards                        r2+…+r5     r6+…+r9         NaN where a step begins with the episode

Whole episodes are read, as a clip from the middle would never show an end; each step is encoded on its own, as the
policy sees it.
"""

from dataclasses import dataclass, replace

import numpy as np
import torch
from jaxtyping import Bool, Float
from torch import Tensor

from jepa.agents.imagination.dream import Recorded
from jepa.agents.imagination.heads import ContinueHead, HeadSettings, fit_continue, fit_reward
from jepa.agents.imagination.mdn_memory import Memory
from jepa.agents.imagination.reward import Head
from jepa.agents.policy import stride_of
from jepa.config import UserError
from jepa.r2 import r2_score
from jepa.world_model import LatentWorldModel
from jepa_data.config import StreamConfig
from jepa_data.decode import Limits, get_backend
from jepa_data.shards.index import ShardSet
from jepa_data.shards.read import ClipSpec, SampleReader
from jepa_data.worlds.gym import REWARD, TERMINATED
from jepa_probes.probing.features import split_episodes


@dataclass(frozen=True)
class RewardData:
    """Latents of whole episodes, as a controller sees them, and what they were worth.

    Attributes:
        latents: of M moments, the episodes one after the other.
        actions: that led there; at the first of an episode, 0.
        rewards: of the latent step that led there; NaN at the first of an episode.
        terminated: whether the world terminated there; false where a time limit cut the recording.
        episodes: of each moment.
    """

    latents: Float[Tensor, "M N D"]
    actions: Float[Tensor, "M E"]
    rewards: Float[Tensor, " M"]
    terminated: Bool[Tensor, " M"]
    episodes: tuple[str, ...]


@dataclass(frozen=True)
class Heads:
    """What is known of a world that rewards by itself.

    Attributes:
        starts: where dreams start: no ends.
        reward, continues: of a latent; no `continues` where no recorded episode terminated.
        metrics: how well that is known, on episodes that other heads were not fitted to: `reward_r2`, the share of the
            variance of rewards explained, and the mean chance to go on, at ends and elsewhere.
    """

    starts: Recorded
    reward: Head
    continues: ContinueHead | None
    metrics: dict[str, float]


def heads_of(
    model: LatentWorldModel,
    data: StreamConfig,
    settings: HeadSettings,
    seed: int,
    episodes: int | None,
    memory: Memory | None = None,
) -> Heads:
    """Fit them to the run's recordings, on latents or, with `memory`, on [z, h, c].

    Raises:
        UserError: as `collected_rewards`, or for one episode only.
    """
    samples = collected_rewards(model, data, episodes)
    if memory is not None:
        samples = replace(samples, latents=_beliefs(memory, samples))
    if len(set(samples.episodes)) < 2:
        raise UserError(f"{data.folder}: heads are tried on episodes held out, so two are needed, found one")
    fit, holdout = split_episodes(samples.episodes, seed=seed)
    metrics = _tried(samples, fit, holdout, settings, seed)
    known = samples.rewards.isfinite()
    reward = fit_reward(samples.latents[known], samples.rewards[known], settings, seed)
    continues = fit_continue(samples.latents, samples.terminated, settings, seed) if samples.terminated.any() else None
    going = ~samples.terminated
    keys = [key for key, goes_on in zip(samples.episodes, going.tolist(), strict=True) if goes_on]
    return Heads(Recorded(samples.latents[going][:, None], keys), Head(reward), continues, metrics)


@torch.no_grad()
def _beliefs(memory: Memory, data: RewardData) -> Float[Tensor, "M 1 F"]:
    numbers = {name: number for number, name in enumerate(dict.fromkeys(data.episodes))}
    return memory.along(data.latents, data.actions, torch.tensor([numbers[name] for name in data.episodes]))


@torch.no_grad()
def _tried(data: RewardData, fit: Tensor, holdout: Tensor, settings: HeadSettings, seed: int) -> dict[str, float]:
    """How well heads that are fitted to some of the episodes know the others."""
    known = data.rewards.isfinite()
    rows, others = fit[known[fit]], holdout[known[holdout]]
    metrics: dict[str, float] = {}
    if len(rows) and len(others):
        head = fit_reward(data.latents[rows], data.rewards[rows], settings, seed)
        r2 = r2_score(head(data.latents[others])[:, None], data.rewards[others, None])
        if not r2.isnan():  # a reward that is always the same needs no head
            metrics["reward_r2"] = r2.item()
    if data.terminated[fit].any() and data.terminated[holdout].any():
        goes_on = fit_continue(data.latents[fit], data.terminated[fit], settings, seed)(data.latents[holdout])
        metrics["goes_on_at_ends"] = goes_on[data.terminated[holdout]].mean().item()
        metrics["goes_on_elsewhere"] = goes_on[~data.terminated[holdout]].mean().item()
    return metrics


@torch.no_grad()
def collected_rewards(model: LatentWorldModel, data: StreamConfig, episodes: int | None) -> RewardData:
    """Latents, rewards and ends of the training episodes; at most the first `episodes`, None: all.

    Raises:
        UserError: no rewards were recorded, or no episode is as long as a latent step.
    """
    shards = ShardSet.open(data.folder)
    about = shards.manifest
    if {REWARD, TERMINATED} - set(about.state_names) or about.fps is None:
        raise UserError(
            f"{data.folder}: no rewards were recorded. `jepa data record gym:ID` keeps those of the environment: "
            "record it again, or choose a reward of another kind"
        )
    columns = [about.state_names.index(name) for name in (REWARD, TERMINATED)]
    limits = Limits(timeout_seconds=data.decode_seconds)
    reader = SampleReader(shards.store, get_backend(data.backend), limits, None, 0, 0)
    stride = stride_of(about.fps, model)
    samples = shards.split("train")
    parts = list[RewardData]()
    for number in range(len(samples))[:episodes]:
        sample = shards.probed(samples[number])
        images, contents = reader.clips(sample, ClipSpec(np.arange(sample.frames, dtype=np.int64), None))
        assert contents.states is not None and contents.actions is not None
        if len(images) > (model.spec.frames_per_step - 1) * stride:
            video = torch.from_numpy(images).permute(0, 3, 1, 2)
            states, actions = torch.from_numpy(contents.states[:, columns]), torch.from_numpy(contents.actions)
            parts.append(_examples(model, sample.key, video, states, actions, stride))
    if not parts:
        raise UserError(f"{data.folder}: no episode is as long as a latent step ({model.spec.step_seconds:g} s)")
    return RewardData(
        torch.cat([part.latents for part in parts]),
        torch.cat([part.actions for part in parts]),
        torch.cat([part.rewards for part in parts]),
        torch.cat([part.terminated for part in parts]),
        tuple(key for part in parts for key in part.episodes),
    )


def _examples(
    model: LatentWorldModel,
    key: str,
    video: Tensor,
    states: Float[Tensor, "T 2"],
    actions: Float[Tensor, "P A"],
    stride: int,
) -> RewardData:
    """Those of an episode: its first image as it stands, then as in the figure above.

    Every `stride`-th frame is one of the model's.
    """
    frames = model.spec.frames_per_step
    span, last = frames * stride, len(video) - 1
    at = torch.arange(last % span, last + 1, span)
    at = at[at >= (frames - 1) * stride]
    seen = at[:, None] + stride * torch.arange(1 - frames, 1)
    before = at[:, None] + torch.arange(1 - span, 1)
    collected = torch.where(before[:, 0] > 0, states[before.clamp_min(0), 0].sum(1), torch.nan)
    blocks = actions[(before - 1).clamp_min(0)].flatten(1)  # the action before each frame
    latents = torch.cat([model.encode_image(video[:1]), model.encode(video[seen])[:, -1]]).float().cpu()
    return RewardData(
        latents,
        torch.cat([torch.zeros_like(blocks[:1]), blocks]),
        torch.cat([torch.full((1,), torch.nan), collected]),
        torch.cat([torch.zeros(1, dtype=torch.bool), states[at, 1] > 0]),
        (key,) * len(latents),
    )
