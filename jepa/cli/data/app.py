"""`jepa data`: videos and worlds to shards, and what one does with shards."""

from pathlib import Path
from typing import Annotated

import typer

from jepa.cli.data.curate import curate
from jepa.cli.data.inspect import bench, check, index, inspect, worlds
from jepa.cli.data.pack import pack
from jepa.cli.data.tokenize import tokenize

app = typer.Typer(help="Make shards from videos and simulated worlds, and inspect them.", no_args_is_help=True)
app.command()(pack)

OVERWRITE = typer.Option("--overwrite", help="Replace existing output.")


@app.command()
def record(
    world: Annotated[
        str,
        typer.Argument(
            help="two-rooms, billiards-easy, push-t, point-maze-umaze, reacher, doom-rooms, gym:Pendulum-v1, …: "
            "`jepa data worlds` lists them."
        ),
    ],
    out: Annotated[Path, typer.Argument(help="Output folder for the shards.")],
    episodes: Annotated[int, typer.Option(help="Number of episodes.")] = 600,
    frames: Annotated[int, typer.Option(help="Frames per episode, at the frame rate of the world.")] = 40,
    image_size: Annotated[int, typer.Option(help="Image size in pixels; every world supports 32 to 128.")] = 64,
    policy: Annotated[
        str, typer.Option(help="random; in many worlds also noisy-expert; pusher in push-t; mixed in two-rooms.")
    ] = "random",
    seed: Annotated[int, typer.Option(help="The same seed records the same bytes.")] = 0,
    test_share: Annotated[float, typer.Option(help="Share of the episodes in the test split.")] = 0.15,
    crf: Annotated[
        int, typer.Option(help="Quality of the video: 0 keeps nearly every pixel, in a third more bytes; up to 51.")
    ] = 14,
    spatial: Annotated[
        str,
        typer.Option(
            help="True arrays of every frame to store too: mask,keypoints in billiards, two-rooms and push-t; depth in "
            "doom-rooms."
        ),
    ] = "",
    events: Annotated[
        float,
        typer.Option(
            help="Mean number of events in an episode, such as a door that closes: two-rooms, billiards, doom-rooms. "
            "0: none."
        ),
    ] = 0.0,
    overwrite: Annotated[bool, OVERWRITE] = False,
) -> None:
    """Record a scripted policy in WORLD: video, actions and true states, as shards in OUT."""
    from jepa.cli.show import counting
    from jepa_data.sources.rollouts import Recording
    from jepa_data.sources.rollouts import record as run

    kinds = tuple(filter(None, spatial.split(",")))
    recording = Recording(world, episodes, frames, image_size, seed, test_share, policy, crf, kinds, events)
    with counting("recording", episodes) as progress:
        manifest = run(recording, out, overwrite=overwrite, progress=progress)
    parts = ", ".join(f"{split.episodes} {name}" for name, split in manifest.splits.items())
    size = sum(shard.bytes for split in manifest.splits.values() for shard in split.shards)
    whole = sum(split.frames for split in manifest.splits.values()) == episodes * frames
    length = f"{frames} frames" if whole else f"up to {frames} frames"
    typer.echo(f"{out}: {parts} episodes of {length} at {image_size} px, {size / 2**20:.1f} MiB")
    if manifest.events:
        typer.echo(f"  events {', '.join(manifest.events)}")
    for info in manifest.spatial:
        typer.echo(f"  {info.text()}")
    if note := manifest.missing_note():
        typer.echo(f"  {note}")


for verb in (worlds, curate, index, inspect, check, bench, tokenize):  # in the order of the work
    app.command()(verb)
