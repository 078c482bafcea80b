"""Decoders: latents to something a person can look at. They are fitted on frozen latents; the model learns nothing."""
