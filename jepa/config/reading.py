"""JSON from files that anybody may have written."""

import json
from typing import Any


def parse_json(text: str | bytes, **hooks: Any) -> Any:
    """As `json.loads`. Raises ValueError, also where it is nested deeper than Python's parser follows."""
    try:
        return json.loads(text, **hooks)
    except RecursionError:
        raise ValueError("nested too deeply") from None
