"""`jepa imagine`."""

from pathlib import Path
from typing import Annotated

import typer

from jepa.cli.resolve_run import config_or_defaults


def imagine(
    run: Annotated[Path, typer.Argument(help="A run folder: a model with dynamics.")],
    overrides: Annotated[list[str] | None, typer.Argument(metavar="KEY=VALUE", help="Settings, see above.")] = None,
    out: Annotated[Path, typer.Option(help="The video, FILE.mp4 or FILE.gif; FILE.json goes beside it.")] = Path(
        "imagined.mp4"
    ),
    config: Annotated[Path | None, typer.Option(help="A YAML file with these settings.")] = None,
    world: Annotated[str | None, typer.Option(help="Start from a reset of this world.")] = None,
    episode: Annotated[int | None, typer.Option(help="With --world: which episode. [default: 1000000]")] = None,
    video: Annotated[Path | None, typer.Option(help="Start from the first frames of a video or image.")] = None,
    actions: Annotated[
        str | None, typer.Option(help="FILE.npy, .csv or .json with rows of actions, or a policy of the world.")
    ] = None,
    keys: Annotated[str | None, typer.Option(help="Actions as letters, such as wwwaad.")] = None,
    events: Annotated[
        str | None,
        typer.Option(help='Events of the world that happen, as FRAME: NAME, "12: close-door, 20: open-door".'),
    ] = None,
    samples: Annotated[
        int | None, typer.Option(help="Number of futures, for stochastic dynamics. [default: 1]")
    ] = None,
) -> None:
    """Imagine futures with the model of a run, and write them as a video beside the true one.

    Starts from a held-out clip of the run with its recorded actions, from a video or image, or from a reset of a world.
    Where the truth is known (recorded actions, or a simulated world), the errors of each step stand below the frames:
    of the latent, as a share of the error of standing still, and of the pixels, as root mean square of 255. Prints the
    frames a second. Latents are decoded by the decoder of `jepa decoder`, or a small one that is fitted now.

    \b
    jepa imagine RUN --out future.gif
    jepa imagine RUN --world two-rooms --actions noisy-expert
    jepa imagine RUN --video my.mp4 --keys wwwaaadd
    jepa imagine RUN --samples 4 temperature=1.5
    jepa imagine RUN --world two-rooms --events "4: close-door"

    \b
    clip=0                number of the held-out clip
    seen=1 horizon=15     latent steps seen, and imagined
    sampled=true          sample a single future, too; temperature=1.0
    seed=0                of the world, its policy and sampling

    --keys has one letter for each frame: w up, s down, a left, d right, . nothing; a capital letter goes half as far.
    """
    import json

    from jepa_probes.imagining.config import ImagineConfig

    options = {
        "world": world,
        "episode": episode,
        "actions": actions,
        "keys": keys,
        "events": events,
        "samples": samples,
    }
    options["video"] = None if video is None else str(video)
    given = [f"{name}={json.dumps(value)}" for name, value in options.items() if value is not None]
    resolved = config_or_defaults(config, [*(overrides or []), *given], ImagineConfig)
    from jepa_probes.imagining.imagine import imagine as run_verb
    from jepa_probes.imagining.imagine import summary

    typer.echo("\n".join(summary(run_verb(run, resolved, out=out).result)))
    typer.echo(f"{out}")
    typer.echo(f"{out.with_suffix('.json')}")
