"""Configs: what is read, what overrides change, and what a person reads when something is wrong."""

import math
from pathlib import Path
from typing import Annotated, Literal

import pytest
from pydantic import Field, ValidationError

from jepa.config import Config, ConfigError, UserError, dump, from_dict, load


class SGD(Config):
    kind: Literal["sgd"] = "sgd"
    lr: float = Field(gt=0)
    momentum: float = 0.9


class Adam(Config):
    kind: Literal["adam"] = "adam"
    lr: float = Field(default=1e-3, gt=0)
    betas: tuple[float, float] = (0.9, 0.999)


class Linear(Config):
    kind: Literal["linear"] = "linear"
    epochs: int = 10


class Knn(Config):
    kind: Literal["knn"] = "knn"
    k: int = 20


Optimizer = SGD | Adam
Probe = Annotated[Linear | Knn, Field(discriminator="kind")]


class Encoder(Config):
    width: int = 64
    depth: int = 2
    positions: Literal["rope", "none"] = "rope"


class Run(Config):
    name: str
    steps: int = Field(gt=0)
    optimizer: Optimizer = Field(default=Adam(lr=5e-4), discriminator="kind")
    encoder: Encoder = Encoder(width=96)
    probes: tuple[Probe, ...] = ()
    precision: Literal["auto"] | int = "auto"
    fps: float | None = None
    resume: bool = False
    clip: float = math.inf


GOOD = """\
name: demo
steps: 100
optimizer:
  kind: sgd
  lr: 1e-3
encoder:
  width: 32
probes:
  - kind: linear
  - kind: knn
    k: 5
"""


