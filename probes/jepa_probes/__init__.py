"""Frozen latents to scores: what a trained encoder knows, beside what is known without it."""
