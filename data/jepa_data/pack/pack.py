"""Packs a corpus: videos in, shards out, on all cores. Stopped at any moment, the same command goes on.

The order of the samples depends on the source and the seed alone, so an interrupted packing that was resumed gives the
same bytes as one that was not.

OUT/packing.jsonl     while packing: which items are finished, and how many of their pieces were too short
OUT/rejected.jsonl    what could not be read, a line each: source, start, end, kind, detail
"""

import time
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from jepa_data.errors import DataError
from jepa_data.pack.progress import FINISHED, REJECTED, Progress
from jepa_data.pack.recipe import Recipe, scaled
from jepa_data.pack.scenes import check_installed
from jepa_data.pack.workers import Job, crashed, work
from jepa_data.process_pool import WorkerFailure, cores, run_in_order
from jepa_data.sampling import action_stride
from jepa_data.shards.manifest import MANIFEST, Manifest
from jepa_data.shards.write import ShardWriter
from jepa_data.sources.corpus import Corpus, split_of
from jepa_data.sources.folder import read_folder
from jepa_data.sources.lerobot import is_lerobot, read_lerobot
from jepa_data.sources.repack import is_shards, read_shards
from jepa_data.sources.rows import TABLES
from jepa_data.sources.table import read_table
from jepa_data.writable import holding, writing


@dataclass(frozen=True)
class Packing:
    """What to make of a corpus.

    Attributes:
        val_share, test_share: of the source videos; a source with splits of its own keeps them.
        seed: of the order and of the splits.
        shard_mib: a shard of this size is closed.
    """

    recipe: Recipe
    val_share: float = 0.0
    test_share: float = 0.1
    seed: int = 0
    shard_mib: int = 64

    def __post_init__(self) -> None:
        if not (self.val_share >= 0 and self.test_share >= 0 and self.val_share + self.test_share < 1):
            raise DataError(
                "test and val shares are parts of the source videos, below 1 together; found "
                f"{self.test_share:g} and {self.val_share:g}"
            )
        if self.shard_mib < 1:
            raise DataError(f"--shard-mib: expected at least 1, found {self.shard_mib}")
        if self.recipe.scene_threshold is not None:
            check_installed()


@dataclass(frozen=True)
class Report:
    """What was packed. `seconds` is the time it took; `resumed` the samples that were there before."""

    manifest: Manifest
    rejected: tuple[str, ...]
    short: int
    resumed: int
    seconds: float

    def lines(self, out: Path) -> list[str]:
        """The report for people."""
        splits = self.manifest.splits
        length = sum(split.seconds for split in splits.values())
        size = sum(shard.bytes for split in splits.values() for shard in split.shards)
        shards = sum(len(split.shards) for split in splits.values())
        counts = ", ".join(f"{split.episodes} {name}" for name, split in splits.items())
        lines = [
            f"{out}: {counts} samples, {length / 60:.1f} min of video in {shards} shard(s), {size / 2**20:.1f} MiB",
            f"  took {self.seconds:.1f} s",
        ]
        if self.resumed:
            lines.append(f"  {self.resumed} samples were there before")
        elif length:
            lines[-1] += f", {length / self.seconds:.1f} s of it a second"
        if self.short:
            lines.append(f"  {self.short} pieces were too short (--min-seconds)")
        if self.rejected:
            lines.append(f"  {len(self.rejected)} could not be read, listed in {out / REJECTED}; the first:")
            lines += [f"    {rejected}" for rejected in self.rejected[:3]]
        if note := self.manifest.missing_note():
            lines.append(f"  {note}")
        if not {"val", "test"} & set(splits):
            lines.append("  nothing is kept for testing: raise --test-share, or give the table a column `split`")
        return lines


def open_corpus(source: Path, *, camera: str | None = None, labels: bool = True) -> Corpus:
    """Look through a source, whichever kind it is. Raises DataError."""
    if not source.exists():
        raise DataError(f"{source}: there is no such file or folder")
    if source.is_dir():
        if is_shards(source):
            return read_shards(source)
        if is_lerobot(source):
            return read_lerobot(source, camera=camera, labels=labels)
        return read_folder(source, labels=labels)
    if source.suffix[1:].lower() in TABLES:
        return read_table(source, labels=labels)
    raise DataError(f"{source}: expected a folder, or a table that ends in {', '.join(TABLES)}")


