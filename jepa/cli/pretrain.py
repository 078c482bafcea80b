"""`jepa pretrain`."""

import sys
from pathlib import Path
from typing import Annotated

import typer


def pretrain(
    config: Annotated[Path, typer.Argument(help="A YAML file such as configs/pretrain/demo.yaml.")],
    overrides: Annotated[list[str] | None, typer.Argument(help="KEY=VALUE, such as optimizer.lr=1e-3.")] = None,
    resume: Annotated[bool, typer.Option("--resume", help="Continue from the last checkpoint of the run.")] = False,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Delete an existing run and start again.")] = False,
) -> None:
    """Train an encoder (and its dynamics) on shards, and write the run folder.

    --resume continues an interrupted run from its last checkpoint (trainer.checkpoint_every); it ends with the same
    weights as an uninterrupted run. With a larger trainer.steps, it trains a finished run longer. What shapes
    the model and the batches may not change. SIGTERM and SIGUSR1 (exit code 143) and Ctrl-C (130) save the state after
    the step at hand.
    """
    from jepa.config import load
    from jepa.training.config import PretrainConfig

    resolved = load(config, PretrainConfig, overrides or ())
    from jepa.training.pretrain import pretrain as run
    from jepa_probes.probing.online import online_probe

    probe = online_probe(resolved)
    run(resolved, resume=resume, overwrite=overwrite, bar=sys.stdout.isatty(), probe=probe)
