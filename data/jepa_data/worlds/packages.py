"""Packages that a world needs and that are installed only if it is wanted."""

from importlib import import_module
from typing import Any

from jepa_data.errors import DataError


def needed(world: str, package: str, extra: str) -> Any:
    """The module `package`, imported on first use.

    Raises:
        DataError: it is not installed, or something that it needs itself; names the extra that brings both.
    """
    try:
        return import_module(package)
    except ImportError as error:
        raise DataError(
            f"{world} needs the package {package.split('.')[0]}, which cannot be imported ({error}): "
            f"pip install 'openjepa[{extra}]'"
        ) from error
