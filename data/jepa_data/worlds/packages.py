"""Optional packages of worlds."""

from importlib import import_module
from typing import Any

from jepa_data.errors import DataError


def needed(world: str, package: str, extra: str) -> Any:
    """The module `package`, imported on first use.

    Raises:
        DataError: the package or a dependency is not installed; names the extra that installs it.
    """
    try:
        return import_module(package)
    except ImportError as error:
        raise DataError(
            f"{world} needs the package {package.split('.')[0]}, which cannot be imported ({error}): "
            f"pip install 'openjepa[{extra}]'"
        ) from error
