"""The report: one page that stands alone, escapes what it is told, says what is missing, and hides no bad result."""

import json
import re
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest

from jepa.config import UserError
from jepa.training.result import PretrainResult
from jepa_probes.reporting.drawing import write_gif, write_png
from jepa_probes.reporting.page import write_report
from jepa_probes.reporting.report_text import sentences
from jepa_probes.reporting.results import RunResults, collect_results, percent, seeds_table, summary_table

CONFIG = "run: runs/demo\nseed: 7\nencoder: {kind: conv, width: 64}\nmethod: {kind: lewm}\n"
PRETRAIN = {
    "method": "lewm",
    "steps": 300,
    "clips_per_second": 201.5,
    "wait_share": 0.01,
    "monitor_seconds": 0.5,
    "probe": None,
    "encoder_parameters": 500000,
    "left_out": {},
    "data": {"position": {"batch": 300, "epochs": [1.0]}, "mix": {}, "errors": {}, "stalls": 0},
    "effective_rank": 31.2,
    "seconds": 61.5,
    "parameters": 620000,
    "device": "cpu",
    "precision": "32-true",
    "warnings": [],
}
PROBE = {
    "seed": 5,
    "clips": {"train": 500, "test": 100},
    "chosen": {},
    "scores": {
        "state_r2": {
            "pretrained": 0.62,
            "random_init": 0.3,
            "pixels": 0.9,
            "pca_pixels": 0.45,
            "supervised": 0.8,
            "floor": -0.01,
        },
        "state.puck.position": {"pretrained": 0.95, "random_init": 0.6, "pixels": 0.9, "floor": 0.0},
        "state.puck.position.occluded": {"pretrained": None, "random_init": None},
        "state.puck.x": {"pretrained": 0.951, "random_init": 0.55},
        "class.bouncy.attentive.accuracy": {"pretrained": 0.7, "random_init": 0.55, "floor": 0.52},
        "class.bouncy.attentive.balanced": {"pretrained": 0.69, "random_init": 0.54},
    },
    "prediction": {
        "1": {"horizon": 1, "model": 0.05, "identity": 0.1, "shuffled": 0.14, "samples": 900},
        "10": {"horizon": 10, "model": 0.4, "identity": 1.2, "shuffled": 1.3, "samples": 100},
    },
    "episodes": {"train": 500, "test": 100},
    "dropped": {"label_dropped": {"bouncy": 12}, "state_dropped": {"body0.x": 40}},
    "seconds": 30.0,
}
PROTOCOL = {
    **{"world": "billiards-easy", "world_version": 1, "image_size": 64, "tasks": 100, "steps": 40},
    **{"radius": 0.08, "min_distance": 0.3, "seed": 3},
}
PLAN = {
    "success": 0.71,
    "low": 0.61,
    "high": 0.79,
    "baselines": {
        "random": {"success": 0.05, "low": 0.02, "high": 0.11, "tasks": 100},
        "simulator": {"success": 1.0, "low": 0.96, "high": 1.0, "tasks": 100},
    },
    "unit": "widths of the image",
    "tasks": 100,
    "seconds_per_plan": 0.004,
    "seconds_per_plan_alone": 0.0312,
    "plans_per_task": 10,
    "model_calls_per_plan": 640,
    "differentiated_calls_per_plan": 128,
    "ever_reached": 0.8,
    "median_distance": 0.05,
    "protocol": PROTOCOL,
    "settings": {"terms": []},
    "distances": [0.05] * 100,
    "seconds": 12.0,
}

DREAM = {
    "success": 0.83,
    "low": 0.74,
    "high": 0.89,
    "tasks": 100,
    "baselines": {"random": PLAN["baselines"]["random"], "expert": PLAN["baselines"]["simulator"]},
    "planner": {"success": 0.71, "low": 0.61, "high": 0.79, "tasks": 100},
    "returns": {
        "horizon": {"steps": 15, "dream": -3.21, "world": -4.56, "gap": 1.35, "apart": 1.4, "correlation": 0.77},
        "task": {"steps": 40, "dream": -5.43, "world": -9.87, "gap": 4.44, "apart": 5.0, "correlation": None},
    },
    "temperatures": {},
    "heads": {},
    "history": [[0, -9.0], [100, -4.0], [200, -3.5]],
    "protocol": PROTOCOL,
    "settings": {"controller": {"kind": "actor_critic"}},
    "training_seconds": 60.0,
    "training_cpu_seconds": 58.4,
    "seconds": 5.0,
}


