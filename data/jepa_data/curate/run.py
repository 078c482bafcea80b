"""Curation: shards in, the samples worth training on out, and a report of what went and why.

    measure     each sample once, in processes (or on Ray)          Table
    decide      unreadable, then the stages of the config, in order  Decision, Decision, ...
    write       what stays, bytes unchanged but for `denoise`; curation.json; contact sheets

From Python, with captions by a callable:

    config = load("configs/data/curate.yaml", CurateConfig)
    curate("shards", "curated", config, annotate={"caption": lambda frames, metadata: describe(frames)})
"""

import time
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Literal

import numpy as np

from jepa.config.reading import parse_json
from jepa_data.config import Access
from jepa_data.curate.config import Balance, CurateConfig, NearDuplicates
from jepa_data.curate.embeddings import Embeddings, read_embeddings
from jepa_data.curate.engine_local import measure_local
from jepa_data.curate.examples import remove_report, write_examples
from jepa_data.curate.measure import Measured, Measurer
from jepa_data.curate.report import CURATION, Curated, StageReport, summary
from jepa_data.curate.stages import check, decide
from jepa_data.curate.table import Table
from jepa_data.curate.writing import Annotate, new_writer, resample_stage, source_name, write_samples
from jepa_data.errors import DataError, DecodeError
from jepa_data.process_pool import cores
from jepa_data.shards.index import ShardSet
from jepa_data.shards.manifest import MANIFEST, UNFINISHED
from jepa_data.shards.store import open_store
from jepa_data.writable import holding, is_empty, writing

EngineName = Literal["pool", "ray"]


def measure(
    shards: ShardSet,
    measurer: Measurer,
    engine: EngineName,
    processes: int,
    timeout_seconds: float,
    progress: Callable[[int], None],
) -> list[Measured]:
    """Every sample of a folder, in its order; what is damaged, crashes or hangs is in `problem`.

    Args:
        processes, timeout_seconds: see `measure_local` and `measure_ray`.
        progress: called with the number of samples done.

    Raises:
        DataError: Ray is not installed.
    """
    rows = range(len(shards.samples))
    if engine == "pool":
        measurements = measure_local(shards, rows, measurer, processes, timeout_seconds, progress)
    else:
        from jepa_data.curate.engine_ray import measure_ray

        measurements = measure_ray(shards, measurer, processes, timeout_seconds, progress)
    return [measurements[row] for row in rows]


Progress = Callable[[str, int, int], None]  # "measuring" or "writing", samples done, samples in all


def curate(
    shards: Path | str,
    out: Path | str,
    config: CurateConfig,
    *,
    annotate: Mapping[str, Annotate] | None = None,
    engine: EngineName = "pool",
    processes: int | None = None,
    timeout_seconds: float = 60.0,
    examples: int = 0,
    dry_run: bool = False,
    overwrite: bool = False,
    access: Access | None = None,
    progress: Progress = lambda what, done, total: None,
) -> Curated:
    """Measure a folder of shards, drop what the stages say, and write the rest to OUT.

    Args:
        annotate: callables by the key of metadata.json under which their value is written. They are called in this
            process, for what stays only, with the frames that were looked at (uint8 [T, h, w, 3]) and the metadata.
        engine: "pool": processes of this machine; "ray": Ray Data, see `measure_ray`.
        processes: that measure at a time; None: one a core of the machine or of Ray's cluster; 0: this process (pool).
        timeout_seconds: a sample whose measuring takes longer is given up as unreadable.
        examples: at most so many dropped samples on the contact sheet of each stage, OUT/examples/*.png; 0: no sheets.
        dry_run: write the report and the sheets, no shards.
        overwrite: replace the shards in OUT.

    Raises:
        DataError: the shards cannot be opened, OUT is not empty or is the source, the config asks for what is not
            there, or nothing stays (OUT/curation.json says why).
    """
    began = time.monotonic()
    source = ShardSet.open(open_store(shards, access))
    out = Path(out)
    annotate = dict(annotate or {})
    _check_out(source, out, overwrite)
    _check_wishes(source, config, annotate)
    keys, splits = _names(source)
    embeddings = _embeddings(config, keys)  # before the long work: a wrong file is an error at once
    total = len(keys)
    measurer = Measurer(source.store, source.manifest, config.look, resample_stage(config))
    if processes is None:
        processes = cores() if engine == "pool" else 0
    with holding(out):
        measured = measure(source, measurer, engine, processes, timeout_seconds, _count(progress, "measuring", total))
        table = Table.of(keys, splits, measured, source.manifest.label_names)
        curated = _decided(source, table, config, embeddings)
        with writing(out):
            remove_report(out)
        _check_kept(curated, total, out)
        if not dry_run:
            with new_writer(source, table, curated.kept, out, config, list(annotate), overwrite) as writer:
                count = _count(progress, "writing", len(curated.kept))
                denoised = write_samples(writer, source, curated.kept, config, annotate, processes, count)
            curated = replace(curated, written=out, denoised=denoised)
        curated.write(out)
        with writing(out):
            curated = replace(curated, examples=write_examples(source, curated, out, examples))
    return replace(curated, seconds=time.monotonic() - began)


