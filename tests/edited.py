"""Files with a checksum of their content, changed on purpose."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from jepa.config.sealed import SEAL


def write_edited(path: Path, content: Mapping[str, Any]) -> None:
    """Write a JSON file whose content was changed, without the checksum that no longer fits."""
    path.write_text(json.dumps({key: value for key, value in content.items() if key != SEAL}))
