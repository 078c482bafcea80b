"""Shards to batches of clips, in an order that depends only on seed, epoch and position."""
