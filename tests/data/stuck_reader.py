"""A reader whose decoder never returns. Workers import this file, so it imports no more than they need anyhow."""

import time
from typing import Any

from jepa_data.stream.clips import ClipReader


class StuckReader(ClipReader):
    """Its decoder never returns from one sample."""

    key = ""

    def _read(self, sample: Any, item: Any, attempt: int) -> Any:
        if sample.key == self.key:
            time.sleep(1000)
        return super()._read(sample, item, attempt)

    def __reduce__(self) -> tuple[Any, ...]:
        return stuck_reader, (self.key, *super().__reduce__()[1])


def stuck_reader(key: str, *fields: Any) -> StuckReader:
    reader = StuckReader(*fields)
    reader.key = key
    return reader