def make_run(folder: Path, **parts: dict) -> Path:
    """A run folder with config.yaml and the given files."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "config.yaml").write_text(CONFIG)
    for name, content in parts.items():
        (folder / f"{name}.json").write_text(json.dumps(content))
    return folder


@pytest.fixture
def run(tmp_path) -> Path:
    """A run with everything in it."""
    run = make_run(tmp_path / "demo", pretrain=PRETRAIN, probe=PROBE, plan=PLAN, dream=DREAM)
    (run / "logs").mkdir()
    (run / "logs" / "metrics.csv").write_text("step,train/loss,monitor/effective_rank\n10,2.0,\n20,1.0,5.5\n")
    frames = np.random.default_rng(0).integers(0, 255, (3, 40, 60, 3)).astype(np.uint8)
    write_png(frames[0], run / "figures" / "data.png")
    for name in ("pca", "rollout", "plan_0", "plan_1"):
        write_gif(frames, run / "figures" / f"{name}.gif")
    return run


class Page(HTMLParser):
    """Tags with their attributes, the text, and whether every tag is closed."""

    VOID = ("meta", "img", "source", "br")

    def __init__(self, html: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict]] = []
        self.open: list[str] = []
        self.words: list[str] = []
        self.feed(html)

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open and self.open[-1] == tag, f"</{tag}> closes {self.open[-3:]}"
        self.open.pop()

    def handle_data(self, data):
        if not self.open or self.open[-1] != "style":
            self.words.append(data)

    @property
    def text(self) -> str:
        return " ".join(" ".join(self.words).split())


def page_of(run: Path) -> Page:
    page = Page(write_report(run).read_text(encoding="utf-8"))
    assert page.open == []
    return page


def test_the_page_stands_alone(run):
    page = page_of(run)
    html = (run / "report.html").read_text()
    assert not re.search(r"(?:https?:)?//[a-z]|@import|url\(", re.sub(r"base64,[\w+/=]+", "", html))
    addresses = [a.get(key) for _, a in page.tags for key in ("src", "srcset", "href") if a.get(key)]
    assert len(addresses) == 3 * 2 + 3 + 2  # three charts in two themes, three figures, two plans
    assert all(address.startswith("data:image/") for address in addresses)
    assert "script" not in {tag for tag, _ in page.tags}
    assert len(html) < 400_000


def test_the_page_has_every_number_that_counts(run):
    text = page_of(run).text
    for number in ("0.620", "0.300", "0.900", "0.450", "0.800", "0.951", "0.700", "71 %", "61 % to 79 %", "1.300"):
        assert number in text, number
    assert "puck position" in text and "bouncy, attentive probe" in text and "300" in text
    assert "bouncy: 12 clips" in text
    assert "while hidden" not in text  # a row without a number is no row
    assert "yet:" not in text  # nothing is missing


def test_it_is_reported_what_a_plan_took_and_who_entered_what_is_forbidden(run):
    (run / "plan.json").write_text(json.dumps(PLAN | {"entered": {"share": 0.04, "tasks": 81}}))
    text = page_of(run).text
    assert "4.0 ms a plan (31.2 ms for one alone), 640 imagined steps in each, 128 of them followed back" in text
    assert "A forbidden region was entered in 4 % of the 81 tasks that neither begin nor end in one" in text


def test_the_best_of_a_row_is_bold(run):
    write_report(run)
    html = (run / "report.html").read_text()
    row = re.search(r"<tr><th scope=\"row\">puck position</th>(.*?)</tr>", html)
    assert row and re.findall(r"<b>(.*?)</b>", row[1]) == ["0.950"]
    errors = re.search(r"<tr><th scope=\"row\">10 steps ahead</th>(.*?)</tr>", html)
    assert errors and re.findall(r"<b>(.*?)</b>", errors[1]) == ["0.400"]


def test_an_empty_run_says_which_command_makes_each_part(tmp_path):
    text = page_of(make_run(tmp_path / "bare")).text
    for command in ("jepa pretrain", "jepa probe", "jepa plan", "jepa dream", "jepa report"):
        assert f"{command} " in text
    assert "Nothing was measured in this run yet" in text


@pytest.mark.parametrize("present", ["pretrain", "probe", "plan", "dream"])
def test_any_part_may_stand_alone(tmp_path, present):
    parts = {"pretrain": PRETRAIN, "probe": PROBE, "plan": PLAN, "dream": DREAM}
    page_of(make_run(tmp_path / present, **{present: parts[present]}))


def test_sparse_parts_do_not_break_the_page(tmp_path):
    unknown = dict.fromkeys(("clips_per_second", "wait_share", "effective_rank"))
    sparse = {"pretrain": PRETRAIN | unknown, "probe": PROBE | {"scores": {}, "prediction": {}, "dropped": {}}}
    dreamt = DREAM | {"success": 0.25, "returns": {}, "history": [], "baselines": {}, "planner": None}
    page = page_of(make_run(tmp_path / "sparse", plan=PLAN | {"baselines": {}}, dream=dreamt, **sparse))
    assert "71 %" in page.text and "25 %" in page.text


@pytest.mark.parametrize(
    ("share", "told"),
    [(None, "–"), (0, "0 %"), (0.004, "0.4 %"), (0.5049, "50 %"), (0.9949, "99 %"), (0.995, "99.5 %"), (1.0, "100 %")],
)
def test_some_are_not_reported_as_none_nor_nearly_all_as_all(share, told):
    assert percent(share) == told


def rows_of(run: Path) -> list[list[str]]:
    """The cells of every row of the page's tables, as text."""
    html = re.sub(r"</?b>", "", write_report(run).read_text())
    rows = re.findall(r"<tr>(.*?)</tr>", html, re.DOTALL)
    return [re.findall(r"<t[hd][^>]*>(.*?)</t[hd]>", row) for row in rows]


