"""`jepa compress`: fit reductions of a frozen encoder's tokens, and tell what linear probes lose by each.

    training clips ──→ frozen encoder ──→ latents [E, S, N, D] ──┬──→ fit
                                                                 └──→ reduce ──→ [E, S, M, E'] ──→ probes
    held-out clips ──→ frozen encoder ──→ the same reductions ───────────────────────────────────→ R², accuracy

OUT/compression.json     sizes, variance kept and probe scores, beside those of the original latents
OUT/model.json …         the encoder with its reductions, as a model folder; of several reductions each in a folder of
                         its own, such as OUT/pool-2x2

The probes are those of `jepa probe` (ridge regression of states, logistic regression of labels), but both read all
tokens, side by side: a mean over tokens would hide what pooling loses. Where a step has more than 1,024 numbers, they
read its first 1,024 principal components, so reduced latents may score above the original ones.
"""

import logging
import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from jaxtyping import Float
from torch import Tensor

from jepa.config import UserError, errors_of
from jepa.encoders.reductions.base import TokenLayout
from jepa.encoders.reductions.chain import Chain, fit, parse, variance_kept
from jepa.models.model import save
from jepa.training.compress import FrozenSource, chains_for
from jepa.training.run_state.run_folder import run_config
from jepa_data.writable import check_empty, holding
from jepa_probes.clips import check_headline, clips_of, probe_loader, state_names
from jepa_probes.compression.config import CompressConfig
from jepa_probes.compression.result import ORIGINAL, CompressionResult, Latents
from jepa_probes.probing.features import Features, extract
from jepa_probes.probing.linear import LinearProbe
from jepa_probes.probing.reduction import WIDEST
from jepa_probes.probing.suite import ProbeTable, score_features

logger = logging.getLogger(__name__)

CLIPS_AT_ONCE = 64
BYTES = 2  # of a number in bf16
STEPS_PER_NUMBER = 4


@dataclass(frozen=True)
class Splits:
    """Latents of the original encoder on training and on held-out clips."""

    train: Features
    test: Features


def compress(run: str | Path, out: Path, config: CompressConfig) -> CompressionResult:
    """Fit reductions of an encoder's tokens, probe them, and write them as models with a report.

    Args:
        run: run, model folder or hub id of the encoder; all but a run need `config.shards`.
        out: new or empty folder.

    Raises:
        UserError: there is no such model, a reduction does not fit its tokens, the data cannot be probed, or `out` is
            not empty or cannot be written.
    """
    began = time.perf_counter()
    source = FrozenSource.open(str(run))
    chains = dict(zip(config.keep, chains_for(map(parse, config.keep), source.layout), strict=True))
    with holding(out):
        check_empty(out)
        shards, splits = _encode(run, source, config)
        _note_few_steps(splits.train)
        with errors_of("keep"):
            seconds = fit(list(chains.values()), lambda: _batches(splits.train.latents))
        table = _score(splits, chains, config)
        folders = {} if config.report_only else _write(source, chains, out)
        latents = {ORIGINAL: _sizes(source.layout, 1.0, 0.0, None)}
        for (name, chain), spent in zip(chains.items(), seconds, strict=True):
            kept = variance_kept(splits.test.latents, _restored(chain, splits.test.latents))
            latents[name] = _sizes(chain.layout, kept, spent, folders.get(name))
        features = {"train": splits.train, "test": splits.test}
        result = CompressionResult(
            model=str(run),
            encoder_sha256=source.sha256,
            shards=shards,
            seed=config.seed,
            latents=latents,
            scores=table.scores,
            episodes={split: len(set(part.keys)) for split, part in features.items()},
            clips={split: len(part) for split, part in features.items()},
            seconds=round(time.perf_counter() - began, 2),
        )
        result.write(out)
    return result


