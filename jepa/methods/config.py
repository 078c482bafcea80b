"""The base class of method configs. Imports no torch."""

from typing import ClassVar

from jepa.config import Component
from jepa_data.config import CropConfig


class MethodConfig(Component):
    """Settings of a method, and properties that are needed before it is built."""

    collapses: ClassVar[bool] = True  # False for frozen encoders: no collapse warning

    def encoder_source(self) -> str | None:
        """Run, model folder or hub id of the frozen encoder; None: the config's `encoder`."""
        return None

    def latents_source(self) -> str | None:
        """Folder of the frozen encoder's latents, read in place of video; None: video is encoded."""
        return None

    def teacher_source(self) -> str | None:
        """Run whose encoder is the teacher; passed to the method as `teacher`."""
        return None

    def state_names(self) -> tuple[str, ...]:
        """Recorded states that the predictor reads."""
        return ()

    def target_names(self) -> tuple[str, ...]:
        """Recorded states that the method predicts, and its dynamics do not read."""
        return ()

    def view_crop(self) -> CropConfig | None:
        """The crops of the views of a clip; None: those of the data."""
        return None