def test_what_learned_in_dreams_stands_beside_the_planner_and_its_dreams_beside_the_world(run):
    rows, text = rows_of(run), page_of(run).text
    assert ["learned in dreams", "83 %", "74 % to 89 %"] in rows
    assert ["planning in latents", "71 %", "61 % to 79 %"] in rows
    assert ["15", "−3.21", "−4.56", "1.35", "0.77"] in rows and ["40", "−5.43", "−9.87", "4.44", "–"] in rows
    assert "An actor-critic learned what to do" in text and "return in the dream, while it learned" in text
    assert "solved 83 % of 100 held-out tasks (95 % interval 74 % to 89 %)" in text
    assert "planning 71 %, random 5 %" in text and "−5.4 in the dream and −9.9 in the world" in text


def test_dreams_at_several_temperatures_are_rows_in_the_order_of_their_temperature(run):
    returns = {"horizon": DREAM["returns"]["horizon"]}
    hot = {"horizon": returns["horizon"] | {"dream": -4.0}}
    (run / "dream.json").write_text(json.dumps(DREAM | {"temperatures": {"1.15": hot, "0.1": returns}}))
    found = [row for row in rows_of(run) if row[:1] in (["0.1"], ["1.15"])]
    assert [row[:3] for row in found] == [["0.1", "15", "−3.21"], ["1.15", "15", "−4.00"]]


def test_in_a_world_that_rewards_the_mean_return_is_shown(tmp_path):
    earned = {name: value for name, value in DREAM.items() if name not in ("success", "tasks")}
    earned["protocol"] = {name: PROTOCOL[name] for name in ("world", "world_version", "image_size", "steps", "seed")}
    earned["protocol"] |= {"episodes": 50}
    earned |= {"return": 58.1, "low": 50.9, "high": 65.2, "episodes": 50, "length": 58.1, "planner": None}
    earned["baselines"] = {"random": {"return": 16.2, "low": 14.1, "high": 18.3, "episodes": 50, "length": 16.2}}
    earned["heads"] = {"reward_r2": 0.94, "goes_on_at_ends": 0.08, "goes_on_elsewhere": 0.99}
    earned["settings"] = {"controller": {"kind": "evolution"}}
    run = make_run(tmp_path / "run", dream=earned)
    rows, text = rows_of(run), page_of(run).text
    assert ["learned in dreams", "58.1", "50.9 to 65.2", "58"] in rows
    assert ["random actions", "16.2", "14.1 to 18.3", "16"] in rows
    assert "A linear controller, found by CMA-ES, learned" in text
    assert "R² 0.94. The chance to go on is 0.08 at ends and 0.99 elsewhere. Both on held-out" in text
    assert "58.1" in text and "95 % interval 50.9 to 65.2" in text
    assert ("learned in dreams, 50 episodes", "58.1 (50.9 to 65.2)", "random 16.2") in summary_table(
        collect_results(run)
    )


