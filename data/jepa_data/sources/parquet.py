"""Parquet files, read by pyarrow, which is installed with the extra `pack`."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

from jepa_data.errors import DataError


def read_parquet(path: Path, wanted: Callable[[str], bool] = lambda column: True) -> Any:
    """The columns of a file for which `wanted` holds, as a pyarrow.Table. Raises DataError."""
    try:
        import pyarrow as arrow
        import pyarrow.parquet as parquet
    except ImportError as error:
        raise DataError(f"{path}: Parquet is read by pyarrow: pip install 'openjepa[pack]'") from error
    try:
        with parquet.ParquetFile(path) as file:
            return file.read([name for name in file.schema_arrow.names if wanted(name)])
    except (arrow.ArrowException, OSError) as error:
        why = str(error).partition("\n")[0]
        raise DataError(f"{path}: cannot be read as Parquet ({why})") from error
