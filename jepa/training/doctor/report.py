"""What the doctor says: a report for people, and the config as a file."""

from dataclasses import dataclass
from typing import Any

import yaml

from jepa.config.source import Dumper
from jepa.training.config import PretrainConfig
from jepa.training.cost_model import StepSize
from jepa.training.doctor.ladder import EPOCHS, budget_of
from jepa_data.inspect.hardware import Hardware
from jepa_data.inspect.survey import Speed, Survey
from jepa_data.printable import printable


@dataclass(frozen=True)
class Advice:
    """What the doctor says.

    Attributes:
        tree: the config, as plain values.
        rate: measured floating-point operations a second of training.
        step_seconds, data_seconds: of a step, computed and read.
        epoch_hours, run_hours: once through the videos; all steps.
    """

    survey: Survey
    hardware: Hardware
    speed: Speed
    name: str
    tree: dict[str, Any]
    config: PretrainConfig
    size: StepSize
    rate: float
    step_seconds: float
    data_seconds: float
    epoch_hours: float
    run_hours: float

    def lines(self) -> list[str]:
        """The report for people, without the config."""
        data = self.config.data
        size = self.size
        memory = size.memory(data.batch_size)
        return [
            *self.survey.lines(),
            f"  decoding clips of {data.clip_frames} at {data.image_size} px: {self.speed.line()}",
            f"this machine: {self.hardware.line()}",
            f"  training: {self.rate / 1e9:.0f} GFLOP/s, measured with a small model",
            f"recommended: V-JEPA, encoder '{self.name}' ({size.encoder / 1e6:.1f} M parameters), "
            f"{size.tokens} tokens a clip, batches of {data.batch_size}",
            f"  memory about {memory / 2**30:.2f} GiB ({memory / self.hardware.training_memory:.0%} "
            f"{budget_of(self.hardware).memory_name}): weights, optimizer and teacher "
            f"{size.fixed_bytes / 2**20:.0f} MiB, {data.batch_size} clips of {size.clip_bytes / 2**20:.0f} MiB, + 15 %",
            f"  a step about {max(self.step_seconds, self.data_seconds):.2f} s: {self.step_seconds:.2f} s computing "
            f"({size.flops / 1e9:.1f} GFLOP a clip), {self.data_seconds:.2f} s reading",
            f"  once through the videos about {_hours(self.epoch_hours)}; {self.config.trainer.steps} steps about "
            f"{_hours(self.run_hours)}. These are estimates; other programs on the machine make it slower",
            *self._remarks(),
        ]

    def _remarks(self) -> list[str]:
        lines = []
        if self.data_seconds > self.step_seconds:
            lines.append(
                "  reading is slower than computing: packed at 15 fps and 256 px, videos read 3 to 9 times faster"
            )
        epochs = self.config.trainer.steps * self.config.data.batch_size / max(1, self.survey.usable)
        if epochs < EPOCHS / 4:
            lines.append(f"  in that time each video is seen {epochs:.1f} times; V-JEPA sees its own far more often")
        if self.survey.usable < 100:
            lines.append(
                f"  {self.survey.usable} videos are few: features learned from under a hundred seldom carry over"
            )
        return lines

    def text(self) -> str:
        """The config as a file that `jepa pretrain` reads."""
        folder = printable(self.survey.folder)
        head = [
            "# jepa pretrain THIS_FILE",
            f"# Made by `jepa doctor {folder}` for: {self.hardware.line()}",
            f"# Memory about {self.size.memory(self.config.data.batch_size) / 2**30:.2f} GiB, time about "
            f"{_hours(self.run_hours)} (estimates); the score is not known beforehand: `jepa probe` tells.",
        ]
        if self.survey.shards is None:
            head.append(f"# First: jepa data pack {folder} {printable(self.tree['data']['shards'])}")
        config = yaml.dump(self.tree, Dumper=Dumper, sort_keys=False, default_flow_style=None, width=110)
        return "\n".join([*head, config])


def _hours(hours: float) -> str:
    if hours >= 1:
        return f"{hours:.1f} h"
    if hours >= 1 / 60:
        return f"{60 * hours:.1f} min"
    return f"{3600 * hours:.0f} s"
