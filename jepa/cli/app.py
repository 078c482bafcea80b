"""The verbs of `jepa`, and what a person sees when something goes wrong.

A verb is a function in its own file. At the top of that file only typer and the standard library are imported;
everything heavy is imported inside the function, so that `jepa --help` answers at once.
"""

import errno
import io
import os
import re
import sys
from collections.abc import Sequence
from typing import Annotated, Any, NoReturn

import typer
import typer.core

from jepa import __version__
from jepa.cli import compare, curves, demo, diagnose, embed, launch, plan, pretrain, probe, report
from jepa.cli.agents import dream, online, play
from jepa.cli.data import app as data
from jepa.cli.data import inspect
from jepa.cli.models import compress, decoder, export, imagine
from jepa.cli.show import show_messages
from jepa.cli.startup import postpone_collection

ADVICE = {
    errno.EACCES: "give another path, or allow reading and writing there",
    errno.EPERM: "give another path, or allow reading and writing there",
    errno.EROFS: "give a path on a disk that can be written",
    errno.ENOSPC: "free some space, or give a path on another disk",
    errno.EDQUOT: "free some space, or give a path on another disk",
    errno.ENOENT: "check the path",
    errno.ENOTDIR: "a part of the path is a file; give another path",
    errno.EISDIR: "give the path of a file",
    errno.EEXIST: "give another path",
    errno.ENAMETOOLONG: "give a shorter path",
    errno.ELOOP: "it links to itself; give another path",
    errno.EIO: "the disk or the network failed; try again, or give a path elsewhere",
}


class Verbs(typer.core.TyperGroup):
    """Without click's habit of telling a file that ends too early as "Aborted!"."""

    def invoke(self, ctx: Any) -> Any:
        try:
            return super().invoke(ctx)
        except EOFError as error:
            raise RuntimeError(f"a file or a pipe ended too early: {error}") from error


app = typer.Typer(
    name="jepa",
    cls=Verbs,
    help="Pretrain latent world models on video, probe them, and plan with them.",
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode=None,  # rich costs a fifth of a second, and errors are one line
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)

# Verbs, in the order of the work.
app.command("demo")(demo.demo)
app.command("doctor")(inspect.doctor)
app.add_typer(data.app, name="data")
app.command("pretrain")(pretrain.pretrain)
app.command("launch")(launch.launch)
app.command("curves")(curves.curves)
app.command("probe")(probe.probe)
app.command("decoder")(decoder.decoder)
app.command("compress")(compress.compress)
app.command("imagine")(imagine.imagine)
app.command("plan")(plan.plan)
app.command("diagnose")(diagnose.diagnose)
app.command("dream")(dream.dream)
app.command("online")(online.online)
app.command("play")(play.play)
app.command("compare")(compare.compare)
app.command("report")(report.report)
app.command("embed")(embed.embed)
app.command("export")(export.export)
app.command("import")(export.import_)


def _print_version(wanted: bool | None) -> None:
    if wanted:
        typer.echo(f"jepa {__version__}")
        raise typer.Exit


@app.callback()
def _options(
    version: Annotated[
        bool | None, typer.Option("--version", callback=_print_version, is_eager=True, help="Print the version.")
    ] = False,
) -> None:
    pass


def main(arguments: Sequence[str] | None = None, app: typer.Typer = app) -> NoReturn:
    """Run `jepa` with `arguments` (None: those of the process) and exit.

    Exit codes: 0 done · 2 a mistake in the command, a config or the data, or a path that cannot be read or written,
    printed as `error: …` on stderr, one line each · 130 Ctrl-C · 143 a run that saved its state and stopped, on
    SIGTERM, SIGUSR1 or after trainer.max_minutes · 1 a defect, with a traceback. JEPA_TRACEBACK=1 shows the traceback
    of mistakes too.
    """
    # Before torch is imported: threads that wait for one another sleep and do not spin. With other programs on the
    # machine, spinning ones made `jepa probe` take 50 times as long.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    if isinstance(sys.stdout, io.TextIOWrapper):  # names of files may hold what the terminal cannot show
        sys.stdout.reconfigure(errors="backslashreplace")
    show_messages()
    postpone_collection()
    try:
        app([_expand_home(each) for each in (sys.argv[1:] if arguments is None else arguments)], prog_name="jepa")
    except KeyboardInterrupt:
        _interrupted()
    except SystemExit as end:
        if end.code == 130:
            _interrupted()
        raise
    except OSError as error:
        if error.errno not in ADVICE or _traceback_wanted():
            raise
        where = "" if error.filename is None else f"{error.filename}: "
        _fail(f"{where}{os.strerror(error.errno)}; {ADVICE[error.errno]}")
    except ValueError as error:
        from jepa.config import UserError  # here, for it imports pydantic

        if not isinstance(error, UserError) or _traceback_wanted():
            raise
        _fail(str(error))
    sys.exit(0)


def _expand_home(argument: str) -> str:
    """`--out=~/x` as the shell leaves it, with the home folder in place; `KEY=~/x` is left to the configs."""
    if not re.match(r"(--[\w-]+=)?~/", argument):
        return argument
    option, tilde, path = argument.partition("~/")
    return option + os.path.expanduser(tilde + path)


def _traceback_wanted() -> bool:
    return os.environ.get("JEPA_TRACEBACK", "0") not in ("", "0")


def _fail(message: str) -> NoReturn:
    for line in message.splitlines():
        typer.echo(f"error: {line}", err=True)
    sys.exit(2)


def _interrupted() -> NoReturn:
    typer.echo("\ninterrupted", err=True)
    sys.exit(130)