def _encode(run: str | Path, source: FrozenSource, config: CompressConfig) -> tuple[str, Splits]:
    """Where the clips are from, and their latents."""
    trained = run_config(Path(run)) if (Path(run) / "config.yaml").is_file() else None
    data = clips_of(run, source.about, trained, config)
    loaders = {split: probe_loader(data, config, split) for split in ("train", "test")}
    names = state_names(loaders)
    check_headline(config, names)
    model = source.model(source.encoder).world
    parts = {}
    for split, loader in loaders.items():
        limit = config.episodes(split)
        clips = limit and limit * config.clips_per_video
        parts[split] = extract(model.encode_clips, loader, model.spec.frames_per_step, names, clips=clips)
    return loaders["train"].shards.url, Splits(parts["train"], parts["test"])


def _note_few_steps(train: Features) -> None:
    """Ridge regression on about as many rows as columns says little, however well its penalty is chosen."""
    clips, steps, tokens, width = train.latents.shape
    read = min(tokens * width, WIDEST)
    if clips * steps < STEPS_PER_NUMBER * read:
        logger.info(
            f"the probes read up to {read} numbers and are fitted to {clips * steps} latent steps: their scores are "
            "uncertain. Give more: clips_per_video, train_episodes, or shards with more episodes"
        )


def _score(splits: Splits, chains: dict[str, Chain], config: CompressConfig) -> ProbeTable:
    """Linear probes on the original latents and on each reduction of them, of the same clips."""
    pairs = {ORIGINAL: (_side_by_side(splits.train), _side_by_side(splits.test))}
    for name, chain in chains.items():
        pairs[name] = (_side_by_side(splits.train, chain), _side_by_side(splits.test, chain))
    table = score_features(
        pairs,
        classifiers=[LinearProbe(LinearProbe.Config())],
        labels=config.labels,
        headline=config.headline,
        seed=config.seed,
    )
    if not table.scores:
        raise UserError("there is nothing to probe: the clips have no states, and no label of two classes or more")
    return table


def _side_by_side(features: Features, chain: Chain | None = None) -> Features:
    """All tokens of a step as one, reduced before if there is a chain."""
    latents = features.latents
    if chain is not None:
        latents = torch.cat([_reduced(chain, part) for part in latents.split(CLIPS_AT_ONCE)])
    return replace(features, latents=latents.flatten(2)[:, :, None])


@torch.no_grad()
def _reduced(chain: Chain, latents: Float[Tensor, "E S N D"]) -> Float[Tensor, "E S M F"]:
    return chain(latents)


@torch.no_grad()
def _restored(chain: Chain, latents: Float[Tensor, "E S N D"]) -> Float[Tensor, "E S N D"]:
    return torch.cat([chain.expand(chain(part)) for part in latents.split(CLIPS_AT_ONCE)])


def _batches(latents: Float[Tensor, "E S N D"]) -> Iterator[Float[Tensor, "R N D"]]:
    yield from (part.flatten(0, 1) for part in latents.split(CLIPS_AT_ONCE))


def _write(source: FrozenSource, chains: dict[str, Chain], out: Path) -> dict[str, str]:
    """Each model in its folder; returns these, from `out`."""
    folders = folder_names(chains)
    for name, chain in chains.items():
        save(source.compressed(chain), out / folders[name])
    return folders


def folder_names(keep: Iterable[str]) -> dict[str, str]:
    """Where in OUT the model of each reduction lies: there itself if it is the only one."""
    names = list(keep)
    if len(names) == 1:
        return {names[0]: "."}
    return {name: name.replace(":", "-").replace("+", "-") for name in names}


def _sizes(layout: TokenLayout, kept: float, seconds: float, folder: str | None) -> Latents:
    numbers = layout.tokens * layout.width
    return Latents(
        tokens=layout.tokens,
        width=layout.width,
        numbers=numbers,
        bytes_per_frame=BYTES * numbers,
        variance_kept=kept,
        fit_seconds=round(seconds, 3),
        folder=folder,
    )
