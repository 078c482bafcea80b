"""Random numbers that follow from where they are used."""

import numpy as np
import torch


def seeded(*key: int) -> torch.Generator:
    """A generator that is the same for the same numbers, and independent for others."""
    state = np.random.SeedSequence(key).generate_state(1, np.uint64)[0]
    return torch.Generator().manual_seed(int(state >> np.uint64(1)))
