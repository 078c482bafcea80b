"""Typed results: what a verb measured, as pydantic models that are written to and read from JSON in a run folder.

class ProbeResult(Result):
    FILE = "probe.json"
    VERB = "probe"
    scores: dict[str, float | None]

ProbeResult(scores={"state_r2": 0.9}).write(run)
ProbeResult.read(run).scores
"""

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal, Self

from pydantic import AfterValidator, BaseModel, ConfigDict, ValidationError

from jepa.config.errors import UserError
from jepa.config.sealed import seal, unsealed
from jepa.config.writing import write_text


def _finite(value: float | None) -> float | None:
    return None if value is None or not math.isfinite(value) else value


Number = Annotated[float | None, AfterValidator(_finite)]  # None: not measured, or not finite


class Part(BaseModel):
    """A part of a result."""

    model_config = ConfigDict(extra="forbid", frozen=True, validate_by_name=True, validate_by_alias=True)


class Result(Part):
    """What `jepa VERB` measured: the content of `FILE` in a run folder."""

    FILE: ClassVar[str]
    VERB: ClassVar[str]
    schema_version: Literal[1] = 1

    def to_json(self) -> dict[str, Any]:
        """The content of the file."""
        return self.model_dump(mode="json", by_alias=True)

    def write(self, folder: Path) -> Path:
        path = folder / self.FILE
        write_text(path, seal(self.to_json(), allow_nan=False))
        return path

    @classmethod
    def read(cls, folder: Path) -> Self:
        """Raises UserError if there is no such file, it is damaged, or another version wrote it."""
        path = folder / cls.FILE
        if not folder.is_dir():
            raise UserError(f"{folder}: no such folder; give the one that `jepa {cls.VERB}` wrote {cls.FILE} to")
        if not path.is_file():
            raise UserError(f"{folder}: no {cls.FILE} here; run `jepa {cls.VERB} {folder}` first")
        try:
            return cls.model_validate_json(unsealed(path.read_bytes()))
        except ValidationError as error:
            first = error.errors(include_url=False, include_context=False)[0]
            where = "".join(f"{key}: " for key in first["loc"])
            raise UserError(
                f"{path}: {where}{first['msg']}; the file is damaged or of another version. Run the command that "
                "writes it again"
            ) from None
        except ValueError as error:
            raise UserError(f"{path}: {error}") from None

    @classmethod
    def find(cls, folders: Sequence[Path]) -> Self | None:
        """Of the first folder that has such a file; None if none has. Raises UserError as `read`."""
        return next((cls.read(folder) for folder in folders if (folder / cls.FILE).is_file()), None)
