"""Encoders: video clips to latents `[B, S, N, D]`."""