@pytest.fixture
def write(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(tmp_path)

    def write(text: str, name: str = "run.yaml") -> str:
        Path(name).write_text(text)
        return name

    return write


def message(*arguments) -> str:
    with pytest.raises(ConfigError) as caught:
        load(*arguments)
    return str(caught.value)


# ---- what is read


def test_a_whole_file_becomes_typed_objects(write) -> None:
    run = load(write(GOOD), Run)
    assert run == Run(
        name="demo", steps=100, optimizer=SGD(lr=1e-3), encoder=Encoder(width=32), probes=(Linear(), Knn(k=5))
    )


@pytest.mark.parametrize(
    ("written", "value"),
    [("1e-3", 1e-3), ("1E+2", 100.0), ("+.5e1", 5.0), ("2", 2.0), ("3.", 3.0), (".inf", math.inf), ("1_000", 1000.0)],
)
def test_numbers_may_be_written_as_people_write_them(write, written: str, value: float) -> None:
    assert load(write(f"name: a\nsteps: 1\nclip: {written}\n"), Run).clip == value


@pytest.mark.parametrize("name", ["yes", "off", "2024-01-01", "12:30", "1e-3x", "0o7", "é"])
def test_plain_words_stay_text(write, name: str) -> None:
    assert load(write(f"name: {name}\nsteps: 1\n"), Run).name == name


def test_anchors_are_read(write) -> None:
    run = load(write("name: &n demo\nsteps: 1\nprobes: [&p {kind: knn, k: 3}, *p]\n"), Run)
    assert run.probes == (Knn(k=3), Knn(k=3))


@pytest.mark.parametrize("name", ["yes", "1e-3", "12", "null", "a: b", "# x", "", "12:30", "é", "two\nlines", "0x10"])
def test_what_is_dumped_reads_back_equal(write, name: str) -> None:
    run = Run(name=name, steps=3, optimizer=SGD(lr=1e-5), probes=(Knn(),), fps=12.0)
    assert load(write(dump(run)), Run) == run


def test_a_dumped_file_that_has_changed_is_read_with_a_warning(write, caplog: pytest.LogCaptureFixture) -> None:
    text = dump(Run(name="a", steps=30))
    assert load(write(text), Run).steps == 30
    assert load(write("# what a person wrote above\n" + text), Run).steps == 30
    assert load(write(text.partition("\n")[2].replace("30", "31")), Run).steps == 31, "a file of no checksum"
    assert not caplog.messages
    path = write(text.replace("30", "31"))
    assert load(path, Run).steps == 31
    assert caplog.messages == [
        f"{path}: changed since it was written, by its content_sha256; if by you, remove that line"
    ]
    caplog.clear()
    assert load(write(text[: text.index("optimizer")]), Run).steps == 30
    assert len(caplog.messages) == 1, "a file that was cut between two keys"


def test_plain_values_in_memory_are_not_changed_by_overrides() -> None:
    data = {"name": "a", "steps": 1, "encoder": {"width": 8}}
    assert from_dict(data, Run, ["encoder.width=16"]).encoder.width == 16
    assert data == {"name": "a", "steps": 1, "encoder": {"width": 8}}


def test_a_config_cannot_be_changed() -> None:
    with pytest.raises(ValidationError):
        Encoder().width = 3


# ---- overrides


@pytest.mark.parametrize(
    ("override", "read"),
    [
        ("optimizer.lr=1e-2", lambda run: run.optimizer == SGD(lr=1e-2)),
        ("optimizer={kind: adam, lr: 2}", lambda run: run.optimizer == Adam(lr=2.0)),
        ("probes.1.k=7", lambda run: run.probes == (Linear(), Knn(k=7))),
        ("probes.0.kind=knn", lambda run: run.probes == (Knn(), Knn(k=5))),
        ("probes=[]", lambda run: run.probes == ()),
        ("fps=12", lambda run: run.fps == 12.0),
        ("fps=null", lambda run: run.fps is None),
        ("fps=", lambda run: run.fps is None),
        ("fps=none", lambda run: run.fps is None),
        ("encoder.positions=none", lambda run: run.encoder.positions == "none"),
        ("name=none", lambda run: run.name == "none"),
        ("resume=true", lambda run: run.resume is True),
        ("precision=16", lambda run: run.precision == 16),
        ("name=a=b", lambda run: run.name == "a=b"),
    ],
)
def test_an_override_changes_one_value(write, override: str, read) -> None:
    assert read(load(write(GOOD), Run, [override]))


def test_the_last_override_wins(write) -> None:
    assert load(write(GOOD), Run, ["steps=2", "steps=3"]).steps == 3


def test_an_override_keeps_the_defaults_around_it(write) -> None:
    path = write("name: a\nsteps: 1\n")
    assert load(path, Run, ["optimizer.betas=[0, 0.5]"]).optimizer == Adam(lr=5e-4, betas=(0.0, 0.5))
    assert load(path, Run, ["encoder.depth=4"]).encoder == Encoder(width=96, depth=4)


@pytest.mark.parametrize(
    ("override", "told"),
    [
        ("optimizer.lrr=1", "optimizer.lrr: unknown key; did you mean 'lr'?"),
        ("optimiser.lr=1", "optimiser: unknown key; did you mean 'optimizer'?"),
        ("lr=1", "lr: unknown key; did you mean 'optimizer.lr'?"),
        ("steps=few", "steps: expected a whole number, found 'few' (text)"),
        ("steps=none", "steps: expected a whole number, found 'none' (text)"),
        ("steps=1.5", "steps: expected a whole number, found 1.5 (a number)"),
        ("optimizer.kind=adma", "optimizer.kind: unknown kind 'adma'; did you mean 'adam'? Valid kinds: adam, sgd"),
        ("probes.2.k=1", "probes.2: 'probes' has 2 items, counted from 0; there is no item '2'"),
        ("probes.first.k=1", "probes.first: 'probes' has 2 items, counted from 0; there is no item 'first'"),
        ("steps.x=1", "steps.x: expected a mapping at 'steps', found 100 (a whole number)"),
        ("steps", "expected KEY=VALUE such as optimizer.lr=1e-3, found 'steps'"),
        ("--steps=1", "expected KEY=VALUE such as optimizer.lr=1e-3, found '--steps=1'"),
        ("probes=[1", "not valid YAML: expected ',' or ']', but got '<stream end>'"),
        ("encoder={width: 1, width: 2}", "the key 'width' is given twice; remove one"),
    ],
)
def test_a_wrong_override_is_reported_as_of_the_command_line(write, override: str, told: str) -> None:
    assert message(write(GOOD), Run, [override]) == f"command line: {told}"


# ---- errors


@pytest.mark.parametrize(
    ("old", "new", "told"),
    [
        ("steps: 100", "steps: 1e2", "run.yaml:2: steps: expected a whole number, found 100.0 (a number)"),
        ("steps: 100", "steps: '100'", "run.yaml:2: steps: expected a whole number, found '100' (text)"),
        ("steps: 100", "steps: 0100", "run.yaml:2: steps: expected a whole number, found '0100' (text)"),
        ("steps: 100", "steps: 0", "run.yaml:2: steps: expected a number greater than 0, found 0 (a whole number)"),
        ("steps: 100", "steps:", "run.yaml:2: steps: expected a whole number, found nothing"),
        ("steps: 100", "stps: 100", "run.yaml:2: stps: unknown key; did you mean 'steps'?"),
        ("steps: 100\n", "", "run.yaml:1: the key 'steps' is missing; expected a whole number"),
        ("name: demo", "name: 3", "run.yaml:1: name: expected text, found 3 (a whole number)"),
        ("  lr: 1e-3\n", "", "run.yaml:3: optimizer: the key 'lr' is missing; expected a number"),
        ("  lr: 1e-3", "  lr: fast", "run.yaml:5: optimizer.lr: expected a number, found 'fast' (text)"),
        ("  lr: 1e-3", "  lr: true", "run.yaml:5: optimizer.lr: expected a number, found true"),
        (
            "kind: sgd",
            "kind: sdg",
            "run.yaml:4: optimizer.kind: unknown kind 'sdg'; did you mean 'sgd'? Valid kinds: adam, sgd",
        ),
        ("kind: sgd", "kind: zzz", "run.yaml:4: optimizer.kind: unknown kind 'zzz'. Valid kinds: adam, sgd"),
        ("  kind: sgd\n", "", "run.yaml:3: optimizer: the key 'kind' is missing. Valid kinds: adam, sgd"),
        ("  width: 32", "  wdith: 32", "run.yaml:7: encoder.wdith: unknown key; did you mean 'width'?"),
        ("  width: 32", "  zzz: 32", "run.yaml:7: encoder.zzz: unknown key; valid here: depth, positions, width"),
        (
            "  width: 32",
            "  positions: rop",
            "run.yaml:7: encoder.positions: expected 'rope' or 'none', found 'rop' (text); did you mean 'rope'?",
        ),
        ("    k: 5", "    kk: 5", "run.yaml:11: probes.1.kk: unknown key; did you mean 'k'?"),
        ("    k: 5", "    k: five", "run.yaml:11: probes.1.k: expected a whole number, found 'five' (text)"),
        (
            "encoder:\n  width: 32",
            "encoder: big",
            "run.yaml:6: encoder: expected a mapping (name: value), found 'big' (text)",
        ),
        ("encoder:\n  width: 32", "probe: 1", "run.yaml:6: probe: unknown key; did you mean 'probes'?"),
        ("encoder:\n  width: 32", "resume: yes", "run.yaml:6: resume: expected true or false, found 'yes' (text)"),
        (
            "encoder:\n  width: 32",
            "precision: half",
            "run.yaml:6: precision: expected 'auto' or a whole number, found 'half' (text)",
        ),
        (
            "encoder:\n  width: 32",
            "fps: none",
            "run.yaml:6: fps: expected a number, found 'none' (text); write null for none",
        ),
        ("encoder:\n  width: 32", "fps: [1, 2]", "run.yaml:6: fps: expected a number, found a list of 2"),
        (
            "encoder:\n  width: 32",
            "steps: 7",
            "run.yaml:6: the key 'steps' is given twice (first in line 2); remove one",
        ),
        ("encoder:\n  width: 32", "encoder: [", "run.yaml:8: not valid YAML: expected the node content, but found '-'"),
        ("  width: 32", "\twidth: 32", "run.yaml:7: not valid YAML: found character '\\t' that cannot start any token"),
        (
            "  width: 32",
            "  width: !!python/name:os.system",
            "run.yaml:7: not valid YAML: could not determine a constructor for the tag"
            " 'tag:yaml.org,2002:python/name:os.system'",
        ),
        ("  width: 32", "  width: !!int wide", "run.yaml:7: encoder.width: 'wide' is not a int"),
        (
            "  width: 32",
            "  [1]: 32",
            "run.yaml:7: encoder: expected a name before the colon, found a list or a mapping",
        ),
        ("encoder:\n", "encoder: &e\n  depth: *e\n", "run.yaml:6: encoder.depth: this part contains itself"),
    ],
)
def test_a_mistake_is_reported_with_file_line_key_and_remedy(write, old: str, new: str, told: str) -> None:
    assert old in GOOD
    assert message(write(GOOD.replace(old, new, 1)), Run) == told


def test_every_mistake_is_reported_in_a_line_of_its_own(write) -> None:
    lines = message(write("nmae: demo\nsteps: x\nencoder: {width: 1.5, dept: 2}\n"), Run, ["resume=1"]).splitlines()
    assert sorted(lines) == [
        "command line: resume: expected true or false, found 1 (a whole number)",
        "run.yaml:1: nmae: unknown key; did you mean 'name'?",
        "run.yaml:2: steps: expected a whole number, found 'x' (text)",
        "run.yaml:3: encoder.dept: unknown key; did you mean 'depth'?",
        "run.yaml:3: encoder.width: expected a whole number, found 1.5 (a number)",
    ]


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("", "run.yaml:1: expected a mapping (name: value), found nothing"),
        ("- a\n- b\n", "run.yaml:1: expected a mapping (name: value), found a list of 2"),
        ("demo", "run.yaml:1: expected a mapping (name: value), found 'demo' (text)"),
        ("a: 1\n---\nb: 2\n", "run.yaml:2: not valid YAML: but found another document"),
        ("a: 1\nb: \x00\n", "run.yaml:2: not valid YAML: a control character (#x00)"),
    ],
)
def test_a_file_that_is_no_mapping_is_refused(write, text: str, told: str) -> None:
    assert message(write(text), Run) == told


