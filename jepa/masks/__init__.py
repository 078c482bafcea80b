"""Masks: a token grid and a generator to context and target indices."""
