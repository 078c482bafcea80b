"""Text files that are replaced in one step."""

import os
from pathlib import Path


def replace_text(path: Path, text: str) -> None:
    """Write a file in one step: whoever reads it meanwhile finds the old one or the new one."""
    partial = path.with_name(path.name + ".partial")
    partial.write_text(text)
    os.replace(partial, path)
