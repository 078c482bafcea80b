"""Bytes to clips: worlds, shards, decoders and the clip stream. Knows no model."""

import os

# Read by webdataset when it is imported: no shell commands in shard names, no pickles in samples.
os.environ["WDS_SECURE"] = "1"
