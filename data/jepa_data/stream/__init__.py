"""Shards to batches of clips, in an order that is a function of seed, epoch and place."""
