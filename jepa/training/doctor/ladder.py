"""The sizes of models that the doctor chooses from, and what it may spend on a machine."""

from dataclasses import dataclass

from jepa_data.inspect.hardware import Hardware

EPOCHS = 100  # over the videos, or as many clips as `Budget.clips`


@dataclass(frozen=True)
class Blocks:
    """Size of an encoder or a predictor."""

    width: int
    depth: int
    heads: int


@dataclass(frozen=True)
class Rung:
    """A size of model, for images of `pixels` a side."""

    name: str
    encoder: Blocks
    predictor: Blocks
    pixels: int


# The best first. The first three are the sizes of ViT-L, ViT-B and ViT-S with V-JEPA's predictor scaled along.
LADDER = (
    Rung("large", Blocks(1024, 24, 16), Blocks(384, 12, 12), 224),
    Rung("base", Blocks(768, 12, 12), Blocks(384, 12, 12), 224),
    Rung("base", Blocks(768, 12, 12), Blocks(384, 12, 12), 160),
    Rung("small", Blocks(384, 12, 6), Blocks(192, 6, 6), 160),
    Rung("small", Blocks(384, 12, 6), Blocks(192, 6, 6), 112),
    Rung("tiny", Blocks(192, 12, 3), Blocks(96, 4, 4), 112),
    Rung("tiny", Blocks(192, 12, 3), Blocks(96, 4, 4), 64),
    Rung("mini", Blocks(128, 4, 4), Blocks(64, 2, 2), 64),
)


@dataclass(frozen=True)
class Budget:
    """What a kind of machine may spend.

    Attributes:
        clips: to see at least: thousands of steps.
        batches: sizes to choose from.
        memory: share of it; a CPU shares it with the workers and everything else.
        timed: what is measured, in batches of `timed_batch`.
    """

    device: str
    memory_name: str
    clips: int
    hours: float
    batches: tuple[int, ...]
    memory: float
    timed: Rung
    timed_batch: int


GPU = Budget("cuda", "of the GPU", 500_000, 24.0, (256, 128, 64, 32, 16), 0.85, LADDER[1], 16)
CPU = Budget("cpu", "of what is free", 64_000, 10.0, (32, 16, 8), 0.5, LADDER[5], 2)


def budget_of(machine: Hardware) -> Budget:
    return CPU if machine.gpu is None else GPU
