"""Parts that a config chooses by `kind`: each is one class in one file, and one line in the table of its room.

    class Tube(Mask):                                        # jepa/masks/tube.py
        class Config(Component):
            kind: Literal["tube"] = "tube"
            ratio: Share = 0.9

        def __init__(self, config: Config) -> None: ...

    MASKS = Parts("masks", "jepa.masks.base:Mask", tube="jepa.masks.tube:Tube")    # jepa/masks/__init__.py

    mask: Annotated[Component, part(MASKS)]                  # in a config
    mask: Annotated[Component, part(MASKS, "tube", ratio=0.5)] = DEFAULT

A file is imported when a config first names its kind. A config cannot name a module: other people's parts come from
entry points of installed packages, in the group `openjepa.<room>`, such as `openjepa.masks`; or a program hands them
over, `MASKS.add(MyMask)`.
"""

import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from importlib import import_module
from importlib.metadata import EntryPoint, entry_points
from typing import Any, Literal, TypeVar, get_args, get_origin

from pydantic import Field, GetCoreSchemaHandler, GetJsonSchemaHandler, ValidationInfo
from pydantic.json_schema import JsonSchemaValue
from pydantic_core import CoreSchema, PydanticKnownError, core_schema, to_json

from jepa.config.errors import UserError
from jepa.config.loading import Config

AnyClass = TypeVar("AnyClass")
DEFAULT: Any = Field(default={}, validate_default=True)  # of a field: the part that its `part(...)` names


class Component(Config):
    """Settings of a part; `kind` is its name in the table: `kind: Literal["tube"] = "tube"`."""

    kind: str


class Parts(Mapping[str, Any]):  # not `type`: checks of types at run time would load a part to look at it
    """Kinds of parts and their classes. Listing the kinds imports nothing.

    Args:
        room: what they are, in the plural, such as "masks".
        base: "module:Class" that other people's parts derive from; a `Config` of that class, their `Config`.
        places: "module:Class" of each kind.
    """

    def __init__(self, room: str, base: str, /, **places: str) -> None:
        self.room, self.base = room, base
        self.places = places
        self._added: dict[str, Any] = {}

    def add(self, cls: AnyClass) -> AnyClass:
        """Make a class of your own a part, in this process; returns it, so it can stand as a decorator.

        Raises:
            UserError: it is no class of such a part, it has no `Config` with a kind, or its kind is taken.
        """
        where = f"{self.room}.add({getattr(cls, '__name__', cls)})"
        kind = self._kind_of(cls, where)
        if kind in self and self._added.get(kind) is not cls:
            raise UserError(f"{where}: there is a kind '{kind}' already; choose another")
        self._added[kind] = cls
        return cls

    def __getitem__(self, kind: str) -> type:
        """The class. Raises KeyError for an unknown kind, UserError if an installed package's part is unusable."""
        if (target := self.places.get(kind)) is not None:
            return _class_at(target)
        if kind in self._added:
            return self._added[kind]
        for point in self._installed():
            if point.name == kind:
                return self._loaded(point)
        raise KeyError(kind)

    def __iter__(self) -> Iterator[str]:
        return iter(dict.fromkeys((*self.places, *self._added, *(point.name for point in self._installed()))))

    def __len__(self) -> int:
        return len(list(iter(self)))

    def __contains__(self, kind: object) -> bool:
        return kind in self.places or kind in self._added or any(point.name == kind for point in self._installed())

    def __eq__(self, other: object) -> bool:
        return self is other

    def __hash__(self) -> int:
        return id(self)

    def config(self, kind: str) -> type[Component]:
        """The class of a kind's settings."""
        return self[kind].Config  # pyright: ignore[reportAttributeAccessIssue] - every part has one

    def loaded(self) -> list[type[Component]]:
        """The settings of those kinds whose files were imported already."""
        return [self.config(kind) for kind, target in self.places.items() if target.partition(":")[0] in sys.modules]

    def make(self, config: Component, *arguments: Any, **named: Any) -> Any:
        """The part that `config` describes. Raises what its class raises."""
        return self[config.kind](config, *arguments, **named)

    def _installed(self) -> list[EntryPoint]:
        return list(entry_points(group=f"openjepa.{self.room}"))

    def _loaded(self, point: EntryPoint) -> type:
        where = f"{point.value} (entry point '{point.name}' of openjepa.{self.room})"
        try:
            cls = point.load()
        except (ImportError, AttributeError) as error:
            raise UserError(f"{where} cannot be imported: {error}") from error
        if (kind := self._kind_of(cls, where)) != point.name:
            raise UserError(
                f"{where}: expected Config.kind to be '{point.name}', as the entry point says, found {kind!r}"
            )
        return cls

    def _kind_of(self, cls: Any, where: str) -> str:
        """The kind of somebody else's part. Raises UserError if it is none of this room."""
        base = _class_at(self.base)
        wanted = getattr(base, "Config", Component)
        config = getattr(cls, "Config", None)
        if not isinstance(cls, type):
            raise UserError(f"{where}: expected a class, found {type(cls).__name__}; give the class, not what it makes")
        if not issubclass(cls, base):
            raise UserError(f"{where}: expected a class derived from {self.base.replace(':', '.')}, found {cls!r}")
        if missing := sorted(getattr(cls, "__abstractmethods__", ())):
            raise UserError(f"{where}: the class does not define {', '.join(missing)}; see {base.__name__}")
        if not (isinstance(config, type) and issubclass(config, wanted)):
            raise UserError(f"{where}: expected a nested `class Config({wanted.__qualname__})`, found {config!r}")
        kind = config.model_fields["kind"]
        if get_origin(kind.annotation) is not Literal or kind.default not in get_args(kind.annotation):
            raise UserError(f'{where}: its Config has no kind; write `kind: Literal["name"] = "name"` in it')
        return kind.default


