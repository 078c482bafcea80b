"""Objectives: tensors in, one scalar out; never a model."""
