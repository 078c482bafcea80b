"""`jepa dream`."""

from pathlib import Path
from typing import Annotated

import typer

from jepa.cli.resolve_run import Target, run_and_config


def dream(
    target: Target,
    overrides: Annotated[
        list[str] | None, typer.Argument(metavar="KEY=VALUE", help="What to change, see above.")
    ] = None,
    config: Annotated[Path | None, typer.Option(help="A YAML file such as configs/dream/two_rooms.yaml.")] = None,
    out: Annotated[Path | None, typer.Option(help="Folder for all that is written. [default: RUN]")] = None,
) -> None:
    """Train a controller inside the run's model, without planning or simulator; then try it in the world.

    Prints how many held-out tasks it solves, or what it earns where the world sets no tasks but rewards by itself
    (gym:ID), with the 95 % interval; and what its dreams are worth, beside what the world was worth from the same
    starts. Writes the controller to RUN/dream and the result to RUN/dream.json.

    \b
    jepa dream RUN tasks=50 controller.kind=evolution
    jepa dream RUN 'reward={kind: world}'

    \b
    controller.kind=actor_critic  or evolution: a linear controller, by CMA-ES
    controller.horizon=15         latent steps of a dream
    reward.kind=distance          to the goal's latent; state: between positions that
                                  are read off; world: what the world itself rewards
    sampled=true temperature=1.0  draw what is dreamt; more is harder to exploit
    'temperatures=[0.5, 1.5]'     also train at these, for the table alone
    tasks=200 steps=40 seed=0     how many tasks or episodes, and their steps
    """
    from jepa_probes.imagination.config import DreamConfig

    run, resolved = run_and_config(target, config, overrides or [], DreamConfig, "dream")
    from jepa_probes.imagination.dream import dream as run_verb
    from jepa_probes.imagination.dream import table

    typer.echo("\n".join(table(run_verb(run, resolved, out=out))))
    typer.echo(f"{(out or run) / 'dream.json'}")
