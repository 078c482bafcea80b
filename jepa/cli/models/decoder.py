"""`jepa decoder`."""

from pathlib import Path
from typing import Annotated

import typer

from jepa.cli.resolve_run import config_or_defaults


def decoder(
    run: Annotated[Path, typer.Argument(help="A run folder.")],
    overrides: Annotated[list[str] | None, typer.Argument(metavar="KEY=VALUE", help="Settings, see above.")] = None,
    config: Annotated[Path | None, typer.Option(help="A YAML file with these settings.")] = None,
    out: Annotated[Path | None, typer.Option(help="Output folder. [default: RUN]")] = None,
) -> None:
    """Fit a decoder on the frozen latents of a run: it shows what they hold, as images.

    Prints how close decoded held-out frames are to the true ones, and in worlds with masks, whether objects are there
    and where. Writes the decoder to RUN/model, which `jepa report`, `jepa plan` and `jepa imagine` use from then on,
    the numbers to RUN/decoder.json, and RUN/decoder.png: true frames above decoded ones.

    \b
    jepa decoder RUN
    jepa decoder RUN decoder.kind=diffusion steps=4000
    jepa decoder RUN own=true

    \b
    decoder.kind=pixels   or diffusion: crisp images, drawn in decoder.draw_steps steps
    own=true              the decoder that the run's method trained: vae, dreamer
    steps=1000 clips=640  optimizer steps; training clips
    moving_weight=0.1     extra weight of pixels that move
    test_clips=100 near=2 held-out clips; pixels within which an object counts as found
    overwrite=true        fit again
    """
    from jepa_probes.decoding.config import FitConfig

    resolved = config_or_defaults(config, overrides or [], FitConfig)
    from jepa_probes.decoding.decoder import decoder as run_verb
    from jepa_probes.decoding.decoder import table

    typer.echo("\n".join(table(run_verb(run, resolved, out=out))))
    for name in ("decoder.json", "decoder.png"):
        typer.echo(f"{(out or run) / name}")
