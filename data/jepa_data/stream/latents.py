"""Latents of a frozen encoder, stored beside the shards they were computed from.

OUT/latents.json                the encoder, the shards, and the size and SHA-256 of each file
OUT/train-000000.safetensors    for each sample of that shard KEY [R, N, D], and with int8 KEY.scale [R, N, 1]

Row r is the latent of the step whose first frame is frame r of the video, and whose others follow `frames_apart` each:
every clip can be cut out of the rows, wherever it begins. Only the rows of a clip are read.
"""

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, Self

import numpy as np
import torch
from jaxtyping import Float, Float32, Int64
from pydantic import Field, ValidationError
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from jepa.config import Config
from jepa.config.sealed import Sealed
from jepa.config.writing import file_sha256, replacing
from jepa_data.errors import DataError, DecodeError
from jepa_data.shards.manifest import Manifest
from jepa_data.writable import writing

FORMAT: Literal["openjepa-latents"] = "openjepa-latents"
LATENTS = "latents.json"
INT8_MAX = 127
ENDING = ".safetensors"
Precision = Literal["bf16", "int8"]


class LatentsFile(Config):
    """One file: its bytes and SHA-256."""

    file: str
    bytes: int
    sha256: str


class LatentsManifest(Sealed):
    """The contents of `latents.json`.

    `shards_sha256`: of the manifest of the shards. `encoder_sha256`: of the encoder's tensors. `frames_per_step`:
    frames that a latent sees. `pixels`: how they were shown to the encoder.
    """

    format: Literal["openjepa-latents"] = FORMAT
    version: Literal[1] = 1
    model: str
    encoder_sha256: str
    shards: str
    shards_sha256: str
    tokens: int = Field(gt=0)
    width: int = Field(gt=0)
    frames_per_step: int = Field(gt=0)
    frames_apart: int = Field(gt=0)
    precision: Precision
    pixels: dict[str, Any]
    files: tuple[LatentsFile, ...]


def manifest_sha256(manifest: Manifest) -> str:
    """Identifies the shards, wherever they lie."""
    return hashlib.sha256(manifest.model_dump_json().encode()).hexdigest()


def to_stored(latents: Float[Tensor, "R N D"], precision: Precision) -> dict[str, Tensor]:
    """Latents as they are stored: "" and, with int8, ".scale"; the largest number of a token becomes 127.

    Raises:
        DataError: a number is not finite.
    """
    if not latents.isfinite().all():
        raise DataError("the encoder's latents are not finite")
    if precision == "bf16":
        return {"": latents.bfloat16()}
    scale = (latents.abs().amax(-1, keepdim=True) / INT8_MAX).clamp_min(torch.finfo(torch.float32).tiny)
    return {"": (latents / scale).round().to(torch.int8), ".scale": scale}


def write_file(out: Path, shard: str, tensors: Mapping[str, Tensor]) -> LatentsFile:
    """The latents of one shard's samples, whole or not at all. Raises DataError if it cannot be written."""
    path = out / (Path(shard).stem + ENDING)
    with writing(path), replacing(path) as partial:
        try:
            save_file(dict(tensors), partial)
        except SafetensorError as error:  # what it makes of an OSError
            raise OSError(str(error)) from error
    return LatentsFile(file=path.name, bytes=path.stat().st_size, sha256=file_sha256(path))


@dataclass(eq=False)
class Latents:
    """A folder of latents; each process opens its own files.

    Attributes:
        about: its manifest.
    """

    folder: Path
    about: LatentsManifest
    _files: dict[str, Any] = field(default_factory=dict, repr=False)

    @classmethod
    def open(cls, folder: Path | str, shards: Manifest) -> Self:
        """Read the manifest, and verify every file.

        Args:
            shards: of the shards that the latents are for.

        Raises:
            DataError: there is no such folder, a file is missing or damaged, or the latents are of other shards.
        """
        path = Path(folder).expanduser()
        try:
            about = LatentsManifest.from_file((path / LATENTS).read_bytes())
        except OSError as error:
            raise DataError(
                f"{path}: no latents ({error.strerror}); make them with `jepa data tokenize SHARDS {path} --model RUN`"
            ) from None
        except ValidationError as error:
            raise DataError(f"{path / LATENTS}: damaged, or of another version ({error.errors()[0]['msg']})") from None
        except ValueError as error:
            raise DataError(f"{path / LATENTS}: {error}") from None
        if about.shards_sha256 != manifest_sha256(shards):
            raise DataError(f"{path}: latents of other shards, made from {about.shards}; tokenize these shards")
        for record in about.files:
            _verify(path / record.file, record)
        return cls(path, about)

    def rows(self, shard: str, key: str, indices: Int64[np.ndarray, " T"]) -> Float32[np.ndarray, "S N D"]:
        """The latents of a clip, one per `frames_per_step` frames; the rest is dropped.

        Args:
            indices: the frames of the clip.

        Raises:
            DecodeError: the sample has no latents, or its frames are spaced otherwise than the encoder saw them.
        """
        per_step = self.about.frames_per_step
        steps = indices[: len(indices) // per_step * per_step].reshape(-1, per_step)
        if (np.diff(steps, axis=1) != self.about.frames_apart).any():
            raise DecodeError(
                "uneven", f"the frames of a latent step are not {self.about.frames_apart} apart, as its latents need"
            )
        try:
            return self._read(shard, key, steps[:, 0])
        except (SafetensorError, OSError, IndexError, RuntimeError) as error:
            raise DecodeError("missing", f"{self.folder}: has no such latents of it ({error})") from error

    def _read(self, shard: str, key: str, first: Int64[np.ndarray, " S"]) -> Float32[np.ndarray, "S N D"]:
        name = Path(shard).stem + ENDING
        if name not in self._files:
            self._files[name] = safe_open(self.folder / name, "pt")
        low, high = first.min().item(), first.max().item()
        place = torch.from_numpy(first - low)

        def cut(tensor: str) -> Tensor:
            return self._files[name].get_slice(tensor)[low : high + 1][place].float()

        return (cut(key) if self.about.precision == "bf16" else cut(key) * cut(f"{key}.scale")).numpy()

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), (self.folder, self.about)


def _verify(path: Path, record: LatentsFile) -> None:
    try:
        whole = path.stat().st_size == record.bytes and file_sha256(path) == record.sha256
    except OSError as error:
        raise DataError(f"{path}: cannot be read ({error.strerror}); tokenize the shards again") from None
    if not whole:
        raise DataError(f"{path}: damaged: its bytes are not those that were written; tokenize the shards again")