def _check_kept(curated: Curated, total: int, out: Path) -> None:
    """Raises DataError if nothing is kept; the report says why."""
    if not curated.kept:
        curated.write(out)
        raise DataError(f"nothing stays of {total} samples ({summary(curated.stages)}); see {out / CURATION}")


def _count(progress: Progress, what: str, total: int) -> Callable[[int], None]:
    return lambda done: progress(what, done, total)


def _decided(source: ShardSet, table: Table, config: CurateConfig, embeddings: Mapping[str, Embeddings]) -> Curated:
    """All stages, one after the other, on what the ones before left."""
    rows = np.arange(len(table), dtype=np.int64)
    reports = list[StageReport]()
    notes = list(source.notes)
    for stage in (None, *config.stages):
        decision = decide(stage, table, rows, embeddings)
        reports.append(StageReport(stage, tuple(rows.tolist()), decision))
        notes += [f"{reports[-1].kind}: {note}" for note in decision.notes]
        rows = rows[~np.isin(rows, [drop.row for drop in decision.drops])]
    lost = {split: keys for split in source.manifest.splits if (keys := source.lost_of(split))}
    return Curated(source_name(source), table, tuple(reports), tuple(rows.tolist()), lost, tuple(notes))


def _names(source: ShardSet) -> tuple[list[str], list[str]]:
    """Key and split of each sample; one whose line in the index is damaged is named by its number."""
    keys = []
    splits = []
    for split in source.manifest.splits:
        samples = source.split(split)
        for number in range(len(samples)):
            try:
                keys.append(samples[number].key)
            except DecodeError:
                keys.append(f"(sample {number + 1} of {split})")
            splits.append(split)
    return keys, splits


def _embeddings(config: CurateConfig, keys: list[str]) -> dict[str, Embeddings]:
    named = [stage.embeddings for stage in config.stages if isinstance(stage, NearDuplicates | Balance)]
    return {path: read_embeddings(path, keys) for path in dict.fromkeys(named) if path is not None}


def _check_wishes(source: ShardSet, config: CurateConfig, annotate: Mapping[str, Annotate]) -> None:
    check(config.stages, source.manifest.label_names)
    if "labels" in annotate:
        raise DataError("annotate: 'labels' are the numbers of classes that the manifest names; choose another name")


def _check_out(source: ShardSet, out: Path, overwrite: bool) -> None:
    """Raises DataError before the work, not after it."""
    if source.store.folder is not None and out.resolve() == source.store.folder.resolve():
        raise DataError(f"{out}: is the folder that is curated. Give another one for what stays")
    if out.exists() and not out.is_dir():
        raise DataError(f"{out}: is a file; shards need a folder")
    if out.is_dir() and not is_empty(out) and not overwrite and not _dry(out):
        raise DataError(f"{out}: is not empty. Choose another folder, or add --overwrite to replace the shards in it")


def _dry(out: Path) -> bool:
    """Whether a folder holds nothing but what a dry run left."""
    if (out / MANIFEST).exists() or (out / UNFINISHED).exists():
        return False
    try:
        return bool(parse_json((out / CURATION).read_text())["dry_run"])
    except (OSError, ValueError, KeyError, TypeError):
        return False
