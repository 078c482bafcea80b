"""Embeddings and plans as policies of Gymnasium environments; embeddings of video as it comes."""

from jepa.agents.policy import Policy
from jepa.agents.streaming import StreamingEncoder

__all__ = ["Policy", "StreamingEncoder"]
