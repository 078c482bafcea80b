"""Parts that a config chooses by `kind`: what is read, what is left out, what is told, what others add."""

import sys
from abc import ABC, abstractmethod
from importlib.metadata import EntryPoint
from typing import Annotated, Any, Literal

import pytest
import yaml
from pydantic import Field

from jepa.agents.imagination import CONTROLLERS
from jepa.config import DEFAULT, Component, Config, ConfigError, Parts, UserError, component, dump, from_dict, part
from jepa.encoders import ENCODERS
from jepa.encoders.reductions import REDUCTIONS
from jepa.masks import MASKS
from jepa.methods import METHODS
from jepa.planners import PLANNERS, SAMPLERS
from jepa.predictors import PREDICTORS
from jepa.training.schedules import SCHEDULES
from jepa_probes.imagination.rewards import REWARDS
from jepa_probes.planning.costs import TERMS
from jepa_probes.probing import PROBES

HERE = __name__


class Square:
    class Config(Component):
        kind: Literal["square"] = "square"
        side: int = Field(default=2, gt=0)
        corners: tuple[float, ...] = ()

    def __init__(self, config: Config, color: str) -> None:
        self.config, self.color = config, color


class Circle:
    class Config(Component):
        kind: Literal["circle"] = "circle"
        radius: float


PLACES = {"square": f"{HERE}:Square", "circle": f"{HERE}:Circle", "later": "jepa.no_such_module:Later"}
SHAPES = Parts("shapes", "builtins:object", **PLACES)


class Image(Config):
    shape: Annotated[Component, part(SHAPES, "square", side=5)] = DEFAULT
    others: tuple[Annotated[Component, part(SHAPES)], ...] = ()
    frame: Annotated[Component, part(SHAPES)] | None = None


def told(data: dict, *overrides: str) -> str:
    with pytest.raises(ConfigError) as caught:
        from_dict(data, Image, overrides)
    return str(caught.value)


def test_a_part_is_read_by_its_kind_and_made_from_its_settings():
    image = from_dict({"shape": {"kind": "circle", "radius": 1}, "others": [{"kind": "square"}]}, Image)
    assert image.shape == Circle.Config(radius=1.0)
    assert image.others == (Square.Config(),)
    made = SHAPES.make(image.others[0], "red")
    assert isinstance(made, Square) and made.color == "red" and made.config.side == 2


def test_what_a_config_leaves_out_of_the_default_kind_is_as_the_field_says():
    assert Image().shape == from_dict({}, Image).shape == Square.Config(side=5)
    assert from_dict({"shape": {"corners": [1, 2]}}, Image).shape == Square.Config(side=5, corners=(1.0, 2.0))
    assert from_dict({"shape": {"side": 3}}, Image).shape == Square.Config(side=3)


def test_an_override_reaches_into_a_part():
    assert from_dict({}, Image, ["shape.corners=[1]"]).shape == Square.Config(side=5, corners=(1.0,))
    assert from_dict({}, Image, ["shape={kind: circle, radius: 2}"]).shape == Circle.Config(radius=2.0)
    others = {"others": [{"kind": "square"}]}
    assert from_dict(others, Image, ["others.0.side=7"]).others == (Square.Config(side=7),)


class Frame:
    class Config(Component):
        kind: Literal["frame"] = "frame"
        side: int = 9
        inside: Annotated[Component, part(SHAPES, "square")] = DEFAULT


class Ring:
    class Config(Component):
        kind: Literal["ring"] = "ring"
        side: int = 7
        inside: Literal["empty", "full"] = "empty"


NESTED = Parts("shapes", "builtins:object", frame=f"{HERE}:Frame", ring=f"{HERE}:Ring")


class Poster(Config):
    shape: Annotated[Component, part(NESTED, "frame")] = DEFAULT


