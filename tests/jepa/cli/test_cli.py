"""What `jepa` answers, how fast, and what a person reads when something goes wrong."""

import errno
import json
import logging
import resource
import subprocess
import sys
from pathlib import Path

import pytest
import typer

import jepa
from jepa.cli import main
from jepa.cli.app import Verbs
from jepa.cli.show import show_messages
from jepa.config import Config, UserError, load

HEAVY = ("torch", "lightning", "numpy", "matplotlib", "pydantic", "rich", "av", "decord", "gymnasium")


class Run(Config):
    steps: int
    rate: float = 0.1


def python(code: str) -> subprocess.CompletedProcess[str]:
    """Run `code` in a fresh process that finds the packages where this one finds them."""
    path = f"import sys; sys.path[:0] = {[entry for entry in sys.path if entry]!r}\n"
    return subprocess.run([sys.executable, "-c", path + code], capture_output=True, text=True, timeout=60)


def app_that(action) -> typer.Typer:
    """A `jepa` with the one verb `do`."""
    app = typer.Typer(rich_markup_mode=None, pretty_exceptions_enable=False)
    app.callback()(lambda: None)
    app.command("do")(lambda: action())
    return app


def exit_code_of(action) -> object:
    with pytest.raises(SystemExit) as end:
        main(["do"], app_that(action))
    return end.value.code


def cpu_of_children() -> float:
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def test_garbage_is_collected_again_after_the_imports() -> None:
    done = python("""
import gc
from jepa.cli.startup import IMPORTED_OBJECTS, postpone_collection
usual = gc.get_threshold()
postpone_collection()
postpone_collection()
assert gc.get_threshold() != usual
kept = [[] for _ in range(IMPORTED_OBJECTS + 1000)]
assert gc.get_threshold() == usual, gc.get_threshold()
assert gc.get_freeze_count() >= IMPORTED_OBJECTS
before = gc.get_stats()[0]["collections"]
more = [[] for _ in range(10_000)]
assert gc.get_stats()[0]["collections"] > before
""")
    assert done.returncode == 0, done.stderr


def test_help_takes_a_fraction_of_what_torch_takes_to_be_imported() -> None:
    start, seconds = cpu_of_children(), []
    python("import torch")
    heavy = cpu_of_children() - start
    for _ in range(3):
        start = cpu_of_children()
        done = python("from jepa.cli import main; main(['--help'])")
        seconds.append(cpu_of_children() - start)
        assert done.returncode == 0, done.stderr
        assert "Usage: jepa" in done.stdout
    assert min(seconds) < 0.5 * heavy, (seconds, heavy)


def test_help_imports_nothing_heavy() -> None:
    done = python(f"""
import json, sys
from jepa.cli import main
from jepa.cli.app import Verbs
from jepa.cli.show import show_messages
try:
    main(['--help'])
finally:
    print(json.dumps([name for name in {HEAVY!r} if name in sys.modules]), file=sys.stderr)
""")
    assert json.loads(done.stderr) == []


def test_a_config_error_is_reported_before_torch_is_imported() -> None:
    done = python("""
import sys
from jepa.config import Config, ConfigError, from_dict
class Run(Config):
    steps: int
try:
    from_dict({"stpes": 3}, Run)
except ConfigError as error:
    print(error)
print([name for name in ("torch", "numpy", "lightning") if name in sys.modules])
""")
    assert done.stdout.splitlines() == ["config: stpes: unknown key; did you mean 'steps'?", "[]"], done.stderr


def test_importing_jepa_alone_imports_no_torch() -> None:
    assert python("import sys, jepa; print('torch' in sys.modules)").stdout == "False\n"


def test_an_unknown_attribute_of_jepa_is_named() -> None:
    with pytest.raises(AttributeError, match="module 'jepa' has no attribute 'laod'"):
        _ = jepa.laod


