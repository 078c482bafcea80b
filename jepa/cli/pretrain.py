"""`jepa pretrain`."""

import sys
from pathlib import Path
from typing import Annotated

import typer


def pretrain(
    config: Annotated[Path, typer.Argument(help="A YAML file such as configs/pretrain/demo.yaml.")],
    overrides: Annotated[list[str] | None, typer.Argument(help="KEY=VALUE, such as optimizer.lr=1e-3.")] = None,
    resume: Annotated[bool, typer.Option("--resume", help="Go on from the last checkpoint of the run.")] = False,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Start again where a run is: it is deleted.")] = False,
) -> None:
    """Train an encoder (and its dynamics) on shards, as CONFIG says, and write the run folder.

    Stopped by Ctrl-C, a kill or a power cut, the run goes on with --resume from the last checkpoint
    (trainer.checkpoint_every) and ends with the same weights. A run that is done is trained longer with --resume and
    a larger trainer.steps. How long, on what and how often to log may change; other keys that differ are refused.
    """
    from jepa.config import load
    from jepa.training.config import PretrainConfig

    resolved = load(config, PretrainConfig, overrides or ())
    from jepa.training.pretrain import pretrain as run
    from jepa_probes.probing.online import online_probe

    probe = online_probe(resolved)
    run(resolved, resume=resume, overwrite=overwrite, bar=sys.stdout.isatty(), probe=probe)