def test_another_kind_keeps_of_the_file_what_it_takes_too_and_names_the_rest(caplog: pytest.LogCaptureFixture):
    framed = {"shape": {"side": 3, "inside": {"side": 4}}}
    assert from_dict(framed, Poster, ["shape.kind=ring"]).shape == Ring.Config(side=3)
    assert "shape.kind=ring: left out of config, as they do not fit that kind: shape.inside" in caplog.text
    caplog.clear()
    shape = from_dict(framed, Poster, ["shape.inside.kind=circle", "shape.inside.radius=1"]).shape
    assert shape == Frame.Config(side=3, inside=Circle.Config(radius=1.0))
    assert caplog.text.endswith("left out of config, as they do not fit that kind: shape.inside.side\n")
    others = {"others": [{"kind": "square", "side": 3}]}
    told = from_dict(others, Image, ["others.0.kind=circle", "others.0.radius=2"])
    assert told.others == (Circle.Config(radius=2.0),)


def test_another_kind_drops_neither_misspelt_keys_nor_those_of_the_command_line(caplog: pytest.LogCaptureFixture):
    for data, overrides in (
        ({"shape": {"insdie": {}}}, ["shape.kind=ring"]),
        ({"shape": {"inside": {"side": 4}}}, ["shape.inside.side=5", "shape.kind=ring"]),
        ({"shape": {"side": 4}}, ["shape.kind=ring", "shape.inside.side=5"]),
        ({"shape": {"inside": {"side": 4}}}, ["shape.kind=rong"]),
    ):
        with pytest.raises(ConfigError, match="shape"):
            from_dict(data, Poster, overrides)
    assert not caplog.text
    from_dict({"shape": {"inside": {"side": 4}}}, Poster, ["shape.kind=frame"])
    assert not caplog.text


def test_what_is_dumped_reads_back_equal():
    image = Image(shape=Circle.Config(radius=3.0), others=(Square.Config(corners=(0.5,)),), frame=Square.Config())
    assert from_dict(yaml.safe_load(dump(image)), Image) == image
    assert image.model_dump()["shape"] == {"kind": "circle", "radius": 3.0}


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (
            {"shape": {"kind": "sqare"}},
            "config: shape.kind: unknown kind 'sqare'; did you mean 'square'? Valid kinds: circle, later, square",
        ),
        (
            {"others": [{"side": 1}]},
            "config: others.0: the key 'kind' is missing. Valid kinds: circle, later, square",
        ),
        ({"others": [{"kind": "square", "sid": 1}]}, "config: others.0.sid: unknown key; did you mean 'side'?"),
        ({"shape": {"side": 0}}, "config: shape.side: expected a number greater than 0, found 0 (a whole number)"),
        ({"shape": {"kind": "circle"}}, "config: shape: the key 'radius' is missing; expected a number"),
        ({"frame": "square"}, "config: frame: expected a mapping (name: value), found 'square' (text)"),
        ({"radius": 1}, "config: radius: unknown key; did you mean 'frame.radius'?"),
    ],
)
def test_a_mistake_in_a_part_is_reported_with_its_whole_path(data: dict, message: str):
    assert told(data) == message


def test_a_wrong_override_of_a_part_is_reported_as_of_the_command_line():
    assert told({}, "shape.sid=1") == "command line: shape.sid: unknown key; did you mean 'side'?"
    assert told({}, "shape.kind=round").startswith("command line: shape.kind: unknown kind 'round'")


def test_settings_of_another_class_under_a_known_kind_are_refused():
    class Pretender(Component):
        kind: Literal["square"] = "square"

    with pytest.raises(ValueError, match="square"):
        Image(shape=Pretender())


def test_the_json_schema_describes_every_kind():
    table = Parts("shapes", "builtins:object", square=f"{HERE}:Square", circle=f"{HERE}:Circle")

    class Drawing(Config):
        shape: Annotated[Component, part(table, "square")] = DEFAULT

    schema = Drawing.model_json_schema()
    described = [schema["$defs"][way["$ref"].rpartition("/")[2]] for way in schema["properties"]["shape"]["anyOf"]]
    assert [part["properties"]["kind"]["const"] for part in described] == ["square", "circle"]
    assert schema["properties"]["shape"]["default_kind"] == "square"


