"""The native format: `model.safetensors` + `model.json`. No pickle, so a file from a stranger can be opened.

model.json   {"format": "openjepa-model", "version": 1, "sha256": of the tensors' file,
              …what the caller describes, "content_sha256": of all this}
"""

import math
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, TypeVar

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from jepa.config import UserError
from jepa.config.reading import parse_json
from jepa.config.sealed import seal, unseal
from jepa.config.writing import file_sha256, flush, replacing
from jepa_data.printable import first_few

FORMAT = "openjepa-model"
VERSION = 1
TENSORS = "model.safetensors"
DESCRIPTION = "model.json"
MIN_LIMIT = 2**16  # numbers up to here are never too large for a model, however small

Part = TypeVar("Part", bound=nn.Module)


def save(folder: Path, module: nn.Module, description: Mapping[str, Any]) -> None:
    """Write the module's tensors and what describes them: both, or what was there is left.

    A kill between the two leaves no description: a folder without a model, not one that looks damaged.

    Raises:
        UserError: a tensor is not finite, or a file cannot be written; what was there is left.
    """
    state = module.state_dict()
    if bad := [name for name, x in state.items() if x.is_floating_point() and not x.isfinite().all()]:
        raise UserError(f"{folder}: not written: {first_few(bad, 3)} is not finite; train again with a lower rate")
    folder.mkdir(parents=True, exist_ok=True)
    with replacing(folder / DESCRIPTION) as text, replacing(folder / TENSORS) as tensors:
        write_tensors({name: x.detach().cpu().contiguous() for name, x in state.items()}, tensors)
        record = {"format": FORMAT, "version": VERSION, "sha256": file_sha256(tensors), **description}
        text.write_text(seal(record))
        for partial in (tensors, text):
            flush(partial)  # a full disk is found out before anything is replaced
        (folder / DESCRIPTION).unlink(missing_ok=True)


def write_tensors(tensors: dict[str, Tensor], path: Path, metadata: dict[str, str] | None = None) -> None:
    """Raises UserError if the file cannot be written."""
    try:
        save_file(tensors, path, metadata)
    except SafetensorError as error:
        raise UserError(f"{path}: cannot be written ({error}); free some space, or allow writing there") from None


def read_description(folder: Path) -> dict[str, Any]:
    """The description given to `save`. Raises UserError if the folder holds no model, or one of another format."""
    path = folder / DESCRIPTION
    if not path.is_file():
        raise UserError(f"{folder}: no {DESCRIPTION} here. `jepa pretrain` writes one to RUN/model when it ends.")
    try:
        description = parse_json(path.read_text())
    except ValueError as error:
        raise UserError(f"{path}: not readable as JSON ({error})") from None
    stamp = (description.get("format"), description.get("version")) if isinstance(description, dict) else None
    if stamp != (FORMAT, VERSION):
        raise UserError(f"{path}: expected a description of format {FORMAT!r}, version {VERSION}, found {stamp}")
    try:
        return unseal(description)
    except ValueError as error:
        raise UserError(f"{path}: {error}") from None


def load_into(module: nn.Module, folder: Path) -> None:
    """Fill the module with the folder's tensors.

    Raises:
        UserError: the file is damaged, or a tensor is missing, surplus or of another shape (each is named).
    """
    path = folder / TENSORS
    if not path.is_file():
        raise UserError(f"{folder}: {TENSORS} is missing")
    if file_sha256(path) != read_description(folder)["sha256"]:
        raise UserError(
            f"{path}: the checksum differs from the one in {DESCRIPTION}; the file is damaged, copy it again"
        )
    try:
        tensors = load_file(path)
    except SafetensorError as error:
        raise UserError(f"{path}: not a safetensors file ({error})") from None
    check_tensors(module.state_dict(), tensors, str(path))
    module.load_state_dict(tensors)


def load_part(folder: Path, what: str, build: Callable[[dict[str, Any]], Part]) -> Part:
    """A part of a model from a folder of its own, in evaluation mode.

    Args:
        what: it is, for errors.
        build: makes it of its description.

    Raises:
        UserError: it is damaged, or its description is of something else.
    """
    description = read_description(folder)
    check_sizes(folder, description)
    try:
        part = build(description)
    except (KeyError, TypeError, ValueError, RuntimeError) as error:  # the last where memory is short
        raise UserError(f"{folder}: does not describe {what} ({error})") from None
    load_into(part, folder)
    return part.eval()


def check_sizes(folder: Path, description: Any) -> None:
    """Raises UserError if a description has numbers that the tensors beside it cannot have, before a model is built."""
    try:
        with safe_open(folder / TENSORS, "pt") as file:
            shapes = [file.get_slice(name).get_shape() for name in file.keys()]  # noqa: SIM118
    except (OSError, SafetensorError):
        return  # what is wrong with the file is said when it is read
    limits = {"depth": len(shapes), "layers": len(shapes)}
    most = max(MIN_LIMIT, sum(map(math.prod, shapes)))
    for key, value in _numbers(description):
        if value > limits.get(key, most):
            raise UserError(
                f"{folder / DESCRIPTION}: {key} is {value}, more than the {len(shapes)} tensors of {TENSORS} can have; "
                "the description is damaged, copy it again"
            )


def _numbers(description: Any, key: str = "") -> Iterator[tuple[str, int]]:
    if isinstance(description, dict):
        for name, value in description.items():
            yield from _numbers(value, str(name))
    elif isinstance(description, list):
        for value in description:
            yield from _numbers(value, key)
    elif isinstance(description, int):
        yield key, description


def fill(module: nn.Module, tensors: Mapping[str, Tensor], where: str) -> None:
    """Give a module, which may be on the meta device, copies of these tensors, and put it in evaluation mode.

    Weights that are stored in half precision are read into fp32, exactly: activations are fp32.

    Raises:
        UserError: a tensor is missing, surplus or of another shape (each is named).
    """
    check_tensors(module.state_dict(), tensors, where)
    module.load_state_dict({name: _as_fp32(tensor) for name, tensor in tensors.items()}, assign=True)
    module.eval()


def check_tensors(expected: Mapping[str, Tensor], tensors: Mapping[str, Tensor], where: str) -> None:
    """Raises UserError naming every tensor that is missing, surplus or of another shape."""
    wrong = [f"missing {name}" for name in sorted(expected.keys() - tensors.keys())]
    wrong += [f"surplus {name}" for name in sorted(tensors.keys() - expected.keys())]
    wrong += [
        f"{name} has shape {tuple(tensors[name].shape)}, the model {tuple(expected[name].shape)}"
        for name in sorted(expected.keys() & tensors.keys())
        if expected[name].shape != tensors[name].shape
    ]
    if wrong:
        raise UserError(f"{where} belongs to another model: {first_few(wrong, 5, '; ')}")


def _as_fp32(tensor: Tensor) -> Tensor:
    return tensor.to(torch.float32, copy=True) if tensor.is_floating_point() else tensor.clone()