def test_a_missing_file_is_named_with_the_nearest_one(write) -> None:
    write(GOOD, "demo.yaml")
    assert message("dmeo.yaml", Run) == "dmeo.yaml: no such file; did you mean 'demo.yaml'?"
    assert message("elsewhere/demo.yaml", Run) == "elsewhere/demo.yaml: no such file"


def test_a_folder_or_a_binary_file_is_refused(write, tmp_path: Path) -> None:
    Path("video.mp4").write_bytes(b"\xff\xfe\x00\x01")
    assert message("video.mp4", Run) == "video.mp4: expected a YAML file, found bytes that are not UTF-8 text"
    assert message(tmp_path, Run) == f"{tmp_path}: cannot be read: Is a directory"


def test_a_rule_of_the_config_itself_is_reported_with_its_place(write) -> None:
    from pydantic import model_validator

    class Clip(Config):
        frames: int
        tubelet: int

        @model_validator(mode="after")
        def divides(self):
            if self.frames % self.tubelet:
                raise ValueError(f"{self.frames} frames do not divide into tubelets of {self.tubelet}")
            return self

    class Data(Config):
        clip: Clip

    told = message(write("clip:\n  frames: 7\n  tubelet: 2\n"), Data)
    assert told == "run.yaml:1: clip: 7 frames do not divide into tubelets of 2"