def test_a_file_is_imported_when_its_kind_is_first_named():
    assert "later" in SHAPES and len(SHAPES) == 3
    assert "jepa.no_such_module" not in sys.modules
    with pytest.raises(ModuleNotFoundError):
        SHAPES["later"]


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("square2", "no_such_package:Square", "no_such_package:Square .* cannot be imported"),
        ("square2", "json:loads", "expected a class, found function"),
        ("square2", "builtins:str", r"expected a nested `class Config\(Component\)`"),
        ("square2", f"{HERE}:Square", "expected Config.kind to be 'square2'.*found 'square'"),
    ],
)
def test_an_unusable_part_of_an_installed_package_is_named(monkeypatch, name: str, value: str, message: str):
    monkeypatch.setattr(component, "entry_points", lambda group: [EntryPoint(name, value, group)])
    with pytest.raises(UserError, match=message):
        SHAPES[name]
    with pytest.raises(UserError, match=message):
        from_dict({"shape": {"kind": name}}, Image)


def test_an_installed_package_adds_a_kind(monkeypatch):
    monkeypatch.setattr(component, "entry_points", lambda group: [EntryPoint("circle", f"{HERE}:Circle", group)])
    only_square = Parts("shapes", "builtins:object", square=f"{HERE}:Square")
    assert list(only_square) == ["square", "circle"]
    assert only_square["circle"] is Circle


def test_a_program_adds_a_part_of_its_own_once():
    table = Parts("shapes", "builtins:object", square=f"{HERE}:Square")

    class Dot:
        class Config(Component):
            kind: Literal["dot"] = "dot"

    assert table.add(Dot) is Dot and table.add(Dot) is Dot
    assert list(table) == ["square", "dot"] and table["dot"] is Dot
    with pytest.raises(UserError, match=r"shapes\.add\(Square\): there is a kind 'square' already"):
        table.add(Square)


class Round(ABC):
    """What the next table takes."""

    class Config(Component):
        radius: float

    @abstractmethod
    def area(self) -> float: ...


class Wheel(Round):
    class Config(Round.Config):
        kind: Literal["wheel"] = "wheel"

    def area(self) -> float:
        return 1.0


class Kindless(Wheel):
    class Config(Round.Config):
        kind: str = "kindless"


class Radiusless(Wheel):
    class Config(Component):
        kind: Literal["radiusless"] = "radiusless"


class Unfinished(Round):
    class Config(Round.Config):
        kind: Literal["unfinished"] = "unfinished"


@pytest.mark.parametrize(
    ("part", "message"),
    [
        (Wheel(), "expected a class, found Wheel; give the class"),
        (Circle, f"expected a class derived from {HERE}.Round, found"),
        (Wheel.Config, f"expected a class derived from {HERE}.Round, found"),
        (Kindless, r"rounds\.add\(Kindless\): its Config has no kind; write `kind: Literal"),
        (Radiusless, r"expected a nested `class Config\(Round.Config\)`"),
        (Unfinished, "the class does not define area"),
    ],
)
def test_what_is_no_part_of_the_room_is_refused_when_it_is_added(monkeypatch, part: Any, message: str):
    table = Parts("rounds", f"{HERE}:Round")
    assert table.add(Wheel) is Wheel and table["wheel"] is Wheel
    with pytest.raises(UserError, match=message):
        table.add(part)
    monkeypatch.setitem(globals(), "installed", part)
    monkeypatch.setattr(component, "entry_points", lambda group: [EntryPoint("new", f"{HERE}:installed", group)])
    with pytest.raises(UserError, match=message.removeprefix(r"rounds\.add\(Kindless\): ")):
        table["new"]


def test_every_table_takes_parts_of_its_own_room_alone():
    tables = [CONTROLLERS, ENCODERS, MASKS, METHODS, PLANNERS, PREDICTORS, PROBES, REDUCTIONS, REWARDS, SAMPLERS]
    tables += [SCHEDULES, TERMS]
    for table in tables:
        stranger = next(iter((MASKS if table is not MASKS else SCHEDULES).values()))
        with pytest.raises(UserError, match=f"expected a class derived from {table.base.replace(':', '.')}"):
            table.add(stranger)
        for kind, cls in table.items():  # those that are there would pass
            assert table._kind_of(cls, "") == kind