def _class_at(address: str) -> type:
    module, _, name = address.partition(":")
    return getattr(import_module(module), name)


@dataclass(frozen=True, eq=False)
class Part:
    """What `part(...)` puts into an annotation: reads settings by the table; pydantic asks it for a schema."""

    table: Parts
    kind: str | None = None
    settings: dict[str, Any] = field(default_factory=dict)

    def config_of(self, value: Any) -> type[Component] | None:
        """The class of the settings in `value`; None if it chooses no known kind."""
        kind = value.get("kind", self.kind) if isinstance(value, Mapping) else None
        return self.table.config(kind) if isinstance(kind, str) and kind in self.table else None

    def __get_pydantic_core_schema__(self, source: Any, handler: GetCoreSchemaHandler) -> CoreSchema:
        return core_schema.with_info_plain_validator_function(self._read)

    def __get_pydantic_json_schema__(self, schema: CoreSchema, handler: GetJsonSchemaHandler) -> JsonSchemaValue:
        """One of the parts of the table; `default_kind` is what it is where a config leaves `kind` out."""
        kinds = core_schema.union_schema([self.table.config(kind).__pydantic_core_schema__ for kind in self.table])
        return handler(kinds) | ({"default_kind": self.kind} if self.kind else {})

    def _read(self, value: Any, info: ValidationInfo) -> Component:
        given = {"kind": value.kind} if isinstance(value, Component) else value
        if not isinstance(given, Mapping):
            raise PydanticKnownError("model_type", {"class_name": self.table.room})
        if (kind := given.get("kind", self.kind)) is None:
            raise PydanticKnownError("union_tag_not_found", {"discriminator": "'kind'"})
        config = self.config_of(given)
        if config is None or (isinstance(value, Component) and not isinstance(value, config)):
            valid = ", ".join(self.table)
            raise PydanticKnownError(
                "union_tag_invalid", {"discriminator": "'kind'", "tag": str(kind), "expected_tags": valid}
            )
        if isinstance(value, config):
            return value
        values = {**given, "kind": kind}
        if kind == self.kind:
            values = self.settings | values
        if info.mode == "json":  # where lists do for tuples
            return config.model_validate_json(to_json(values, inf_nan_mode="constants"))
        return config.model_validate(values)


def part(table: Parts, kind: str | None = None, **settings: Any) -> Part:
    """For `Annotated[Component, part(...)]`: a part of `table`.

    Args:
        kind: what it is where a config leaves `kind` out; None: it must say.
        settings: of that kind, where a config leaves them out, in place of the part's own defaults.
    """
    return Part(table, kind, settings)