def test_text_is_escaped(tmp_path):
    evil = "<script>alert(1)</script>"
    run = make_run(
        tmp_path / "a<b>&",
        pretrain=PRETRAIN | {"warnings": [evil], "method": evil, "device": evil},
        probe=PROBE | {"scores": {evil: {"pretrained": 0.5}}},
    )
    (run / "config.yaml").write_text(CONFIG + f"name: '{evil}'\n")
    page = page_of(run)
    assert "script" not in {tag for tag, _ in page.tags}
    assert page.text.count(evil) >= 3 and "a<b>&" in page.text


def test_a_figure_that_is_too_large_is_named_and_left_out(run):
    (run / "figures" / "pca.gif").write_bytes(b"GIF89a" + bytes(5 * 2**20))
    text = page_of(run).text
    assert "figures/pca.gif is too large" in text
    assert (run / "report.html").stat().st_size < 400_000


def test_a_folder_that_is_no_run_is_refused(tmp_path):
    with pytest.raises(UserError, match="not a run folder"):
        write_report(tmp_path)


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("probe.json", "{"),
        ("plan.json", "[]"),
        ("plan.json", json.dumps(PLAN | {"schema_version": 2})),
        ("pretrain.json", json.dumps(PRETRAIN | {"misspelt": 1})),
        ("dream.json", '{"success": 0.5}'),
        ("timings.json", "[]"),
        ("config.yaml", "a: ["),
    ],
)
def test_a_damaged_file_is_named(tmp_path, name, content):
    run = make_run(tmp_path / "run")
    (run / name).write_text(content)
    with pytest.raises(UserError, match=re.escape(name)):
        write_report(run)


def test_results_hold_what_programs_look_for(run):
    found = json.loads(collect_results(run).write(run).read_text())
    assert found["probe"]["state_r2"]["supervised"] == 0.8 and found["probe"]["state_r2"]["random_init"] == 0.3
    assert {"success", "low", "high", "baselines", "tasks"} <= found["plan"].keys()
    assert {"method", "steps", "clips_per_second", "effective_rank"} <= found["pretrain"].keys()
    assert found["seconds"] == {"pretrain": 61.5, "probe": 30.0, "plan": 12.0, "dream": 65.0, "total": 168.5}
    assert found["seeds"] == {"pretrain": 7, "probe": 5, "plan": 3, "dream": 3}
    assert (
        found["dream"].items()
        >= (DREAM | {"baselines": found["dream"]["baselines"], "protocol": found["dream"]["protocol"]}).items()
    )
    assert RunResults.read(run) == collect_results(run)
    assert {"python", "torch", "lightning", "numpy", "openjepa", "platform"} <= found["versions"].keys()


def test_timings_of_whole_stages_go_before_those_of_the_verbs(run):
    (run / "timings.json").write_text(json.dumps({"record": 10.0, "pretrain": 70.0}))
    assert collect_results(run).seconds == {
        "pretrain": 70.0,
        "probe": 30.0,
        "plan": 12.0,
        "record": 10.0,
        "dream": 65.0,
        "total": 187.0,
    }


def test_results_are_free_of_nan(tmp_path):
    plan = PLAN | {"distances": [float("inf"), 1.5]}
    run = make_run(tmp_path / "run", pretrain=PRETRAIN | {"effective_rank": float("nan")}, plan=plan)
    text = collect_results(run).write(run).read_text()
    assert "NaN" not in text and "Infinity" not in text
    assert json.loads(text)["pretrain"]["effective_rank"] is None
    assert json.loads(text)["plan"]["distances"] == [None, 1.5]
    page_of(run)


