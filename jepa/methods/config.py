"""What the settings of every method tell before it is built. Imports no torch."""

from typing import ClassVar

from jepa.config import Component
from jepa_data.config import CropConfig


class MethodConfig(Component):
    """Settings of a method, and what may be asked of them before the method is built."""

    collapses: ClassVar[bool] = True  # False where the encoder does not learn: there is nothing to warn of

    def encoder_source(self) -> str | None:
        """Run, model folder or hub id of the frozen encoder; None: the config's `encoder`."""
        return None

    def teacher_source(self) -> str | None:
        """Run whose encoder is the teacher; given to the method as `teacher`."""
        return None

    def state_names(self) -> tuple[str, ...]:
        """Recorded states that the predictor reads."""
        return ()

    def view_crop(self) -> CropConfig | None:
        """The crops that make views of a clip; None: those of the data."""
        return None
