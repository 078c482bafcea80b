"""Imagined futures as videos: from a clip, a file or a world, under actions, beside the truth where it is known."""
