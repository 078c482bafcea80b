"""What a person reads when a run description is wrong.

configs/pretrain/demo.yaml:12: optimizer.lr: expected a number, found 'fast' (text)
configs/pretrain/demo.yaml:14: encoder.dpeth: unknown key; did you mean 'depth'?
command line: method.kind: unknown kind 'vjeap'; did you mean 'vjepa'? Valid kinds: lewm, levjepa, vjepa
"""

import difflib
import types as python_types
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import fields, is_dataclass
from typing import Annotated, Any, Protocol, Union, get_args, get_origin, get_type_hints, runtime_checkable

from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails

Key = tuple[str | int, ...]


class UserError(ValueError):
    """Meant for the person at the keyboard: the command line prints it as `error: …`, without a traceback."""


@contextmanager
def errors_of(where: object) -> Iterator[None]:
    """A ValueError of what stands inside becomes a UserError of `where`; a UserError says where already."""
    try:
        yield
    except UserError:
        raise
    except ValueError as error:
        raise UserError(f"{where}: {error}") from error


def first_line(error: Exception) -> str:
    """What an error of another library says, short enough for one line; its type if it says nothing."""
    return (str(error).strip().splitlines() or [type(error).__name__])[0]


class ConfigError(UserError):
    """A run description that cannot be used; one line for each thing that is wrong."""


_EXPECTED = {
    "int_type": "a whole number",
    "int_from_float": "a whole number",
    "float_type": "a number",
    "bool_type": "true or false",
    "string_type": "text",
    "list_type": "a list",
    "tuple_type": "a list",
    "dict_type": "a mapping (name: value)",
    "dataclass_type": "a mapping (name: value)",
    "model_type": "a mapping (name: value)",
    "model_attributes_type": "a mapping (name: value)",
}
UNKNOWN = ("extra_forbidden", "unexpected_keyword_argument")  # the second in a dataclass


@runtime_checkable
class PartField(Protocol):
    """What an annotation holds where a table of parts says what may stand there (jepa.config.component)."""

    table: Any

    def config_of(self, value: Any) -> type[BaseModel] | None: ...


def explain(error: ValidationError, model: type[BaseModel], location: Callable[[Key], str], data: Any) -> str:
    """One line for each thing that is wrong with `data`; `location` says where a key was written."""
    problems: dict[Key, list[tuple[ErrorDetails, list[list[Any]]]]] = {}
    for detail in error.errors(include_url=False):
        key, trail = _locate(detail["loc"], model, data)
        problems.setdefault(key, []).append((detail, trail))
    lines = []
    for key, details in problems.items():
        detail, trail = details[0]
        if detail["type"] == "missing":
            if any(_misspelt(other, key, about) for other, about in problems.items()):
                continue  # the line about the misspelt key says it all
            above = key[:-1]
            problem = f"the key '{key[-1]}' is missing; expected {_wanted(trail[-1])}"
            lines.append(problem_line(location(above), above, problem))
        elif detail["type"] in UNKNOWN:
            lines.append(problem_line(location(key), key, f"unknown key{_suggest_name(str(key[-1]), trail[-2])}"))
        elif detail["type"] in ("union_tag_invalid", "union_tag_not_found"):
            lines.append(_unknown_kind(detail, key, trail[-1], location))
        else:
            problem = _unfit([each for each, _ in details])
            if detail["input"] == "none" and is_optional(trail[-2], key[-1]):
                problem += "; write null for none"
            lines.append(problem_line(location(key), key, problem))
    return "\n".join(lines)


def _locate(location: tuple[int | str, ...], model: type[BaseModel], value: Any) -> tuple[Key, list[list[Any]]]:
    """The key a person wrote, and the types that fit at each of its levels.

    Pydantic's locations also name the members of unions, which nobody wrote: `optimizer, adam, lr`.
    """
    key: Key = ()
    trail: list[list[Any]] = [[model]]
    for part in location:
        if len(trail[-1]) > 1 and isinstance(part, str):
            trail[-1] = [t for t in trail[-1] if part in (*kinds(t), getattr(t, "__name__", ""))] or trail[-1]
        else:
            key, value = (*key, part), _below(value, part)
            trail.append(_chosen(child_types(trail[-1], part), value))
    return key, trail


