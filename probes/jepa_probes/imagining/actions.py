"""Actions that a person gives: a file of rows, or keys.

FILE.npy    an array [T-1, A]          FILE.json   [[0.1, 0.0], …], or {"actions": …}
FILE.csv    a line for each row; a first line of names is skipped
keys        one letter for each frame: w up, s down, a left, d right, . none; capital letters go half as far
"""

from pathlib import Path

import numpy as np
from jaxtyping import Float32

from jepa.config import UserError
from jepa.config.reading import parse_json

FILES = (".npy", ".csv", ".json")
KEYS = {"w": (0.0, -1.0), "s": (0.0, 1.0), "a": (-1.0, 0.0), "d": (1.0, 0.0), ".": (0.0, 0.0)}  # y points downwards
HALF = 0.5  # of a capital letter


def read_actions(path: Path) -> Float32[np.ndarray, "P A"]:
    """Rows of actions in a file. Raises UserError if it cannot be read, or holds no finite rows of one width."""
    try:
        rows = _rows(path)
    except FileNotFoundError:
        raise UserError(f"actions: {path}: no such file") from None
    except (ValueError, TypeError, KeyError, EOFError) as error:
        raise UserError(f"actions: {path}: not readable as rows of numbers ({error})") from None
    if rows.ndim != 2 or not rows.size or not np.isfinite(rows).all():
        raise UserError(f"actions: {path}: expected finite numbers [T-1, A], found shape {list(rows.shape)}")
    return rows.astype(np.float32)


def _rows(path: Path) -> np.ndarray:
    if path.suffix.lower() == ".npy":
        return np.load(path, allow_pickle=False)
    if path.suffix.lower() == ".json":
        content = parse_json(path.read_text())
        return np.asarray(content["actions"] if isinstance(content, dict) else content, dtype=np.float64)
    lines = [line for line in path.read_text().splitlines() if line.strip()]
    if lines and any(letter.isalpha() and letter not in "eE" for letter in lines[0]):
        lines = lines[1:]
    return np.array([[float(cell) for cell in line.replace(";", ",").split(",")] for line in lines])


def key_actions(keys: str, width: int) -> Float32[np.ndarray, "P 2"]:
    """One action for each letter. Raises UserError for other letters, or actions that are not two numbers."""
    if width != 2:
        raise UserError(f"keys move in two directions, and these actions have {width} numbers; give actions=FILE")
    unknown = sorted({key for key in keys if key.lower() not in KEYS})
    if unknown or not keys:
        raise UserError(f"keys: expected letters of {' '.join(KEYS)}, found {' '.join(unknown) or 'none'}")
    rows = [np.array(KEYS[key.lower()]) * (HALF if key.isupper() else 1.0) for key in keys]
    return np.stack(rows).astype(np.float32)


def per_frame(rows: Float32[np.ndarray, "P A"], width: int, stride: int, where: str) -> Float32[np.ndarray, "Q E"]:
    """Actions as the model takes them, one for each of its frames.

    Args:
        rows: one for each frame of the model, of its `width`; or for each frame of the world, `stride` times narrower.
        stride: frames of the world for one of the model.

    Raises:
        UserError: the rows have another width.
    """
    if rows.shape[1] == width:
        return rows
    if stride > 1 and rows.shape[1] * stride == width:
        whole = len(rows) // stride
        return rows[: whole * stride].reshape(whole, width)
    each = f"{width // stride}, one for each frame of the world, or " if stride > 1 else ""
    raise UserError(f"{where}: expected rows of {each}{width} numbers, found {rows.shape[1]}")
