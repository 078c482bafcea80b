"""What a verb is given: a run folder and perhaps a config, or a config that names its run."""

from pathlib import Path
from typing import Annotated, Any

import typer

Target = Annotated[
    Path, typer.Argument(metavar="RUN|CONFIG", help="A run folder, or a YAML file that names one (run: …).")
]


def run_and_config(target: Path, config: Path | None, overrides: list[str], kind: type, verb: str) -> tuple[Path, Any]:
    """Of `jepa VERB RUN [--config FILE] [KEY=VALUE]...` or `jepa VERB FILE [KEY=VALUE]...`.

    Args:
        kind: of the config, a `TasksConfig` (which is not imported here: `jepa --help` must answer at once).

    Returns:
        The run folder, and the config.

    Raises:
        UserError: there are two configs, or none names a run.
    """
    from jepa.config import UserError, load

    if target.is_dir() or target.suffix not in (".yaml", ".yml"):
        return target, config_or_defaults(config, overrides, kind)
    if config:
        raise UserError(f"{target} is a config already; leave out --config, or give a run folder")
    resolved = load(target, kind, overrides)
    if resolved.run is None:
        raise UserError(f"{target} names no run: give one as run=FOLDER, or jepa {verb} RUN --config {target}")
    return Path(resolved.run), resolved


def config_or_defaults(config: Path | None, overrides: list[str], kind: type) -> Any:
    """What the file says, or the defaults where there is none."""
    from jepa.config import from_dict, load

    if config is None:
        return from_dict({}, kind, overrides)
    return load(config, kind, overrides)
