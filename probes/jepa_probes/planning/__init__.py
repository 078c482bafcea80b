"""Held-out tasks that a model's agent and its baselines play."""
