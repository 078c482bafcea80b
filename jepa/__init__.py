"""OpenJEPA: world models that learn from video by predicting latents instead of pixels.

    import jepa
    model = jepa.load("runs/demo")      # see jepa.models.model.load
    latents = model.encode(video)       # uint8 [B, T, C, h, w] -> [B, S, N, D]

    encoder = jepa.create_encoder("vit_base", image_size=256, frames=16)      # see jepa.encoders.create
    tokens = encoder(normalized_video)                                        # [B, T, C, h, w] -> [B, S, N, D]

Importing this package is light: torch is imported by the first thing that needs it.
"""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from jepa.encoders.create import create_encoder as create_encoder
    from jepa.models.model import load as load

__version__ = "0.2.0"
__all__ = ["__version__", "create_encoder", "load"]


def __getattr__(name: str) -> Any:
    if name == "load":
        from jepa.models.model import load

        return load
    if name == "create_encoder":
        from jepa.encoders.create import create_encoder

        return create_encoder
    raise AttributeError(f"module 'jepa' has no attribute {name!r}")
