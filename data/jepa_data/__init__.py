"""Bytes to clips: worlds, shards, decoders and the clip stream. Knows no model."""

import os
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from jepa_data.spatial.annotate import annotate as annotate

# Read by webdataset when it is imported: no shell commands in shard names, no pickles in samples.
os.environ["WDS_SECURE"] = "1"

__all__ = ["annotate"]


def __getattr__(name: str) -> Any:
    if name != "annotate":
        raise AttributeError(f"module 'jepa_data' has no attribute {name!r}")
    from jepa_data.spatial.annotate import annotate

    return annotate
