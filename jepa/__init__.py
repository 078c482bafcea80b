"""OpenJEPA: world models that learn from video by predicting latents instead of pixels.

    import jepa
    model = jepa.load("runs/demo")      # a run, a model folder, or a hub id; see jepa.models.model.load
    latents = model.encode(video)       # uint8 [B, T, 3, h, w], a file, PIL images, … -> [B, S, N, D]

    jepa.pretrain("configs/pretrain/demo.yaml", ["run=runs/mine"])      # the commands as functions: see jepa.api
    jepa.probe("runs/mine").scores["state_r2"]
    jepa.plan("runs/mine", "configs/plan/demo.yaml").success

    encoder = jepa.create_encoder("vit_base", image_size=256, frames=16)      # see jepa.encoders.create
    tokens = encoder(normalized_video)                                        # [B, T, 3, h, w] -> [B, S, N, D]

Importing this package does not import torch; the first function that needs it does.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from jepa.api import compare as compare
    from jepa.api import compress as compress
    from jepa.api import diagnose as diagnose
    from jepa.api import dream as dream
    from jepa.api import fit_decoder as fit_decoder
    from jepa.api import imagine as imagine
    from jepa.api import list_encoder_sizes as list_encoder_sizes
    from jepa.api import list_encoders as list_encoders
    from jepa.api import list_masks as list_masks
    from jepa.api import list_methods as list_methods
    from jepa.api import list_planners as list_planners
    from jepa.api import list_predictors as list_predictors
    from jepa.api import list_probes as list_probes
    from jepa.api import list_worlds as list_worlds
    from jepa.api import plan as plan
    from jepa.api import pretrain as pretrain
    from jepa.api import probe as probe
    from jepa.api import report as report
    from jepa.encoders.create import create_encoder as create_encoder
    from jepa.models.model import load as load

__version__ = "0.2.0"

__all__ = [
    "__version__",
    "compare",
    "compress",
    "create_encoder",
    "diagnose",
    "dream",
    "fit_decoder",
    "imagine",
    "list_encoder_sizes",
    "list_encoders",
    "list_masks",
    "list_methods",
    "list_planners",
    "list_predictors",
    "list_probes",
    "list_worlds",
    "load",
    "plan",
    "pretrain",
    "probe",
    "report",
]
_ELSEWHERE = {"load": "jepa.models.model", "create_encoder": "jepa.encoders.create"}  # than in jepa.api


def __getattr__(name: str) -> Any:
    if name in __all__:
        return getattr(import_module(_ELSEWHERE.get(name, "jepa.api")), name)
    raise AttributeError(f"module 'jepa' has no attribute {name!r}")
