"""Comparisons of tiny models: which cells run, in which order, what stops them, and what the table says."""

import re
import shutil
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from safetensors.torch import load_file

import jepa
from jepa.cli import main
from jepa.config import UserError, dump, from_dict, load
from jepa_data.sources.rollouts import Recording, record
from jepa_probes.comparison import budget, launch, measure
from jepa_probes.comparison.cell import DESCRIPTION, run_cell
from jepa_probes.comparison.compare import _prepared
from jepa_probes.comparison.config import CompareConfig
from jepa_probes.comparison.expand import expand, merged
from jepa_probes.comparison.launch import Finished, Local, Submitit, run_jobs
from jepa_probes.comparison.result import CellResult, Comparison, TrainingCost
from jepa_probes.comparison.table import report, sections
from jepa_probes.comparison.verdicts import verdicts

pytestmark = pytest.mark.usefixtures("one_thread")
PLAN = {"tasks": 4, "steps": 4, "horizon": 2, "replan_every": 1, "simulator_tasks": 0, "inverse": {"updates": 3}}
CEM = {"kind": "cem", "samples": 8, "elites": 2, "iterations": 1}
LEWM = {"kind": "lewm", "directions": 16, "predictor": {"hidden": 16}}


def settings(data: Path, out: Path, **changes: Any) -> dict[str, Any]:
    return {
        "out": str(out),
        "budget": {"steps": 3},
        "reference": "mlp",
        "launcher": "inline",
        "base": {
            "data": {"shards": str(data), "batch_size": 8, "clip_frames": 6, "cache_mib": 50},
            "encoder": {"kind": "conv", "width": 8, "channels": 8, "hidden": 16},
            "method": {"kind": "latent_dynamics"},
            "trainer": {"device": "cpu", "checkpoint_every": 2},
        },
        "models": {
            "mlp": {"encoder_of": "lewm", "method": {"predictor": {"kind": "mlp", "hidden": 16}}},
            "lewm": {"method": LEWM},
        },
        "measure": {"horizons": [1, 2, 25], "best_of": [1, 4], "starts": 3, "candidates": 6, "clips": 12},
        "plan": PLAN | {"planner": CEM},
    } | changes


def config(data: Path, out: Path, **changes: Any) -> CompareConfig:
    return from_dict(settings(data, out, **changes), CompareConfig)


def only(name: str, entry: dict[str, Any], **changes: Any) -> dict[str, Any]:
    """A comparison of one model that does not plan."""
    return {"models": {name: entry}, "baselines": [], "plan": None, "reference": None} | changes


@pytest.fixture(scope="module", autouse=True)
def _speed_is_measured_briefly() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(measure, "SECONDS", 0.02)
        yield


@pytest.fixture(scope="module")
def done(corpus: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Comparison]:
    """A finished comparison; one of its cells fails, as an MLP cannot read tokens."""
    out = tmp_path_factory.mktemp("comparison") / "out"
    threads = torch.get_num_threads()
    vit = {"kind": "video_vit", "width": 16, "depth": 1, "heads": 2, "patch": 16, "tubelet": 2}
    patches = {"encoder": {"kind": "per_frame", "of": vit}, "method": {"predictor": {"kind": "mlp"}}}
    models = settings(corpus, out)["models"] | {"patches": patches}
    result = jepa.compare(config(corpus, out, models=models))
    torch.set_num_threads(threads)
    return out, result