def test_version_is_printed(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as end:
        main(["--version"])
    assert end.value.code == 0
    assert capsys.readouterr().out == f"jepa {jepa.__version__}\n"


def test_an_unknown_verb_is_exit_code_2(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as end:
        main(["pretrian"])
    assert end.value.code == 2
    assert "pretrian" in capsys.readouterr().err


def test_a_finished_verb_is_exit_code_0() -> None:
    assert exit_code_of(lambda: None) == 0


def test_a_mistake_is_one_line_and_exit_code_2(capsys: pytest.CaptureFixture[str]) -> None:
    def verb() -> None:
        raise UserError("shards/: no manifest.json; record one with jepa data record")

    assert exit_code_of(verb) == 2
    assert capsys.readouterr().err == "error: shards/: no manifest.json; record one with jepa data record\n"


def test_each_mistake_in_a_config_is_a_line_of_its_own(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "run.yaml"
    path.write_text("steps: many\nrtae: 0.1\n")
    assert exit_code_of(lambda: load(path, Run)) == 2
    assert capsys.readouterr().err.splitlines() == [
        f"error: {path}:1: steps: expected a whole number, found 'many' (text)",
        f"error: {path}:2: rtae: unknown key; did you mean 'rate'?",
    ]


def test_the_traceback_of_a_mistake_can_be_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    def verb() -> None:
        raise UserError("no shards")

    monkeypatch.setenv("JEPA_TRACEBACK", "1")
    with pytest.raises(UserError, match="no shards"):
        main(["do"], app_that(verb))


def test_a_defect_keeps_its_traceback() -> None:
    def verb() -> None:
        raise ValueError("a bug")

    with pytest.raises(ValueError, match="a bug"):
        main(["do"], app_that(verb))


@pytest.mark.parametrize(
    ("error", "told"),
    [
        (PermissionError(errno.EACCES, "no", "/x/run"), "error: /x/run: Permission denied; give another path"),
        (OSError(errno.ENOSPC, "no"), "error: No space left on device; free some space"),
        (NotADirectoryError(errno.ENOTDIR, "no", "a.txt/b"), "error: a.txt/b: Not a directory; a part of the path"),
    ],
)
def test_a_path_that_cannot_be_written_is_one_line_with_the_reason(
    error: OSError, told: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def verb() -> None:
        raise error

    assert exit_code_of(verb) == 2
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 1 and lines[0].startswith(told)
    monkeypatch.setenv("JEPA_TRACEBACK", "1")
    with pytest.raises(type(error)):
        main(["do"], app_that(verb))


def test_a_file_that_ends_too_early_is_not_reported_as_aborted() -> None:
    def verb() -> None:
        raise EOFError("in the middle")

    app = app_that(verb)
    app.info.cls = Verbs
    with pytest.raises(RuntimeError, match="ended too early"):
        main(["do"], app)


def test_the_home_folder_may_stand_in_every_option(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    seen: list[Path] = []
    app = typer.Typer()

    @app.command()
    def do(a: Path, out: Path = Path()) -> None:
        seen.extend([a, out])

    with pytest.raises(SystemExit):
        main(["~/a", "--out=~/b/~c"], app)
    assert seen == [tmp_path / "a", tmp_path / "b" / "~c"]


def test_ctrl_c_is_exit_code_130_without_a_traceback(capsys: pytest.CaptureFixture[str]) -> None:
    def verb() -> None:
        raise KeyboardInterrupt

    assert exit_code_of(verb) == 130
    assert capsys.readouterr().err == "\ninterrupted\n"


def test_what_a_package_logs_is_printed_once_bare_and_warnings_go_to_stderr(capsys: pytest.CaptureFixture[str]) -> None:
    def action() -> None:
        logging.getLogger("jepa_probes.probing").info("state R²  0.9")
        logging.getLogger("jepa.training").warning("the latents are collapsing")

    for _ in range(2):
        with pytest.raises(SystemExit):
            main(["do"], app_that(action))
        assert capsys.readouterr() == ("state R²  0.9\n", "the latents are collapsing\n")


@pytest.mark.parametrize("name", ["RANK", "LOCAL_RANK", "SLURM_PROCID"])
def test_of_several_processes_of_a_run_the_first_one_tells(
    name: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def tell() -> None:
        show_messages()
        logging.getLogger("jepa").info("a line")
        logging.getLogger("jepa_data").warning("a warning")
        raise UserError("an error")

    for rank, told in (("0", True), ("1", False)):
        monkeypatch.setenv(name, rank)
        assert exit_code_of(tell) == 2
        printed = capsys.readouterr()
        assert ("a line" in printed.out, "a warning" in printed.err, "an error" in printed.err) == (told, told, True)
    monkeypatch.delenv(name)
    show_messages()
