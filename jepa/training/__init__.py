"""Pretraining on Lightning: one module for every method, its schedules and its callbacks."""
