"""Many planners on the same tasks: what is compared, what is pooled, and what is drawn."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from jepa.cli import main
from jepa.cli.curves import curves
from jepa.config import UserError, load
from jepa.planners import PLANNERS
from jepa_probes.planning.config import PlannersConfig
from jepa_probes.planning.planner_comparison import PlannerComparison, PlannerScore, label_of, pooled, table
from jepa_probes.planning.result import Success
from jepa_probes.planning.tasks import Protocol
from jepa_probes.reporting.planner_figure import draw_planners

SHIPPED = sorted((Path(__file__).parents[3] / "configs" / "planners").glob("*.yaml"))


def score(samples: int, solved: list[bool], ms: float, base: float) -> PlannerScore:
    return PlannerScore(
        **dict(Success.of(np.array(solved))),
        planner={"kind": "cem", "samples": samples},
        label=f"cem samples {samples}",
        solved=solved,
        cpu_ms=ms / 4,
        cpu_ms_alone=ms,
        cheaper=base / ms,
        cheaper_alone=base / ms,
        model_calls=samples,
        differentiated_calls=0,
        p_value=1.0,
    )


def comparison(few: list[bool], some: list[bool], many: list[bool]) -> PlannerComparison:
    scores = [score(300, many, 100.0, 100.0), score(4, few, 1.0, 100.0), score(30, some, 5.0, 100.0)]
    protocol = Protocol("two-rooms", 1, 64, len(many), 40, 0.07, 0.07, seed=0)
    return PlannerComparison(scores=scores, protocol=protocol, episodes=4, rounds=1, seconds=1.0)


def test_the_cheapest_is_the_one_that_takes_least_of_those_that_solve_as_much() -> None:
    found = comparison([True, False], [True, True], [True, True])
    best = found.cheapest()
    assert best is not None and best.label == "cem samples 30"
    assert "cem samples 30 solves no fewer tasks than the baseline, 20.0 times cheaper" in table(found)[-1]
    none = comparison([False, False], [True, False], [True, True])
    assert none.cheapest() is None and table(none)[-1] == "none solves as much as the baseline"


def test_runs_are_pooled_by_their_tasks(tmp_path: Path) -> None:
    runs = [comparison([False] * 10, [True] * 10, [True] * 10), comparison([True] * 10, [True] * 10, [True] * 10)]
    base, few, some = pooled(runs)
    assert (few.success, few.tasks, few.solved) == (0.5, 20, [False] * 10 + [True] * 10)
    assert few.p_value == pytest.approx(2 / 2**10) and some.p_value == 1 and base.success == 1
    other = runs[1].model_copy(update={"scores": runs[1].scores[:2]})
    with pytest.raises(UserError, match="the comparisons are of different planners"):
        pooled([runs[0], other])


def test_planners_of_several_runs_are_drawn_with_a_panel_for_each_world(tmp_path: Path) -> None:
    rooms = [comparison([False], [True], [True]), comparison([True], [True], [True])]
    other = replace(rooms[0].protocol, world="billiards-easy")
    for number, found in enumerate([*rooms, rooms[0].model_copy(update={"protocol": other})]):
        (tmp_path / str(number)).mkdir()
        found.write(tmp_path / str(number))
    for name in ("figure.svg", "again.svg", "figure.png"):
        curves([tmp_path / str(number) for number in range(3)], tmp_path / name, planners=True)
    drawn = (tmp_path / "figure.svg").read_text()
    assert drawn.startswith("<?xml") and drawn.count("two-rooms") == drawn.count("billiards-easy") > 0
    assert "baseline" in drawn and (tmp_path / "again.svg").read_text() == drawn
    assert (tmp_path / "figure.png").read_bytes().startswith(b"\x89PNG")
    with pytest.raises(UserError, match=r"expected a file that ends in \.svg or \.png"):
        draw_planners(rooms, tmp_path / "figure.jpg")


def test_the_shipped_comparison_has_every_planner_and_the_named_baseline() -> None:
    assert SHIPPED
    for path in SHIPPED:
        config = load(path, PlannersConfig)
        assert {planner.kind for planner in config.planners} == set(PLANNERS)
        assert label_of(config.baseline) == "cem samples 300, elites 30, iterations 30"
        assert path.name in path.read_text().splitlines()[0], "the header names the command"


@pytest.mark.usefixtures("one_thread")
def test_planners_are_compared_on_the_tasks_of_a_run(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    def jepa(*words: object) -> str:
        with pytest.raises(SystemExit) as ended:
            main([str(word) for word in words])
        told = capsys.readouterr()
        assert ended.value.code == 0, told.err
        return told.out

    jepa("data", "record", "two-rooms", tmp_path / "data", "--episodes", 12, "--frames", 12, "--image-size", 32)
    (tmp_path / "train.yaml").write_text(
        f"run: {tmp_path / 'run'}\n"
        f"data: {{shards: {tmp_path / 'data'}, batch_size: 4, clip_frames: 6, cache_mib: 50}}\n"
        "encoder: {kind: conv, width: 8, channels: 8, hidden: 32}\n"
        "method: {kind: lewm, directions: 16, predictor: {hidden: 32}}\n"
        "trainer: {steps: 3, checkpoint_every: 10, device: cpu}\n"
    )
    jepa("pretrain", tmp_path / "train.yaml")
    (tmp_path / "planners.yaml").write_text(
        "baseline: {kind: cem, samples: 40, elites: 4, iterations: 8}\nrounds: 1\nepisodes: 2\n"
        "planners: [{kind: random, samples: 3}, {kind: gradient, steps: 2, starts: 1}]\n"
    )
    told = jepa(
        *("plan", tmp_path / "run", "--planners", tmp_path / "planners.yaml", "--out", tmp_path / "out"),
        *("tasks=4", "steps=8", "horizon=2", "replan_every=2"),
    )
    found = PlannerComparison.read(tmp_path / "out")
    assert [s.label for s in found.scores] == [
        "cem samples 40, elites 4, iterations 8",
        "random samples 3",
        "gradient steps 2, starts 1",
    ]
    assert [s.model_calls for s in found.scores] == [2 * 40 * 8, 2 * 3, 2 * 3]
    assert [s.differentiated_calls for s in found.scores] == [0, 0, 2 * 2]
    assert all(len(s.solved) == 4 and s.cpu_ms_alone > 0 for s in found.scores)
    assert found.scores[0].cheaper == 1 and found.scores[1].cheaper_alone > 1
    assert "random samples 3" in told and (tmp_path / "out" / "figures" / "planners.svg").is_file()