def _below(value: Any, part: str | int) -> Any:
    """What `value` holds at `part`; an empty mapping where it holds nothing there: a default stands there."""
    if isinstance(value, dict):
        return value.get(part, {})
    if isinstance(value, list) and isinstance(part, int) and part < len(value):
        return value[part]
    return {}


def _chosen(types: list[Any], value: Any) -> list[Any]:
    """`types` with the settings of the part that `value` chooses in place of a table of parts."""
    return [(each.config_of(value) or each) if isinstance(each, PartField) else each for each in types]


def child_types(types: Iterable[Any], part: str | int) -> list[Any]:
    """What may stand at `part` (a field name or a list index) of a value of one of `types`."""
    children: list[Any] = []
    for each in types:
        args = get_args(each)
        if is_config(each):
            if part in each.model_fields:
                field = each.model_fields[str(part)]
                tables = [data for data in field.metadata if isinstance(data, PartField)]
                children += tables or _members(field.annotation)
        elif is_dataclass(each):
            annotation = get_type_hints(each, include_extras=True).get(str(part))
            children += _members(annotation)
        elif isinstance(part, int) and args:
            items = [each for each in args if each is not Ellipsis]
            children += _members(items[min(part, len(items) - 1)])
        elif get_origin(each) is dict and args:
            children += _members(args[1])
    return children


def of_kind(types: list[Any], value: Any) -> list[Any]:
    """Those of `types` that the `kind:` in `value` chooses; all of them if it chooses none."""
    kind = value.get("kind") if isinstance(value, dict) else None
    types = _chosen(types, value)
    return [each for each in types if kind in kinds(each)] or types


def kinds(config: Any) -> tuple[Any, ...]:
    """What `kind:` may say for a config class or a table of parts; nothing for other types."""
    if isinstance(config, PartField):
        return tuple(config.table)
    if is_config(config) and "kind" in config.model_fields:
        return get_args(config.model_fields["kind"].annotation)
    return ()


def _members(annotation: Any) -> list[Any]:
    """The members of a union, without None."""
    origin = get_origin(annotation)
    if origin is Annotated:
        inner, *metadata = get_args(annotation)
        return [data for data in metadata if isinstance(data, PartField)] or _members(inner)
    if origin in (Union, python_types.UnionType):
        return [member for each in get_args(annotation) for member in _members(each)]
    return [] if annotation is type(None) else [annotation]


def _fields(annotation: Any) -> list[str]:
    """Names of the fields of a config or a dataclass; other types have none."""
    if is_config(annotation):
        return list(annotation.model_fields)
    return [field.name for field in fields(annotation)] if is_dataclass(annotation) else []


def is_optional(types: Iterable[Any], part: str | int, choice: Any = None) -> bool:
    """Whether null may stand at `part` of a value of one of `types`, and `choice` is not one of its choices."""
    fields = [each.model_fields[part] for each in types if is_config(each) and part in each.model_fields]
    members = [member for field in fields for member in get_args(field.annotation)]
    return type(None) in members and all(choice not in get_args(member) for member in members)


def is_config(annotation: Any) -> bool:
    return isinstance(annotation, type) and issubclass(annotation, BaseModel)


# ---- wording ---------------------------------------------------------------------------------------------------------


def dotted(key: Key) -> str:
    return ".".join(map(str, key))


def problem_line(where: str, key: Key, problem: str) -> str:
    """`run.yaml:12: optimizer.lr: problem`; no key where the whole config is meant."""
    return ": ".join(filter(None, (where, dotted(key), problem)))


