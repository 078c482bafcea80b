"""YAML text to plain values, with the file and line of every key."""

import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn

import yaml

from jepa.config.errors import ConfigError, Key, did_you_mean, problem_line

MAX_VALUES = 100_000  # of a file; each is a line or less


@dataclass
class Tree:
    """Plain values, and where they were written: the place of a key that is not listed is that of its section."""

    data: Any
    places: dict[Key, str]

    def location(self, key: Key) -> str:
        while key not in self.places:
            key = key[:-1]
        return self.places[key]


_NUMBERS = {
    "tag:yaml.org,2002:int": (r"[-+]?(?:0|[1-9][0-9_]*)|0x[0-9a-fA-F]+", "-+0123456789"),
    "tag:yaml.org,2002:float": (
        r"[-+]?(?:[0-9]+\.[0-9]*|\.[0-9]+)(?:[eE][-+]?[0-9]+)?|[-+]?[0-9]+[eE][-+]?[0-9]+|[-+]?\.inf|\.nan",
        "-+.0123456789",
    ),
}
_WORDS = {
    "tag:yaml.org,2002:bool": (r"true|True|TRUE|false|False|FALSE", "tTfF"),
    "tag:yaml.org,2002:null": (r"|~|null|Null|NULL", ["", "~", "n", "N"]),
}


class _Loader(yaml.SafeLoader):
    yaml_implicit_resolvers: dict[str, Any] = {}  # noqa: RUF012  PyYAML keeps its table on the class


class Dumper(yaml.SafeDumper):
    """Quotes every text that either YAML 1.1 or `_Loader` would read as something else."""


for _tag, (_pattern, _first) in {**_NUMBERS, **_WORDS}.items():
    _Loader.add_implicit_resolver(_tag, re.compile(f"^(?:{_pattern})$"), list(_first))
for _tag, (_pattern, _first) in _NUMBERS.items():
    Dumper.add_implicit_resolver(_tag, re.compile(f"^(?:{_pattern})$"), list(_first))


def read(path: str | Path) -> str:
    path = Path(path)
    try:
        return path.read_text(encoding="utf-8")
    except FileNotFoundError:
        files = [str(path.with_name(other.name)) for other in sorted(path.parent.glob("*.y*ml"))]
        raise ConfigError(f"{path}: no such file{did_you_mean(str(path), files)}") from None
    except UnicodeDecodeError:
        raise ConfigError(f"{path}: expected a YAML file, found bytes that are not UTF-8 text") from None
    except OSError as error:
        raise ConfigError(f"{path}: cannot be read: {error.strerror}") from None


def parse(text: str, location: Callable[[int], str]) -> Tree:
    """Values and places of one YAML document; `location` names a line, counted from 1."""
    tree = Tree(None, {(): location(1)})
    try:
        loader = _Loader(text)
        root = loader.get_single_node()
        if root is not None:
            tree.data = _values(loader, root, (), tree.places, location, ())
    except RecursionError:
        raise ConfigError(f"{location(1)}: nested too deeply; expected a few levels of settings") from None
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        raise ConfigError(f"{location(mark.line + 1 if mark else 1)}: not valid YAML: {error.problem}") from None
    except yaml.reader.ReaderError as error:
        line = text.count("\n", 0, error.position) + 1
        raise ConfigError(f"{location(line)}: not valid YAML: a control character (#x{error.character:02x})") from None
    return tree


def _values(
    loader: _Loader, node: yaml.Node, key: Key, places: dict[Key, str], location: Callable[[int], str], above: tuple
) -> Any:
    """The plain value of a node; notes in `places` where each key below it is written."""

    def refuse(node: yaml.Node, problem: str) -> NoReturn:
        raise ConfigError(problem_line(location(node.start_mark.line + 1), key, problem))

    if node in above:
        refuse(node, "this part contains itself")
    if len(places) > MAX_VALUES:
        refuse(node, f"more than {MAX_VALUES} values, with those that aliases (*name) repeat")
    if isinstance(node, yaml.ScalarNode):
        try:
            return loader.construct_object(node)
        except ValueError:
            refuse(node, f"{node.value!r} is not a {node.tag.rpartition(':')[2]}")
    if node.tag not in (yaml.resolver.Resolver.DEFAULT_MAPPING_TAG, yaml.resolver.Resolver.DEFAULT_SEQUENCE_TAG):
        refuse(node, f"the YAML tag {node.tag} is not supported")
    above = (*above, node)
    if isinstance(node, yaml.SequenceNode):
        for i, item in enumerate(node.value):
            places[(*key, i)] = location(item.start_mark.line + 1)
        return [_values(loader, item, (*key, i), places, location, above) for i, item in enumerate(node.value)]
    data: dict[str, Any] = {}
    assert isinstance(node, yaml.MappingNode)
    for name, item in node.value:
        if not isinstance(name, yaml.ScalarNode):
            refuse(name, "expected a name before the colon, found a list or a mapping")
        if name.value in data:
            _, numbered, line = places[(*key, name.value)].rpartition(":")
            first = f" (first in line {line})" if numbered else ""
            refuse(name, f"the key '{name.value}' is given twice{first}; remove one")
        places[(*key, name.value)] = location(name.start_mark.line + 1)
        data[name.value] = _values(loader, item, (*key, name.value), places, location, above)
    return data
