"""Policies for Gymnasium environments that plan in latent space, and a streaming encoder for video."""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from jepa.agents.policy import Policy
    from jepa.agents.streaming import StreamingEncoder

__all__ = ["Policy", "StreamingEncoder"]
_MODULES = {"Policy": "jepa.agents.policy", "StreamingEncoder": "jepa.agents.streaming"}


def __getattr__(name: str) -> Any:
    if name in _MODULES:
        return getattr(import_module(_MODULES[name]), name)
    raise AttributeError(f"module 'jepa.agents' has no attribute {name!r}")