def did_you_mean(name: str, valid: Iterable[str], cutoff: float = 0.6) -> str:
    """`; did you mean 'x'?`, or nothing where no valid name is as near as `cutoff`, from 0 to 1."""
    near = difflib.get_close_matches(name, list(valid), n=1, cutoff=cutoff)
    return f"; did you mean '{near[0]}'?" if near else ""


def describe(value: Any) -> str:
    """A value of a config as a person would name it."""
    match value:
        case None:
            return "nothing"
        case bool():
            return str(value).lower()
        case int():
            return f"{value} (a whole number)"
        case float():
            return f"{value} (a number)"
        case str():
            return f"'{value if len(value) <= 60 else value[:57] + '...'}' (text)"
        case list() | tuple():
            return f"a list of {len(value)}"
        case _:
            return "a mapping"


def _suggest_name(name: str, section: list[Any]) -> str:
    valid = sorted({field for each in section for field in _fields(each)})
    below = [field for field in valid if any(_has(child, name) for child in child_types(section, field))]
    if below and name != "kind":  # which many parts have
        return f"; did you mean '{below[0]}.{name}'?"
    return did_you_mean(name, valid) or f"; valid here: {', '.join(valid)}"


def _has(annotation: Any, name: str) -> bool:
    if isinstance(annotation, PartField):
        return any(name in config.model_fields for config in annotation.table.loaded())
    return name in _fields(annotation)


def _misspelt(key: Key, missing: Key, details: list[tuple[ErrorDetails, list[list[Any]]]]) -> bool:
    """Whether `key` is an unknown name beside `missing` that was probably meant to be it."""
    unknown = details[0][0]["type"] in UNKNOWN and key[:-1] == missing[:-1]
    return unknown and _suggest_name(str(key[-1]), details[0][1][-2]) == f"; did you mean '{missing[-1]}'?"


def _unknown_kind(detail: ErrorDetails, key: Key, types: list[Any], location: Callable[[Key], str]) -> str:
    valid = sorted(str(kind) for each in types for kind in kinds(each))
    listed = f"Valid kinds: {', '.join(valid)}"
    if detail["type"] == "union_tag_not_found":
        return problem_line(location(key), key, f"the key 'kind' is missing. {listed}")
    kind = str(detail.get("ctx", {})["tag"])
    near = did_you_mean(kind, valid) or "."
    key = (*key, "kind")
    return problem_line(location(key), key, f"unknown kind '{kind}'{near} {listed}")


def _unfit(details: list[ErrorDetails]) -> str:
    """`expected X or Y, found Z` for a value that none of the allowed types takes."""
    first = details[0]
    if first["type"] == "value_error":
        return str(first.get("ctx", {})["error"])
    expected = list(dict.fromkeys(map(_expected, details)))
    if None in expected:
        return f"{first['msg'][0].lower()}{first['msg'][1:]}"
    near = ""
    if first["type"] == "literal_error" and isinstance(first["input"], str):
        near = did_you_mean(first["input"], first.get("ctx", {})["expected"].split("'")[1::2])
    return f"expected {' or '.join(filter(None, expected))}, found {describe(first['input'])}{near}"


def _expected(detail: ErrorDetails) -> str | None:
    """What should have stood there, in words; None where pydantic's own sentence says it better."""
    if detail["type"] in _EXPECTED:
        return _EXPECTED[detail["type"]]
    message = detail["msg"].removeprefix("Input should be ")
    if message == detail["msg"]:
        return None
    if message.startswith(("greater", "less")):
        return f"a number {message}"
    return f"one of {message}" if detail["type"] == "literal_error" and "," in message else message


def _wanted(types: list[Any]) -> str:
    """What a missing key should hold."""
    names = {
        int: "a whole number",
        float: "a number",
        bool: "true or false",
        str: "text",
        list: "a list",
        tuple: "a list",
    }
    wanted = []
    for each in types:
        if get_origin(each) in (None, list, tuple):
            wanted.append(names.get(get_origin(each) or each, "a mapping (name: value)"))
        else:
            wanted += [repr(choice) for choice in get_args(each)]
    return " or ".join(dict.fromkeys(wanted))
