"""`jepa play`."""

import signal
from pathlib import Path
from typing import Annotated

import typer

STOPPED = 143  # exit code, as of a process that SIGTERM ended


def play(
    arguments: Annotated[
        list[str], typer.Argument(metavar="RUN... [KEY=VALUE]...", help="Run folders, and settings, see above.")
    ],
    port: Annotated[int, typer.Option(min=0, max=65535, help="Port of the page; 0: any free one.")] = 8010,
    host: Annotated[
        str, typer.Option(help="Address to listen at. Others than this machine's own get a token.")
    ] = "127.0.0.1",
    config: Annotated[Path | None, typer.Option(help="A YAML file with settings.")] = None,
    out: Annotated[
        Path | None, typer.Option(help="Folder for recordings.  [default: the next free one in RUN/play]")
    ] = None,
    open_browser: Annotated[bool, typer.Option("--open/--no-open", help="Open the page in a browser.")] = False,
) -> None:
    """Drive the imagined world of a run in the browser, with the true world beside it.

    Serves a page at http://localhost:8010. Keys, mouse or gamepad act; each frame is a step that the model imagines.
    The page shows the true world and how far the two have drifted apart, grounds the model again in the true frames,
    plans to a goal that is clicked into the picture, and records videos and shards to train on. Several runs share a
    page. The first browser drives, others watch. Needs the extra `play`.

    \b
    jepa play runs/demo
    jepa play runs/demo runs/two-rooms --port 9000 fps=24 truth=true

    \b
    fps=30                        frames a second; each is one imagined latent step
    temperature=1                 of samples, for predictors of distributions; 0: their mean
    keep_grounded=false           imagine each step from the true frames before it
    horizon=6 planner.kind=cem    plans to goals: see jepa plan
    """
    from jepa.config import UserError
    from jepa.play.config import PlayConfig

    runs = [Path(argument) for argument in arguments if "=" not in argument]
    overrides = [argument for argument in arguments if "=" in argument]
    if not runs:
        raise UserError("jepa play takes at least one run folder, such as runs/demo")
    if out is not None and len(runs) > 1:
        raise UserError(f"--out is one folder, and there are {len(runs)} runs; leave it out: each records to RUN/play")
    from jepa.cli.resolve_run import config_or_defaults

    settings = config_or_defaults(config, overrides, PlayConfig)
    try:
        from jepa.play.server import listen, serve
    except ModuleNotFoundError as error:
        raise UserError(f"jepa play needs {error.name}; pip install 'openjepa[play]'") from error
    from jepa.play.game import Game
    from jepa.play.load import open_session
    from jepa_probes.reporting.run_decoder import pixel_decoder

    address = listen(host, port)  # before the models are loaded, so that a port in use is told at once
    with address.socket:
        sessions = [open_session(run, settings, pixel_decoder, out) for run in runs]
        received = serve(Game(sessions, settings), address, threads=settings.threads, open_browser=open_browser)
    if received is signal.SIGINT:
        raise KeyboardInterrupt
    if received is signal.SIGTERM:
        raise typer.Exit(STOPPED)
