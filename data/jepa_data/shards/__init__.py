"""WebDataset tars with a manifest and an index: written once, read by byte offset, in an order that can be computed."""

import os

# Read by webdataset when it is imported: no shell commands in shard names, no pickles in samples.
os.environ["WDS_SECURE"] = "1"
