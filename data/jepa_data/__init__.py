"""Bytes to clips: worlds, shards, decoders and the clip stream. Knows no model."""
