"""Objectives: functions from tensors to a scalar."""
