"""`jepa embed`."""

from pathlib import Path
from typing import Annotated

import typer


def embed(
    source: Annotated[Path, typer.Argument(help="A video, a folder of videos, or a folder of shards.")],
    model: Annotated[Path, typer.Option(help="A run folder, or a folder that holds model.json.")],
    out: Annotated[Path, typer.Option(help="File for the latents (.npz).")] = Path("features.npz"),
) -> None:
    """Write the latents of every video: NAME [steps, tokens, width] and NAME.seconds [steps]."""
    from jepa.runs.embed import embed as run

    run(source, model, out, say=typer.echo)