def test_the_home_folder_is_put_in_place_in_every_path_of_a_run(monkeypatch: pytest.MonkeyPatch) -> None:
    from jepa.training.config import PretrainConfig

    monkeypatch.setenv("HOME", "/home/me")
    description = {
        "run": "~/runs/a",
        "init_from": "~/runs/b",
        "data": {
            "shards": [{"shards": "~/corpus", "skip": "~/skip.jsonl"}],
            "batch_size": 4,
            "clip_frames": 8,
            "quarantine": "~/bad.jsonl",
            "remote": {"cache": "~/cache"},
        },
        "encoder": {"kind": "conv"},
        "method": {"kind": "vjepa", "teacher": "frozen", "teacher_from": "~/runs/c"},
        "trainer": {"steps": 1},
    }
    frozen = description | {"method": {"kind": "dino_wm", "encoder_from": "~/runs/e"}}
    configs = [from_dict(each, PretrainConfig, ["run=~/runs/d"]).model_dump() for each in (description, frozen)]
    assert all("~" not in str(config) for config in configs)
    assert configs[0]["run"] == "/home/me/runs/d" and configs[0]["init_from"] == "/home/me/runs/b"
    assert configs[0]["data"]["shards"][0]["shards"] == "/home/me/corpus"
    assert configs[0]["method"]["teacher_from"] == "/home/me/runs/c"
    assert configs[1]["method"]["encoder_from"] == "/home/me/runs/e"


def test_config_errors_are_user_errors() -> None:
    assert issubclass(ConfigError, UserError)
