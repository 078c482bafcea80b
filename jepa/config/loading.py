"""From values to a typed config: dotted overrides, then pydantic."""

import hashlib
import logging
import os
import re
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, TypeVar

import yaml
from pydantic import BaseModel, ConfigDict, ValidationError
from pydantic_core import to_json, to_jsonable_python

from jepa.config import errors
from jepa.config.errors import ConfigError, Key, describe, dotted
from jepa.config.source import Dumper, Tree, parse, read

COMMAND_LINE = "command line"
SEAL = "content_sha256"  # the key, or the comment, of a checksum of the rest of a file
CHECKSUM = f"# {SEAL}: "  # of all lines below
logger = logging.getLogger(__name__)


class Config(BaseModel):
    """Base of every part of a run description. Where several parts fit, each has `kind: Literal["its-name"]`."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True, ser_json_inf_nan="constants")


AnyConfig = TypeVar("AnyConfig", bound=Config)


# `__pydantic_config__` of a dataclass in a config: it is checked as a config is, also where it is given as an object.
CHECKED = ConfigDict(
    extra="forbid", strict=True, frozen=True, ser_json_inf_nan="constants", revalidate_instances="always"
)


def load(path: str | Path, model: type[AnyConfig], overrides: Sequence[str] = ()) -> AnyConfig:
    """Read the YAML file `path` as a `model`, with `overrides` such as `optimizer.lr=1e-3` or `probes.0.kind=knn`.

    A file that `dump` wrote and that has changed since is read, with a warning.

    Raises:
        ConfigError: one line for each thing that is wrong: file:line, dotted key, expected, found, nearest valid name.
    """
    text = read(path)
    config = _validate(parse(text, lambda line: f"{path}:{line}"), model, overrides)
    if _has_changed(text):
        logger.warning(f"{path}: changed since it was written, by its {SEAL}; if by you, remove that line")
    return config


def from_dict(
    data: dict[str, Any], model: type[AnyConfig], overrides: Sequence[str] = (), source: str = "config"
) -> AnyConfig:
    """The same for plain values that are already in memory; errors name `source` in place of file and line."""
    return _validate(Tree(to_jsonable_python(data), {(): source}), model, overrides)


def dump(config: Config, *, without: Iterable[str] = ()) -> str:
    """`config` with all its defaults as YAML that `load` reads back to an equal object, after a checksum of this text.

    Args:
        without: keys that are left out.
    """
    content = config.model_dump(mode="json", exclude=set(without))
    text = yaml.dump(content, Dumper=Dumper, sort_keys=False, allow_unicode=True)
    return f"{CHECKSUM}{_sha256(text)}\n{text}"


def _has_changed(text: str) -> bool:
    """Whether what follows a checksum is not what `dump` wrote after it."""
    _, mark, rest = text.partition(CHECKSUM)
    checksum, _, content = rest.partition("\n")
    return bool(mark) and checksum.strip() != _sha256(content)


def _sha256(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()


def _validate(tree: Tree, model: type[AnyConfig], overrides: Sequence[str]) -> AnyConfig:
    if not isinstance(tree.data, dict):
        raise ConfigError(f"{tree.location(())}: expected a mapping (name: value), found {describe(tree.data)}")
    for override in overrides:
        _override(tree, override, model)
    data = expand_home(tree.data)
    try:
        # JSON is where pydantic's strictness fits YAML: whole numbers do for numbers, and lists for tuples.
        return model.model_validate_json(to_json(data, inf_nan_mode="constants"))
    except ValidationError as error:
        raise ConfigError(errors.explain(error, model, tree.location, data)) from None


def expand_home(value: Any) -> Any:
    """`~/…` as a path below the home folder, wherever it stands: no other text of a config begins like this.

    The shell expands it in none of `run=~/x`, `--out=~/x` and YAML files.
    """
    if isinstance(value, dict):
        return {key: expand_home(item) for key, item in value.items()}
    if isinstance(value, list):
        return [expand_home(item) for item in value]
    if isinstance(value, str) and value.startswith("~/"):
        return os.path.expanduser(value)
    return value


def _override(tree: Tree, text: str, model: type[Config]) -> None:
    """Apply one `dotted.key=value`. What the file leaves out keeps its default around the changed value.

    `none` stands for null where a key may be left open, as the descriptions say it. Another `kind` keeps of the file
    what it takes too, see `_change_kind`.
    """
    name, equals, value = text.partition("=")
    if not equals or not re.fullmatch(r"\w[\w-]*(\.\w[\w-]*)*", name):
        raise ConfigError(f"{COMMAND_LINE}: expected KEY=VALUE such as optimizer.lr=1e-3, found '{text}'")
    new = parse(value, lambda _: COMMAND_LINE)
    key: Key = ()
    section = tree.data
    types: list[Any] = [model]
    choices = types
    *above, last = name.split(".")
    for number, part in enumerate(above):
        at = _position(section, key, part)
        if isinstance(section, dict) and section.get(part) is None:
            section[part] = {} if name.split(".")[number + 1 :] == ["kind"] else _default(types, part)
            tree.places[(*key, part)] = COMMAND_LINE
        key, section = (*key, at), section[at]
        choices = errors.child_types(types, at)
        types = errors.of_kind(choices, section)
    at = _position(section, key, last)
    if last == "kind" and isinstance(section, dict):
        _change_kind(tree, key, section, choices, new.data)
    section[at] = None if new.data == "none" and errors.is_optional(types, at, "none") else new.data
    key = (*key, at)
    tree.places = {k: location for k, location in tree.places.items() if k[: len(key)] != key}
    tree.places.update({key + below: location for below, location in new.places.items()})


def _change_kind(tree: Tree, key: Key, section: dict[str, Any], choices: list[Any], kind: Any) -> None:
    """Drop from `section` what the file says for its kind and the new kind does not take; a warning names it.

    What the command line says stays, and is an error if it does not fit.
    """
    before, after = errors.of_kind(choices, section), errors.of_kind(choices, {"kind": kind})
    if before == after or not all(map(errors.is_config, (*before, *after))):
        return  # nothing changes, or one of them is unknown, which is reported later
    try:
        after[0].model_validate_json(to_json({**section, "kind": kind}, inf_nan_mode="constants"))
    except ValidationError as error:
        unfit = {detail["loc"][0] for detail in error.errors() if detail["loc"]} & set(before[0].model_fields)
        given = {k[len(key)] for k, where in tree.places.items() if k[: len(key)] == key != k and where == COMMAND_LINE}
        dropped = [name for name in section if name in unfit - given - {"kind"}]
        for name in dropped:
            del section[name]
        if dropped:
            logger.warning(
                f"{dotted((*key, 'kind'))}={kind}: left out of {tree.location(()).partition(':')[0]}, as they do not "
                f"fit that kind: {', '.join(dotted((*key, name)) for name in dropped)}"
            )


def _position(section: Any, key: Key, part: str) -> str | int:
    """`part` as an index into a list or a name in a mapping."""
    if isinstance(section, dict):
        return part
    if not isinstance(section, list):
        raise ConfigError(
            f"{COMMAND_LINE}: {dotted((*key, part))}: expected a mapping at '{dotted(key)}', found {describe(section)}"
        )
    if not part.isdecimal() or int(part) >= len(section):
        raise ConfigError(
            f"{COMMAND_LINE}: {dotted((*key, part))}: '{dotted(key)}' has {len(section)} items, counted from 0;"
            f" there is no item '{part}'"
        )
    return int(part)


def _default(types: list[Any], part: str) -> Any:
    """The default value of a field as plain values; an empty mapping where it has none."""
    fields = [config.model_fields[part] for config in types if errors.is_config(config) and part in config.model_fields]
    for field in fields:
        if not field.is_required():
            default = to_jsonable_python(field.get_default(call_default_factory=True))
            return {} if default is None else default
    return {}
