"""`jepa compress`."""

from pathlib import Path
from typing import Annotated

import typer

from jepa.cli.resolve_run import config_or_defaults


def compress(
    run: Annotated[str, typer.Argument(help="Run, model folder or hub id (org/name) of the encoder.")],
    out: Annotated[Path, typer.Argument(help="Output folder; it must be empty.")],
    overrides: Annotated[
        list[str] | None, typer.Argument(metavar="KEY=VALUE", help="Settings, such as train_episodes=200.")
    ] = None,
    keep: Annotated[
        list[str] | None, typer.Option(help="A reduction, see above; give it again for a table of several.")
    ] = None,
    shards: Annotated[
        str | None, typer.Option(help="Folder or URL of shards to fit to and to probe on. [default: the run's]")
    ] = None,
    config: Annotated[Path | None, typer.Option(help="A YAML file with these settings.")] = None,
    report_only: Annotated[bool, typer.Option("--report-only", help="Write the report and no models.")] = False,
) -> None:
    """Reduce the tokens of a frozen encoder, and report what linear probes lose for each true state and label.

    OUT becomes a model folder: the encoder, frozen, and the reduction, fitted to the training split. Use it as any
    model: jepa probe OUT, jepa data tokenize --model OUT, method.encoder_from=OUT. With several --keep, each has a
    folder in OUT. The report is OUT/compression.json.

    \b
    --keep pool:2x2          means over blocks of the grid, 2x2 tokens are left
    --keep merge:16          means over 16 sets of places that vary alike, learned from the shards
    --keep pca:32            32 principal components of each token
    --keep joint_pca:64      64 principal components of all tokens together: one vector
    --keep pool:4x4+pca:32   one after the other

    Example: jepa compress runs/vjepa models/small --keep pool:2x2+pca:32

    Example: jepa compress runs/vjepa report --keep pool:1x1 --keep merge:4 --keep pca:16 --report-only
    """
    import json

    from jepa_probes.compression.config import CompressConfig

    wanted = list(overrides or [])
    wanted += [f"keep={json.dumps(keep)}"] if keep else []
    wanted += [f"shards={json.dumps(shards)}"] if shards else []
    wanted += ["report_only=true"] if report_only else []
    resolved = config_or_defaults(config, wanted, CompressConfig)
    from jepa_probes.compression.compress import compress as run_verb
    from jepa_probes.compression.table import table

    result = run_verb(run, out, resolved)
    typer.echo("\n".join(table(result)))
    for latents in result.latents.values():
        if latents.folder is not None:
            typer.echo(f"{out / latents.folder}: latents {latents.tokens} x {latents.width}. Next: jepa data tokenize")
    typer.echo(f"{out / result.FILE}")