def pack(
    corpus: Corpus,
    out: Path,
    packing: Packing,
    *,
    processes: int | None = None,
    overwrite: bool = False,
    progress: Callable[[int], None] = lambda done: None,
) -> Report:
    """Pack a corpus to a folder of shards. `progress` is called with the number of items done.

    Args:
        processes: how many encode at a time; None: one a core.

    Raises:
        DataError: the folder holds something else, or shards half packed in another way; or nothing could be read.
    """
    began = time.monotonic()
    packing = replace(packing, recipe=_fitted(packing.recipe, corpus))
    with holding(out):
        _check_out(out, overwrite=overwrite)
        writer = _writer(corpus, out, packing, overwrite=overwrite)
        with writer, closing(Progress(out, writer.done)) as done:
            _run(corpus, packing, writer, done, processes or cores(), progress)
            if not done.samples:
                raise DataError(_nothing_to_pack(corpus, done))
        done.remove()
    manifest = Manifest.from_file((out / MANIFEST).read_text())
    return Report(manifest, tuple(done.rejected), done.short, len(writer.done), time.monotonic() - began)


def _check_out(out: Path, *, overwrite: bool) -> None:
    """The folder can be packed into; `overwrite` forgets how far another packing came."""
    if overwrite:
        with writing(out):
            for name in (FINISHED, REJECTED):
                (out / name).unlink(missing_ok=True)
    elif (out / MANIFEST).is_file():
        raise DataError(f"{out}: is packed already. Choose another folder, or add --overwrite to replace it")


def _writer(corpus: Corpus, out: Path, packing: Packing, *, overwrite: bool) -> ShardWriter:
    """`packing` has the recipe that fits the corpus."""
    recipe = packing.recipe
    one_rate = corpus.timed or (recipe.slower == "repeat" and recipe.video == "encode")
    image_size = corpus.image_size
    if image_size is not None and recipe.video == "encode":
        image_size, _ = scaled(image_size, image_size, recipe.short_side)
    return ShardWriter(
        out,
        fps=recipe.fps if one_rate else None,
        image_size=image_size,
        world=corpus.world,
        action_size=corpus.action_size * _stride(corpus, recipe),
        state_names=corpus.state_names,
        label_names=corpus.label_names,
        seed=packing.seed,
        label_values=corpus.label_values,
        spatial=corpus.spatial,
        events=corpus.events,
        made=_made(corpus, packing),
        shard_bytes=packing.shard_mib * 2**20,
        overwrite=overwrite,
        resume=not overwrite,
    )


def _run(
    corpus: Corpus,
    packing: Packing,
    writer: ShardWriter,
    done: Progress,
    processes: int,
    progress: Callable[[int], None],
) -> None:
    def jobs() -> Iterator[Job]:
        for item in corpus.items(packing.seed):
            if not done.finished(item):
                yield Job(item, packing.recipe, done.written(item))

    # Closed at once when the writing fails: nobody waits for the jobs at work.
    with closing(run_in_order(work, jobs(), lambda packed: packed.rest, processes)) as results:
        for job, result in results:
            packed = crashed(job, result) if isinstance(result, WorkerFailure) else result
            split = split_of(packed.item, packing.seed, packing.val_share, packing.test_share)
            for piece in packed.pieces:
                writer.write(
                    split,
                    piece.key,
                    piece.data,
                    piece.index.frames,
                    piece.actions,
                    piece.states,
                    piece.metadata,
                    ending=piece.ending,
                    source=piece.source,
                    index=piece.index,
                    spatial=piece.spatial,
                    events=piece.events,
                )
            with writing(writer.out):
                done.add(packed)
            progress(done.items)
    progress(done.items)


def _fitted(recipe: Recipe, corpus: Corpus) -> Recipe:
    """The recipe with the rate that actions and states ask for. Raises DataError if it does not divide theirs."""
    if not corpus.timed:
        return recipe
    fitted = replace(recipe, slower="keep")
    if recipe.fps is None or recipe.video == "copy":
        fitted = replace(fitted, fps=corpus.fps)
    _stride(corpus, fitted)
    return fitted


def _stride(corpus: Corpus, recipe: Recipe) -> int:
    if not corpus.timed or corpus.fps is None or recipe.fps is None:
        return 1
    try:
        return action_stride(corpus.fps, recipe.fps)
    except DataError as error:
        rates = ", ".join(f"{corpus.fps / k:g}" for k in (1, 2, 3))
        raise DataError(
            f"--fps {recipe.fps:g}: actions and states come {corpus.fps:g} times a second. Choose {rates}, …"
        ) from error


def _made(corpus: Corpus, packing: Packing) -> dict[str, Any]:
    """What the manifest records; a packing is resumed only by the same."""
    shares = {"val_share": packing.val_share, "test_share": packing.test_share, "shard_mib": packing.shard_mib}
    return {"command": "pack", "source": {"kind": corpus.kind, **corpus.about}, **asdict(packing.recipe), **shares}


def _nothing_to_pack(corpus: Corpus, done: Progress) -> str:
    if done.rejected:
        return f"none of {corpus.count} videos and images could be read; the first: {done.rejected[0]}"
    return f"all {done.short} pieces are too short. Lower --min-seconds"
