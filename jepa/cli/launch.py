"""`jepa launch`."""

from pathlib import Path
from typing import Annotated

import typer

PREFIX = "submitit."


def launch(
    config: Annotated[Path, typer.Argument(help="A YAML file such as configs/pretrain/demo.yaml.")],
    overrides: Annotated[list[str] | None, typer.Argument(metavar="KEY=VALUE", help="Settings, see above.")] = None,
    slurm: Annotated[bool, typer.Option("--slurm", help="Jobs of Slurm. Otherwise: processes here.")] = False,
    seeds: Annotated[str | None, typer.Option(help="A run for each, in RUN-SEED, such as 0,1,2.")] = None,
    jobs: Annotated[int | None, typer.Option(min=1, help="Jobs of Slurm at the same time; all if not given.")] = None,
    resume: Annotated[bool, typer.Option("--resume", help="Go on with runs that are there.")] = False,
) -> None:
    """Start `jepa pretrain` as jobs, one for each seed, with submitit.

    With --slurm: an array of jobs of trainer.nodes machines with trainer.devices tasks and GPUs each. Shortly before
    the time of a job is up, or when it is preempted, its state is saved and it is put back into the queue, as often as
    needed. Without: processes of this machine, whose end is waited for; Ctrl-C and SIGTERM end them,
    with their state saved. Logs are in RUN.jobs.

    \b
    jepa launch FILE --slurm --seeds 0,1,2 submitit.timeout_min=1440 submitit.slurm_partition=gpu
    jepa launch FILE --slurm trainer.nodes=2 trainer.devices=8 trainer.strategy=fsdp2
    jepa launch FILE --seeds 0,1

    \b
    submitit.timeout_min=1440           minutes of a job
    submitit.slurm_partition=gpu        and other parameters of submitit: slurm_account, slurm_qos, mem_gb, ...
    """
    from jepa.config import UserError, from_dict, load
    from jepa.training.config import PretrainConfig

    words = overrides or []
    resolved = load(config, PretrainConfig, [word for word in words if not word.startswith(PREFIX)])
    from jepa.training.launch import LaunchConfig, wait
    from jepa.training.launch import launch as run

    if seeds is not None and not seeds.strip():
        raise UserError("--seeds: expected numbers such as 0,1,2, found nothing")

    wanted = [word for word in words if word.startswith(PREFIX)]
    wanted += [f"seeds=[{seeds}]"] if seeds is not None else []
    options = from_dict({"jobs": jobs}, LaunchConfig, wanted, "launch")
    launched = run(resolved, options, "slurm" if slurm else "local", resume=resume)
    for each in launched:
        typer.echo(f"{each.run}: job {each.job.job_id}, logs {each.job.paths.stdout} and .err")
    if slurm:
        return
    if problems := wait(launched):
        raise UserError("\n".join(problems))
