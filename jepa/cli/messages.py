"""What the packages log, as plain lines of the terminal."""

import logging

import typer

PACKAGES = ("jepa", "jepa_data", "jepa_probes")


class Messages(logging.Handler):
    """Prints the bare message: to stdout, and warnings to stderr."""

    def emit(self, record: logging.LogRecord) -> None:
        typer.echo(record.getMessage(), err=record.levelno >= logging.WARNING)


HANDLER = Messages()


def show_messages() -> None:
    """Print what the packages log from INFO on. Calling it twice prints nothing twice."""
    for name in PACKAGES:
        logger = logging.getLogger(name)
        logger.addHandler(HANDLER)
        logger.setLevel(logging.INFO)
