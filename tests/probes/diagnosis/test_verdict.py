"""The paragraph of a diagnosis, by rules, on made-up numbers."""

from typing import Any

import pytest

from jepa_probes.diagnosis.config import DiagnoseConfig
from jepa_probes.diagnosis.result import CostQuality, Diagnosis, Exploitation, OpenLoop, ReadOut, Rung
from jepa_probes.diagnosis.table import report
from jepa_probes.diagnosis.verdict import conclude
from jepa_probes.planning.paired_test import mcnemar
from jepa_probes.planning.tasks import Protocol, wilson

TASKS = 50


def rung(solved: int, base: int, tasks: int = TASKS) -> Rung:
    """Whoever solves more solves all that the agent solves as configured, and the other way round."""
    share, low, high = wilson(solved, tasks)
    gained, lost = max(0, solved - base), max(0, base - solved)
    p = mcnemar(gained, lost)
    return Rung(success=share, low=low, high=high, tasks=tasks, gained=gained, lost=lost, p_value=p)


def row(quantity: str, imagined: float, read: float = 0.02, still: float = 0.3, horizon: int = 5) -> OpenLoop:
    return OpenLoop(
        quantity=quantity, unit="", horizon=horizon, imagined=imagined, still=still, read=read, on_states=0.01
    )


def found(base: int = 30, r2: float = 0.98, speed: float = 0.9, imagined: float = 0.03, **more: Any) -> Diagnosis:
    """50 tasks, and how many of them are solved; by default no substitution gains anything."""
    cost = {"correlation": more.pop("correlation", 0.9), "recorded_rank": more.pop("recorded_rank", 0.0)}
    beyond = more.pop("plans", 0.01)
    names = ("replan", "refine", "search", "replan_search", "goal_now", "readout", "state_dynamics")
    solved = {name: more.pop(name, base) for name in names} | {"simulator": more.pop("simulator", 50)} | more
    ladder = {"configured": rung(base, base)} | {
        name: rung(count, base) for name, count in solved.items() if count is not None
    }
    reads = {"puck.position": r2, "puck.velocity": speed}
    return Diagnosis(
        weakest="none",
        verdict="",
        ladder=ladder,
        left_out={},
        kinds={"puck.position": "position", "puck.velocity": "velocity"},
        goal_quantities=tuple(reads),
        readout={name: {"pretrained": ReadOut(linear=score, mlp=score)} for name, score in reads.items()},
        open_loop=[row("puck.position", imagined)],
        cost=CostQuality(starts=9, candidates=99, spread=0.3, true_spread=0.3, **cost),
        exploitation=Exploitation(plans=beyond, recorded_actions=0.01, distance=1.0),
        protocol=Protocol("billiards-easy", 1, 32, TASKS, 40, 0.08, 0.3, 0),
        config=DiagnoseConfig().model_dump(mode="json"),
        seconds=1.0,
        cpu_seconds=1.0,
    )


