"""Predictors: latents that are known to latents that are not."""