def test_every_model_and_baseline_is_measured_alike(done: tuple[Path, Comparison]):
    _, result = done
    rows = {cell.model: cell for cell in result.cells}
    assert list(rows) == ["lewm", "mlp", "identity", "shuffled_actions", "random_encoder"]
    for cell in rows.values():
        assert [errors.horizon for errors in cell.forecast.errors] == [1, 2]  # the recordings are too short for 25
        assert set(cell.state_r2) == {"all", "position", "velocity"} and set(cell.forecast.state_r2) == {1, 2}
        assert cell.cost is not None and cell.plan is not None and cell.plan.tasks == 4
        assert {"random", "inverse_dynamics", "expert"} <= set(cell.agents) and cell.frames_per_second > 0
    assert rows["mlp"].encoder == rows["identity"].encoder == rows["lewm"].encoder != rows["random_encoder"].encoder
    assert rows["mlp"].state_r2 == rows["lewm"].state_r2  # one frozen encoder
    assert rows["identity"].error(2) == pytest.approx(1) and rows["identity"].parameters == 0
    for name in ("lewm", "mlp", "random_encoder"):
        assert rows[name].training is not None and rows[name].training.steps == 3
        assert rows[name].training.cpu_seconds > 0 and rows[name].training.peak_memory_mib > 50
    assert rows["identity"].training is None


def test_a_cell_that_fails_is_named_in_one_line_and_the_others_go_on(done: tuple[Path, Comparison]):
    out, result = done
    assert list(result.failed) == ["patches-0"]
    assert re.search(r"mlp takes one vector a step, the encoder gives \d+ tokens", result.failed["patches-0"])
    assert any(line.startswith("patches-0 failed: ") for line in report(result))
    assert "patches-0 failed" in (out / "compare.html").read_text()


def test_finished_cells_are_not_run_again_and_those_that_failed_are(
    done: tuple[Path, Comparison], monkeypatch: pytest.MonkeyPatch
):
    out, result = done
    started = list[str]()
    monkeypatch.setattr(launch, "run_or_explain", lambda folder: started.append(Path(folder).name))
    monkeypatch.setattr(launch, "_explained", lambda folder: "again")
    again = jepa.compare(from_dict(result.config | {"launcher": "inline"}, CompareConfig))
    assert started == ["patches-0"] and again.failed == {"patches-0": "again"}
    assert again.cells == result.cells == Comparison.read(out).cells


def test_other_trainings_are_refused_and_other_measures_keep_the_training(corpus: Path, tmp_path: Path):
    small = only("lewm", {"method": LEWM})
    first = jepa.compare(config(corpus, tmp_path / "out", **small))
    with pytest.raises(UserError, match=r"other settings.*--overwrite"):
        jepa.compare(config(corpus, tmp_path / "out", **small, budget={"steps": 4}))
    wider = settings(corpus, tmp_path)["measure"] | {"best_of": [1, 2]}
    second = jepa.compare(config(corpus, tmp_path / "out", **small | {"measure": wider}))
    assert first.cells[0].training == second.cells[0].training
    assert set(second.cells[0].forecast.sampled[0].best_of) == {1, 2}
    cell = tmp_path / "out" / "lewm-0" / "cell.yaml"
    cell.write_text(cell.read_text().replace("threads: 1\n", ""))  # as an earlier version wrote it
    jobs = expand(config(corpus, tmp_path / "out", **small | {"measure": wider}))
    assert _prepared(jobs, tmp_path / "out", overwrite=False) == []
    waiting = tmp_path / "waiting" / "lewm-0"
    waiting.mkdir(parents=True)
    shutil.copy(tmp_path / "out" / "lewm-0" / "cell.yaml", waiting)  # described, and not begun
    jobs = expand(config(corpus, tmp_path / "waiting", **small, budget={"steps": 4}))
    assert _prepared(jobs, tmp_path / "waiting", overwrite=False) == jobs
    third = jepa.compare(config(corpus, tmp_path / "out", **small, budget={"steps": 4}), overwrite=True)
    assert third.cells[0].training is not None and third.cells[0].training.steps == 4