def test_the_mean_and_the_majority_are_the_floor(tmp_path):
    run = make_run(tmp_path / "run", probe=PROBE | {"scores": {"state_r2": {"pretrained": 0.5, "mean": 0.0}}})
    assert collect_results(run).probe["state_r2"] == {"pretrained": 0.5, "floor": 0.0}


def test_a_bad_result_is_reported_like_a_good_one(tmp_path):
    worse = PROBE | {"scores": {"state_r2": {"pretrained": 0.2, "random_init": 0.3}}}
    worse["prediction"] = {"10": PROBE["prediction"]["10"] | {"model": 1.3}}
    lucky = PLAN | {"success": 0.08, "low": 0.04, "high": 0.15}
    text = " ".join(sentences(collect_results(make_run(tmp_path / "run", probe=worse, plan=lucky)), {}))
    assert "training made this worse" in text
    assert "does not beat both" in text
    assert "not clearly better than chance" in text


@pytest.mark.parametrize(("success", "enough"), [(0.5, False), (0.9, True)])
def test_a_reflex_that_does_as_well_as_planning_is_named(tmp_path, success, enough):
    reflex = {"success": success, "low": success - 0.1, "high": success + 0.1, "tasks": 100}
    plan = PLAN | {"success": 0.8, "baselines": PLAN["baselines"] | {"inverse_dynamics": reflex}}
    text = " ".join(sentences(collect_results(make_run(tmp_path / "run", plan=plan)), {}))
    assert ("A reflex is enough" in text) == enough


def test_the_summary_is_a_rectangle_of_text(run):
    rows = summary_table(collect_results(run))
    assert {len(row) for row in rows} == {3}
    assert ("planning success, 100 tasks", "71 % (61 % to 79 %)") in [row[:2] for row in rows]
    assert len(summary_table(collect_results(make_run(run.parent / "bare")))) == 2


def test_the_recipe_of_a_demo_names_the_row_and_labels_share_a_neighbor_score(tmp_path: Path):
    labels = {"class.heavy.knn.balanced": {"pretrained": 0.6, "random_init": 0.5}, "class.heavy.linear.balanced": {}}
    labels["class.bouncy.knn.balanced"] = {"pretrained": 0.8, "random_init": 0.5, "pixels": 0.7}
    run = make_run(tmp_path / "run", probe=PROBE | {"scores": labels})
    (run / "demo.json").write_text('{"method": "vjepa21", "seed": 0}')
    cells = dict(zip(*seeds_table([collect_results(run)]), strict=True))
    assert cells["method"] == "V-JEPA 2.1"
    assert (cells["kNN"], cells["kNN, random init"], cells["kNN, pixels"]) == ("0.70", "0.50", "0.70")


def test_seeds_have_mean_spread_and_range():
    def result(method: str, seed: int, learned: float | None) -> RunResults:
        return RunResults(
            run="run",
            pretrain=PretrainResult.model_validate(PRETRAIN | {"method": method}),
            probe={"state_r2": {"pretrained": learned, "random_init": 0.5}},
            seconds={"total": 100.0 + seed},
            **{name: {} for name in ("prediction", "episodes", "dropped", "seeds", "versions")},
        )

    several = [result("lewm", seed, 0.6 + 0.1 * seed) for seed in range(3)] + [result("vjepa", 0, 0.4)]
    rows = seeds_table(several)
    assert {len(row) for row in rows} == {len(rows[0])}
    cells = dict(zip(rows[0], rows[1], strict=True))
    assert cells["method"] == "LeWM" and cells["seeds"] == "3"
    assert cells["state R²"] == "0.70 ± 0.10 (0.60…0.80)"
    assert cells["gain"] == "0.200 ± 0.100 (0.100…0.300)"
    assert cells["seeds won"] == "3 of 3" and cells["planning success"] == "–"
    assert dict(zip(rows[0], rows[2], strict=True))["seeds won"] == "0 of 1"
    assert dict(zip(*seeds_table([result("lewm", 0, None)]), strict=True))["gain"] == "–"
