"""`python -m jepa.cli` is `jepa`."""

from jepa.cli import main

main()
