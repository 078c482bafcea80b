"""OpenJEPA: world models that learn from video by predicting latents instead of pixels.

    import jepa
    model = jepa.load("runs/demo")      # see jepa.runs.build.load
    latents = model.encode(video)       # uint8 [B, T, C, h, w] -> [B, S, N, D]

Importing this package is light: torch is imported by the first thing that needs it.
"""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from jepa.runs.build import load as load

__version__ = "0.1.0"
__all__ = ["__version__", "load"]


def __getattr__(name: str) -> Any:
    if name == "load":
        from jepa.runs.build import load

        return load
    raise AttributeError(f"module 'jepa' has no attribute {name!r}")
