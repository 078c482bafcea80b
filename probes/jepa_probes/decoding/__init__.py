"""Decoders of a run: fitted on its frozen latents, and measured on held-out clips."""
