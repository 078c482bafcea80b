"""Where the configs of the repository are, or those of the installed package."""

from pathlib import Path


def shipped_configs() -> Path:
    """The folder `configs`."""
    package = Path(__file__).parents[1]
    installed = package / "configs"
    return installed if installed.is_dir() else package.parent / "configs"
