"""`jepa data tokenize`."""

from pathlib import Path
from typing import Annotated

import typer


def tokenize(
    shards: Annotated[str, typer.Argument(help="Folder or URL of shards.")],
    out: Annotated[Path, typer.Argument(help="Output folder for the latents; it must be empty.")],
    model: Annotated[str, typer.Option(help="Run, model folder or hub id (org/name) of the frozen encoder.")],
    precision: Annotated[str, typer.Option(help="bf16, or int8 with a scale per token.")] = "bf16",
    timeout_seconds: Annotated[float, typer.Option(min=0.001, help="Time limit for decoding a video.")] = 60.0,
) -> None:
    """Compute a frozen encoder's latents of all frames once, for methods that train on them.

    Train with method.encoder_from=MODEL method.latents_from=OUT: clips, order and actions are the same, and neither
    video nor encoder is run. Another encoder, other shards and a damaged file are refused.

    Example: jepa data tokenize data/two-rooms data/two-rooms-latents --model runs/lewm
    """
    from typing import cast, get_args

    from jepa.cli.show import counting
    from jepa.training.tokenize import tokenize as run
    from jepa_data.errors import DataError
    from jepa_data.shards.index import ShardSet
    from jepa_data.stream.latents import Precision

    if precision not in get_args(Precision):
        raise DataError(f"--precision: expected bf16 or int8, found {precision!r}")
    with counting("tokenizing", len(ShardSet.open(shards).samples)) as progress:
        made = run(
            shards, out, model, precision=cast(Precision, precision), timeout_seconds=timeout_seconds, progress=progress
        )
    size = sum(file.bytes for file in made.files) / 2**20
    typer.echo(f"{out}: latents {made.tokens} x {made.width} as {made.precision}, {size:.1f} MiB. Next: jepa pretrain")
    typer.echo(f"  … method.encoder_from={model} method.latents_from={out}")
