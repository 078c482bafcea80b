"""Named events of worlds, such as `close-door`: numbers and names, and columns that say which events happen.

    number   0: no event; k: the event `names[k - 1]`
    event[t] changes the state right before the step under action[t], and so acts in the transition t -> t+1
    columns  [..., E]: 1 for an event that happens, otherwise 0

Nothing here imports torch.
"""

import difflib
from collections.abc import Sequence

import numpy as np
from jaxtyping import Float32
from numpy.typing import NDArray

from jepa_data.errors import DataError


def event_number(name: str, names: Sequence[str], owner: str) -> int:
    """The number of an event.

    Args:
        names: the events that `owner` (a world, a model) knows.

    Raises:
        DataError: it does not know this one.
    """
    if name in names:
        return list(names).index(name) + 1
    if not names:
        raise DataError(f"{owner} has no events, found {name!r}")
    near = "".join(f" (did you mean {other!r}?)" for other in difflib.get_close_matches(name, names, n=1))
    raise DataError(f"{owner} has no event {name!r}{near}; there are {', '.join(names)}")


def check_numbers(numbers: NDArray[np.integer], names: Sequence[str], owner: str) -> None:
    """Raises DataError for what is no number of an event."""
    if numbers.dtype.kind not in "iu":
        raise DataError(f"{owner}: events are whole numbers, 0 for none; found {numbers.dtype}")
    if numbers.size and not (numbers.min() >= 0 and numbers.max() <= len(names)):
        wrong = int(numbers.max() if numbers.max() > len(names) else numbers.min())
        known = f"events 1 to {len(names)} ({', '.join(names)})" if names else "no events"
        raise DataError(f"{owner} has {known}, and 0 for none; found {wrong}")


def event_columns(numbers: NDArray[np.integer], count: int) -> Float32[np.ndarray, "*shape count"]:
    """Columns [..., E] for numbers [...] from 0 to `count` = E."""
    return np.eye(count + 1, dtype=np.float32)[numbers][..., 1:]
