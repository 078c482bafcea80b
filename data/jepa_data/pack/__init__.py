"""`jepa data pack`: cuts, scales and encodes what a source lists, on all cores, into shards."""
