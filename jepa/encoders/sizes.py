"""The published sizes of V-JEPA's vision transformers, by name. Light: importing this does not import torch.

name       width  depth  heads  MLP      parameters at patch 16, tubelet 2
tiny         192     12      3  4.0        5.6 M
small        384     12      6  4.0       21.9 M
base         768     12     12  4.0       86.2 M
large       1024     24     16  4.0      303.9 M
huge        1280     32     16  4.0      631.6 M
giant       1408     40     22  48/11     1.01 B
gigantic    1664     48     26  64/13     1.84 B
"""

from dataclasses import dataclass


@dataclass(frozen=True)
class Size:
    """Width, depth, heads and the hidden width of the MLPs over the width."""

    width: int
    depth: int
    heads: int
    mlp_ratio: float = 4.0


SIZES = {  # V-JEPA 1, 2 and 2.1
    "tiny": Size(192, 12, 3),
    "small": Size(384, 12, 6),
    "base": Size(768, 12, 12),
    "large": Size(1024, 24, 16),
    "huge": Size(1280, 32, 16),
    "giant": Size(1408, 40, 22, 48 / 11),
    "gigantic": Size(1664, 48, 26, 64 / 13),
}
