"""RUN/pretrain.json: figures of a training."""

from collections.abc import Mapping
from typing import Any, ClassVar

from jepa.config.result import Number, Part, Result


class StreamedData(Part):
    """What the training read.

    Attributes:
        mix: clips by source.
        errors: samples left out, by kind.
        stalls: times that a batch was long in coming.
    """

    position: dict[str, Any]
    mix: dict[str, int]
    errors: dict[str, int]
    stalls: int


class PretrainResult(Result):
    """Figures of a training; `effective_rank`, `std`, `min_std` and `lidar` are the collapse monitor's last.

    Attributes:
        wait_share: of the time, spent on waiting for data.
        probe: the online probe's last scores, and its `seconds`.
        seconds: from the first step to the last.
        parameters: trained ones.
        skipped_steps: whose loss or gradient was not finite.
        rollbacks: to a checkpoint, for the same reason.
        left_out: samples that could not be read, and why.
    """

    FILE: ClassVar[str] = "pretrain.json"
    VERB: ClassVar[str] = "pretrain"
    method: str
    steps: int
    clips_per_second: Number
    wait_share: Number
    effective_rank: Number = None
    std: Number = None
    min_std: Number = None
    lidar: Number = None
    monitor_seconds: float
    probe: Mapping[str, Number] | None
    seconds: float
    parameters: int
    encoder_parameters: int
    device: str
    precision: str
    warnings: list[str]
    skipped_steps: int = 0
    rollbacks: int = 0
    left_out: dict[str, str]
    data: StreamedData
