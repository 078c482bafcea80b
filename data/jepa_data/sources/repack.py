"""A folder of shards as a source: the same samples at another size, rate or shard size, their splits kept."""

from collections.abc import Iterator
from pathlib import Path

from jepa_data.errors import DataError
from jepa_data.shards.index import ShardSet
from jepa_data.shards.manifest import MANIFEST, UNFINISHED
from jepa_data.sources.corpus import Corpus, Item


def is_shards(root: Path) -> bool:
    """Whether a folder holds shards. Raises DataError if their writing was interrupted."""
    if (root / UNFINISHED).is_file():
        raise DataError(f"{root}: its shards are unfinished. Let the command that writes them finish first")
    return (root / MANIFEST).is_file()


def read_shards(root: Path) -> Corpus:
    """The samples of a folder of shards that `jepa data record`, `pack` or `curate` wrote. Raises DataError."""
    shards = ShardSet.open(root)
    manifest = shards.manifest

    def items(seed: int) -> Iterator[Item]:
        for sample in shards.samples:
            # Parts of one source stay together because the split is the sample's own.
            name = sample.source.get("url", sample.key)
            yield Item(
                name=name,
                key=sample.key,
                group=name,
                path=root,
                sample=sample,
                split=sample.split,
                spatial=manifest.spatial,
            )

    return Corpus(
        kind="shards",
        count=len(shards.samples),
        items=items,
        label_names=manifest.label_names,
        label_values=manifest.label_values,
        action_size=manifest.action_size,
        state_names=manifest.state_names,
        fps=manifest.fps if manifest.action_size or manifest.state_names else None,
        image_size=manifest.image_size,
        world=manifest.world,
        spatial=manifest.spatial,
        events=manifest.events,
        about={"name": root.resolve().name},
        notes=shards.notes,
    )