def test_a_training_that_was_stopped_goes_on_to_the_same_weights(
    corpus: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    small = only("lewm", {"method": LEWM})
    jepa.compare(config(corpus, tmp_path / "whole", **small))
    count = budget.Watch.on_train_batch_end

    def stop(watch: Any, trainer: Any, *rest: Any) -> None:
        count(watch, trainer, *rest)
        if trainer.global_step == 3:
            raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(budget.Watch, "on_train_batch_end", stop)
        with pytest.raises(KeyboardInterrupt):
            jepa.compare(config(corpus, tmp_path / "parts", **small))
    assert not (tmp_path / "parts" / "lewm-0" / "training.json").exists()
    assert jepa.compare(config(corpus, tmp_path / "parts", **small)).failed == {}
    whole, parts = (load_file(tmp_path / out / "lewm-0/model/model.safetensors") for out in ("whole", "parts"))
    assert all(torch.equal(whole[name], parts[name]) for name in whole)


def test_a_run_that_is_taken_is_measured_as_if_it_were_trained_here(done: tuple[Path, Comparison], corpus, tmp_path):
    out, result = done
    taken = only("mine", {"run": f"{out}/lewm-{{seed}}"})
    cell = jepa.compare(config(corpus, tmp_path / "out", **taken)).cells[0]
    original = result.cells[0]
    assert cell.training is not None and cell.training.steps == 3 and cell.training.cpu_seconds is None
    assert cell.state_r2 == original.state_r2 and cell.forecast == original.forecast


def test_a_budget_of_processor_time_becomes_steps(corpus: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    clock = iter(range(10_000))
    monkeypatch.setattr(budget, "cpu_seconds", lambda: float(next(clock)))  # a second for each step
    monkeypatch.setattr(budget, "PILOT_STEPS", 4)
    small = only("lewm", {"method": LEWM}, budget={"cpu_minutes": 0.1})
    cell = jepa.compare(config(corpus, tmp_path / "out", **small)).cells[0]
    assert cell.training is not None and cell.training.steps == 6
    assert not (tmp_path / "out" / "lewm-0" / "pilot").exists()


def test_a_pilot_of_slow_steps_ends_early(corpus: Path, tmp_path: Path):
    training = expand(config(corpus, tmp_path, **only("lewm", {"method": LEWM})))[0].config.training
    assert training is not None
    assert budget.seconds_per_step(training, tmp_path / "pilot", 0.0) > 0


class Recorder:
    """A launcher that notes when cells start, and lets some fail; each is done when it is asked for the second time."""

    def __init__(self, jobs: int | None, failing: tuple[str, ...] = ()) -> None:
        self.jobs = jobs
        self.failing = failing
        self.running = set[str]()
        self.started = list[str]()
        self.most = 0

    def start(self, folder: Path) -> Any:
        self.started.append(folder.name)
        self.running.add(folder.name)
        self.most = max(self.most, len(self.running))
        return Noted(self, folder.name)


class Noted(Finished):
    def __init__(self, launcher: Recorder, name: str) -> None:
        self.launcher = launcher
        self.name = name
        self.asked = 0

    def done(self) -> bool:
        self.asked += 1
        if self.asked > 1:
            self.launcher.running.discard(self.name)
        return self.asked > 1

    def problem(self) -> str | None:
        return "out of luck" if self.name in self.launcher.failing else None


def test_cells_wait_for_those_that_they_read_and_for_room(corpus: Path, tmp_path: Path):
    jobs = expand(config(corpus, tmp_path / "out", seeds=[0, 1]))
    launcher = Recorder(2)
    assert run_jobs(jobs, tmp_path / "out", launcher) == {} and launcher.most == 2
    for seed in "01":
        order = [launcher.started.index(f"{name}-{seed}") for name in ("lewm", "mlp", "identity")]
        assert order == sorted(order)


def test_what_comes_after_a_failure_is_not_run(corpus: Path, tmp_path: Path):
    launcher = Recorder(None, failing=("lewm-0",))
    failed = run_jobs(expand(config(corpus, tmp_path / "out")), tmp_path / "out", launcher)
    assert launcher.started == ["lewm-0", "random_encoder-0"] and failed["lewm-0"] == "out of luck"
    assert failed["mlp-0"] == "not run, for it needs lewm-0" and "mlp-0" in failed["identity-0"]


def test_a_process_says_why_it_failed_and_one_that_is_killed_is_named(tmp_path: Path):
    (tmp_path / "mine-0").mkdir()
    (tmp_path / "mine-0" / "cell.yaml").write_text("model: mine\n")
    process = Local(1, 1).start(tmp_path / "mine-0")
    while not process.done():
        time.sleep(0.1)
    assert process.problem() is None and "seed" in (tmp_path / "mine-0" / "error.txt").read_text()
    (tmp_path / "mine-0" / "error.txt").unlink()
    killed = Local(1, 1).start(tmp_path / "mine-0")
    killed.stop()
    assert re.search("killed by signal 9.*log.txt", str(killed.problem()))


def test_without_submitit_one_line_says_what_to_install(corpus: Path, tmp_path: Path, monkeypatch, capsys):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    (tmp_path / "c.yaml").write_text(yaml.safe_dump(settings(corpus, tmp_path / "out")))
    with pytest.raises(SystemExit) as stopped:
        main(["compare", str(tmp_path / "c.yaml"), "--launcher", "slurm"])
    assert stopped.value.code == 2
    assert "pip install 'openjepa[slurm]'" in capsys.readouterr().err and not (tmp_path / "out").exists()


@pytest.mark.slow
def test_cells_run_as_jobs_of_submitit(done: tuple[Path, Comparison], corpus: Path, tmp_path: Path):
    pytest.importorskip("submitit")
    out, _ = done
    broken = tmp_path / "out" / "broken-0"
    jobs = expand(config(corpus, tmp_path / "out", **only("mine", {"run": f"{out}/lewm-0"})))
    for job in jobs:
        shutil.copytree(out / "identity-0", tmp_path / "out" / job.name, ignore=shutil.ignore_patterns("cell.json"))
    launcher = Submitit(tmp_path / "slurm", {"timeout_min": 5}, cluster="local")
    assert run_jobs(jobs, tmp_path / "out", launcher) == {}
    assert CellResult.read(tmp_path / "out" / "mine-0").model == "identity"
    broken.mkdir()
    (broken / "cell.yaml").write_text("model: mine\n")
    job = launcher.start(broken)
    while not job.done():
        time.sleep(0.1)
    assert job.problem() is None and "seed" in (broken / "error.txt").read_text()


def test_the_command_prints_the_table_and_names_what_failed(
    done: tuple[Path, Comparison], monkeypatch, capsys, tmp_path
):
    out, result = done
    monkeypatch.setattr(launch, "run_or_explain", lambda folder: False)
    monkeypatch.setattr(launch, "_explained", lambda folder: "no luck")
    (tmp_path / "c.yaml").write_text(yaml.safe_dump(result.config))
    with pytest.raises(SystemExit) as stopped:
        main(["compare", str(tmp_path / "c.yaml"), "--launcher", "inline"])
    printed = capsys.readouterr()
    assert stopped.value.code == 2 and printed.err.endswith("error: patches-0: no luck\n")
    assert re.search(r"^lewm +lewm +1 +", printed.out, re.MULTILINE) and str(out / "compare.html") in printed.out


def test_the_page_is_one_file_with_every_row(done: tuple[Path, Comparison]):
    out, result = done
    page = (out / "compare.html").read_text()
    assert (
        "http://" not in page and "https://" not in page and "<script" not in page and page.count("data:image/png") == 6
    )
    for section in sections(result):
        for row in section.rows[1:]:
            assert f'<th scope="row">{row[0].replace("_", " ")}</th>' in page


def test_a_baseline_that_does_not_lose_is_named(done: tuple[Path, Comparison]):
    cells = {cell.model: cell for cell in done[1].cells}
    errors = [e.model_copy(update={"model": 0.5 * e.identity}) for e in cells["mlp"].forecast.errors]
    good = cells["mlp"].forecast.model_copy(update={"errors": errors})
    better = {"forecast": good, "plan": cells["mlp"].plan.model_copy(update={"success": 0.9})}
    better["cost"] = cells["mlp"].cost.model_copy(update={"correlation": 0.9})
    model = cells["mlp"].model_copy(update=better)
    assert verdicts([model, cells["identity"]]) == [
        "identity loses to every model: planning success, rank correlation of costs, latent error after 1, latent "
        "error after 2."
    ]
    worse = errors[:1] + [e.model_copy(update={"model": 2 * e.identity}) for e in errors[1:]]
    poor = model.model_copy(update={"forecast": good.model_copy(update={"errors": worse})})
    (sentence,) = verdicts([poor, cells["identity"]])
    assert "does NOT lose to every model in latent error after 2 (1.000; mlp 2.000)" in sentence


def test_several_seeds_are_one_row_with_their_spread(done: tuple[Path, Comparison]):
    _, result = done
    lewm = result.cells[0]
    other = lewm.model_copy(update={"seed": 1, "state_r2": {"all": lewm.state_r2["all"] + 0.2}})
    tables = sections(result.model_copy(update={"cells": [lewm, other]}))
    assert [row[:3] for row in tables[0].rows[1:]] == [["lewm", "lewm", "2"]]
    assert " ± 0.14" in tables[1].rows[1][1]


def test_an_encoder_without_dynamics_can_be_shared_and_its_latents_are_written_once(corpus: Path, tmp_path: Path):
    data = {"image_size": 64}
    models = {
        "V": {"encoder": {"kind": "vae", "width": 4}, "data": data, "method": {"kind": "vae"}},
        "V_M": {"encoder_of": "V", "data": data, "method": {"predictor": {"kind": "mdn_rnn", "hidden": 8}}},
    }
    shared = {"models": models, "baselines": [], "plan": None, "reference": None}
    result = jepa.compare(config(corpus, tmp_path / "out", **shared, tokenize=True))
    latents = tmp_path / "out" / "V-0" / "latents"
    assert (latents / "latents.json").is_file()
    assert f"latents_from: {latents}" in (tmp_path / "out" / "V_M-0" / "config.yaml").read_text()
    alone, both = result.cells
    assert alone.forecast.errors == [] and alone.parameters == 0 and "position" in alone.state_r2
    assert [errors.horizon for errors in both.forecast.errors] == [1, 2] and both.state_r2 == alone.state_r2
    titles = [section.title for section in sections(result)]
    assert titles == ["What it takes", "What it knows and imagines"]  # nothing was planned or dreamt
    page = (tmp_path / "out" / "compare.html").read_text()
    assert '<th scope="row">V</th>' in page and "V M" in page


def test_a_random_encoder_gets_the_steps_of_a_reference_that_needs_no_video(corpus: Path, tmp_path: Path):
    mlp = {"encoder_of": "lewm", "method": {"predictor": {"kind": "mlp", "hidden": 16}}}
    small = {"models": {"lewm": {"method": LEWM}, "mlp": mlp}, "baselines": ["random_encoder"], "plan": None}
    given = config(corpus, tmp_path / "out", **small, budget={"cpu_minutes": 1}, tokenize=True)
    job = expand(given)[-1]
    assert job.name == "random_encoder-0" and job.after == ("mlp-0",)
    folder = tmp_path / "out" / job.name
    for name in (job.name, "mlp-0"):
        (tmp_path / "out" / name).mkdir(parents=True)
    (folder / DESCRIPTION).write_text(dump(job.config))
    cost = {"steps": 4, "seconds": 1.0, "cpu_seconds": 1.0, "peak_memory_mib": 1.0}
    TrainingCost.model_validate(cost).write(tmp_path / "out" / "mlp-0")
    done = run_cell(folder)
    assert done.training is not None and done.training.steps == 4
    assert expand(given.model_copy(update={"tokenize": False}))[-1].after == ()


@pytest.mark.parametrize("path", sorted(Path(__file__).parents[3].glob("configs/compare/*.yaml")), ids=lambda p: p.stem)
def test_shipped_comparisons_fit(path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("jepa_probes.comparison.expand.check_taken", lambda *_, shared: None)
    jobs = expand(load(path, CompareConfig))
    drift = path.stem.endswith("drift")  # of the models of another comparison, which plan there
    assert len(jobs) == 3 * (12 if drift else 13 + 3)
    assert all((job.config.plan is None) == drift for job in jobs)


def test_a_section_of_another_kind_takes_nothing_over():
    base = {"method": {"kind": "lewm", "weight": 1, "predictor": {"kind": "mlp", "hidden": 8}}, "data": {"a": 1}}
    assert merged(base, {"method": {"predictor": {"hidden": 9}}})["method"]["predictor"] == {"kind": "mlp", "hidden": 9}
    assert merged(base, {"method": {"kind": "pldm"}}) == {"method": {"kind": "pldm"}, "data": {"a": 1}}


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"models": {"mlp": {"encoder_of": "vae"}}}, "models.mlp.encoder_of: expected another model"),
        ({"models": {"identity": {}}}, "'identity' cannot be the name of a model"),
        ({"reference": "vae"}, "reference: expected a model that is trained here"),
        ({"budget": {"steps": 1, "cpu_minutes": 1}}, "either cpu_minutes or steps"),
        ({"models": {"a": {"run": "x", "method": {}}}, "reference": None}, "method has no effect"),
        (
            {"models": {"a": {"method": {"kind": "lewm", "predictr": {}}}}, "reference": None},
            "models.a: method.predictr",
        ),
        ({"models": {"a": {"data": {"shards": "other"}}}, "reference": None}, "all models share"),
        ({"base": {"data": {"shards": "x"}, "plan": {}}}, "base: expected data, encoder"),
        ({"models": {"a": {"run": "nowhere"}}, "reference": None}, "models.a: nowhere: "),
    ],
)
def test_what_does_not_fit_is_refused_before_anything_runs(corpus: Path, tmp_path: Path, changes: dict, expected: str):
    with pytest.raises(UserError, match=re.escape(expected)):
        jepa.compare(config(corpus, tmp_path / "out", **changes))
    assert not (tmp_path / "out").exists()


