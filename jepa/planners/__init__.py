"""From a model and a cost to actions."""
