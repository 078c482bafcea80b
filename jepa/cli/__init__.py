"""The command `jepa`: one file a verb. Nothing here imports torch before a verb runs."""

from jepa.cli.app import main

__all__ = ["main"]