def test_runs_of_another_family_or_with_other_actions_are_refused(done: tuple[Path, Comparison], corpus, tmp_path):
    record(Recording("gym:Pendulum-v1", episodes=4, frames=12, image_size=32), tmp_path / "pendulum")
    vit = "{kind: video_vit, width: 16, depth: 1, heads: 2, patch: 16, tubelet: 2}"
    (tmp_path / "v.yaml").write_text(
        f"run: {tmp_path / 'v'}\ndata: {{shards: {corpus}, batch_size: 4, clip_frames: 6}}\nencoder: {vit}\n"
        "method: {kind: levjepa}\ntrainer: {steps: 1, device: cpu}\n"
    )
    jepa.pretrain(tmp_path / "v.yaml")
    with pytest.raises(UserError, match=r"models.a: .*a model of levjepa, which has no dynamics"):
        jepa.compare(config(corpus, tmp_path / "out", **only("a", {"run": str(tmp_path / "v")})))
    pendulum = settings(tmp_path / "pendulum", tmp_path / "out")["base"]
    taken = only("a", {"run": f"{done[0]}/lewm-0"}, base=pendulum)
    with pytest.raises(UserError, match=r"models.a: .*actions are 2 wide, those of .* 1"):
        jepa.compare(config(tmp_path / "pendulum", tmp_path / "out", **taken))
