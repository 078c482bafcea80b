"""`jepa data`: record a world, look at a folder of shards."""

from pathlib import Path
from typing import Annotated

import typer

from jepa.cli.pack import pack

app = typer.Typer(help="Make shards of videos and worlds, and look at them.", no_args_is_help=True)
app.command()(pack)

OVERWRITE = typer.Option("--overwrite", help="Replace what is there.")


@app.command()
def record(
    world: Annotated[str, typer.Argument(help="billiards-easy, billiards-medium or billiards-hard.")],
    out: Annotated[Path, typer.Argument(help="Folder for the shards.")],
    episodes: Annotated[int, typer.Option(help="Episodes in all.")] = 600,
    frames: Annotated[int, typer.Option(help="Frames per episode, ten a second.")] = 40,
    image_size: Annotated[int, typer.Option(help="Pixels a side, 32 to 128.")] = 64,
    seed: Annotated[int, typer.Option(help="The same seed records the same bytes.")] = 0,
    test_share: Annotated[float, typer.Option(help="Share of the episodes kept for testing.")] = 0.15,
    overwrite: Annotated[bool, OVERWRITE] = False,
) -> None:
    """Let a random agent act in WORLD and write video, actions and ground truth to shards in OUT."""
    from jepa.cli.show import counting
    from jepa_data.sources.rollouts import Recording
    from jepa_data.sources.rollouts import record as run

    recording = Recording(world, episodes, frames, image_size, seed, test_share)
    with counting("recording", episodes) as progress:
        manifest = run(recording, out, overwrite=overwrite, progress=progress)
    parts = ", ".join(f"{split.episodes} {name}" for name, split in manifest.splits.items())
    size = sum(shard.bytes for split in manifest.splits.values() for shard in split.shards)
    typer.echo(f"{out}: {parts} episodes of {frames} frames at {image_size} px, {size / 2**20:.1f} MiB")


@app.command()
def inspect(
    shards: Annotated[Path, typer.Argument(help="Folder with manifest.json and shards.")],
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON for programs.")] = False,
) -> None:
    """What a folder of shards holds: counts, durations, codecs, labels, and what is damaged."""
    import json

    from jepa_data.shards.index import ShardSet

    summary = ShardSet.open(shards).summary()
    if as_json:
        typer.echo(json.dumps(summary, indent=2))
        return
    world = summary["world"] or "video"
    typer.echo(f"{shards}: {world}, {summary['image_size']} px, {summary['fps']:g} frames a second")
    typer.echo(f"  actions  {summary['action_size']} wide    state  {len(summary['state_names'])} columns")
    for name, split in summary["splits"].items():
        low, high = split["frames_per_sample"]
        each = f"{low}" if low == high else f"{low} to {high}"
        typer.echo(
            f"  {name:<8} {split['samples']} samples in {split['shards']} shard(s), {each} frames each, "
            f"{split['seconds'] / 60:.1f} min, {split['bytes'] / 2**20:.1f} MiB"
        )
        codecs = ", ".join(f"{codec} {count}" for codec, count in split["codecs"].items())
        sizes = ", ".join(f"{size} {count}" for size, count in split["sizes"].items())
        typer.echo(f"           codecs {codecs or 'unknown'}    sizes {sizes or 'unknown'}    lost {split['lost']}")
        for label, counts in split["labels"].items():
            values = "  ".join(f"{value}: {count}" for value, count in counts.items())
            typer.echo(f"           {label:<8} {values}")
    for note in summary["notes"]:
        typer.echo(f"  note: {note}")