@pytest.mark.parametrize(
    ("numbers", "weakest"),
    [
        ({"base": 49}, "none"),
        ({"base": 0, "simulator": 0, "expert": 0}, "tasks"),
        ({"base": 30, "simulator": 31, "expert": 31}, "none"),  # the tasks allow no more
        ({"replan": 46, "search": 35, "replan_search": 48}, "replanning"),
        ({"replan": 35, "search": 46, "replan_search": 47}, "search"),
        ({"refine": 48, "search": 49, "replan_search": 50}, "refinement"),
        ({"base": 44, "refine": 50, "state_dynamics": 44, "imagined": 0.1}, "refinement"),
        ({"replan": 38, "search": 38, "replan_search": 49}, "replanning and search"),
        ({"base": 3, "simulator": 6, "expert": 49}, "search"),
        ({"base": 3, "simulator": 6}, "search"),  # nobody knows what can be solved
        ({"base": 5, "search": 9, "replan": None, "replan_search": None, "simulator": 50}, "data"),
        ({"base": 20, "readout": 44, "state_dynamics": 45}, "metric"),  # it replaces less
        ({"base": 20, "readout": 46, "state_dynamics": 40}, "metric"),
        ({"base": 39, "goal_now": 49, "state_dynamics": 49}, "goal"),
        # a model for half an hour, seed 2: what replaces everything gains one task more than what replaces the cost
        ({"base": 31, "goal_now": 45, "readout": 47, "state_dynamics": 48}, "goal"),
        ({"base": 31, "goal_now": 36, "readout": 47, "state_dynamics": 48}, "metric"),
        ({"base": 31, "goal_now": 36, "readout": 37, "state_dynamics": 48}, "model"),
        ({"base": 20, "goal_now": 28, "state_dynamics": 46}, "model"),
        ({"base": 20, "state_dynamics": 46}, "model"),
        ({"base": 20, "state_dynamics": 46, "r2": 0.3}, "encoder"),
        ({"base": 20, "state_dynamics": 46, "imagined": 0.5}, "dynamics"),
        ({"base": 20, "state_dynamics": 46, "imagined": 0.1}, "dynamics"),
        ({"base": 20, "state_dynamics": 26, "simulator": 50}, "data"),
        ({"base": 20, "state_dynamics": 48, "replan_search": 30, "imagined": 0.1}, "dynamics"),
        ({"base": 30, "simulator": None, "expert": 48, "r2": 0.1, "state_dynamics": None}, "encoder"),
    ],
)
def test_the_link_with_the_biggest_gain_is_named(numbers: dict[str, Any], weakest: str) -> None:
    link, verdict = conclude(found(**numbers))
    assert link == weakest
    assert verdict.startswith("As configured the agent solves ")


def test_nothing_binds_where_success_equals_the_ceiling() -> None:
    assert "Nothing binds: success equals the ceiling, as far as 50 tasks tell." in conclude(found(base=50))[1]


def test_an_error_that_true_latents_have_too_is_not_laid_on_the_dynamics() -> None:
    blurred = found(base=20, state_dynamics=46)
    rows = [row("puck.position", imagined=0.26, read=0.25, still=0.2)]
    assert conclude(blurred.model_copy(update={"open_loop": rows}))[0] == "model"
    lost = [row("puck.position", imagined=0.4, read=0.25, still=0.2)]
    assert conclude(blurred.model_copy(update={"open_loop": lost}))[0] == "dynamics"


def test_what_may_be_chance_is_no_gain() -> None:
    few = dict.fromkeys(("replan", "search", "replan_search", "state_dynamics"), 42)
    weakest, verdict = conclude(found(base=40, **few, simulator=44, expert=46, imagined=0.5))
    assert weakest == "dynamics" and "No single substitution gains more than chance would." in verdict


@pytest.mark.parametrize(
    ("numbers", "told"),
    [
        ({"speed": 0.2}, "Hardly read off one latent: puck.velocity (R² 0.20)."),
        ({"imagined": 0.5, "replan": 50}, "Imagined puck.position is worse than if nothing moved, 5 step(s) ahead."),
        ({"correlation": 0.1}, "The latent cost says little of the true one (rank correlation 0.10)."),
        ({"recorded_rank": 0.4}, "40 % of random plans seem cheaper than the actions that led to the goal."),
        ({"inverse_dynamics": 45}, "Inverse dynamics solve 90 % without planning: plans can start from them"),
        ({"base": 44, "replan": 48}, "More search may help as well, which 50 tasks are too few to tell"),
        ({"plans": 0.6}, "Plans exploit the model: 60 % of what they imagine lies beyond the recordings (1 %"),
    ],
)
def test_what_else_is_amiss_is_reported(numbers: dict[str, Any], told: str) -> None:
    assert told in conclude(found(**numbers))[1]
    assert told not in conclude(found())[1]


def test_the_tables_show_every_number_and_what_was_left_out() -> None:
    bare = found(replan=None).model_copy(
        update={"verdict": "This binds.", "left_out": {"replan": "it plans again as soon as it can already"}}
    )
    text = "\n".join(report(bare))
    for part in ("as configured", "60 %", "with 10 times as many plans", "puck.velocity", "nothing moves", "0.90"):
        assert part in text
    assert "planning again after every step: left out, it plans again as soon as it can already" in text
    assert text.endswith("This binds.")
