"""Worlds whose physics is MuJoCo's."""
