"""`jepa dream`."""

from pathlib import Path
from typing import Annotated

import typer

from jepa.cli.resolve_run import Target, run_and_config


def dream(
    target: Target,
    overrides: Annotated[list[str] | None, typer.Argument(metavar="KEY=VALUE", help="Settings, see above.")] = None,
    config: Annotated[Path | None, typer.Option(help="A YAML file such as configs/dream/two_rooms.yaml.")] = None,
    out: Annotated[Path | None, typer.Option(help="Output folder. [default: RUN]")] = None,
) -> None:
    """Train a controller in imagined rollouts of the run's model, and evaluate it in the world.

    Prints the success rate on held-out tasks, or the return in worlds with a reward (gym:ID), with the 95 % interval;
    and the returns of imagined and real rollouts from the same starts. Writes the controller to RUN/dream and the
    result to RUN/dream.json.

    \b
    jepa dream RUN tasks=50 controller.kind=evolution
    jepa dream RUN 'reward={kind: world}'

    \b
    controller.kind=actor_critic  or evolution: a linear controller, trained by CMA-ES
    controller.horizon=15         latent steps of an imagined rollout
    reward.kind=distance          to the latent of the goal; state: between positions read
                                  from latents; world: the reward of the environment
    sampled=true temperature=1.0  sample the next latents; higher is harder to exploit
    'temperatures=[0.5, 1.5]'     also train at these temperatures, for comparison
    tasks=200 steps=40 seed=0     number of tasks or episodes; environment steps of each
    """
    from jepa_probes.imagination.config import DreamConfig

    run, resolved = run_and_config(target, config, overrides or [], DreamConfig, "dream")
    from jepa_probes.imagination.dream import dream as run_verb
    from jepa_probes.imagination.dream import table

    typer.echo("\n".join(table(run_verb(run, resolved, out=out))))
    typer.echo(f"{(out or run) / 'dream.json'}")
