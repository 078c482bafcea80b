"""Embeddings and plans as policies of Gymnasium environments."""

from jepa.agents.policy import Policy

__all__ = ["Policy"]
