"""From the numbers of a diagnosis to the link that binds, and what to try. Rules, in the order of what a remedy costs:

    0. no agent solves any: the tasks
    1. success is as good as the ceiling: nothing binds
    2. the planner fails even in the true world, where others succeed: the search binds
    3. more search, or planning more often, closes most of the gap: that binds, and takes no training
    4. else the substitution that gains most: the goal image (as far as the goal is not about what it shows), the
       metric, or what stands between true states and latents (the encoder, if a quantity of the goal is not read off
       its latents; else the dynamics), or the recordings, if dynamics on true states fail too. Of the first three,
       each of which includes those before it, the first that gains LARGE_SHARE as much

A gain counts if it is CLEAR: not a matter of a few tasks, nor of chance (McNemar's test on the same tasks).
"""

from collections.abc import Iterator

from jepa_probes.diagnosis.quantities import with_unit
from jepa_probes.diagnosis.result import Diagnosis, OpenLoop, Rung
from jepa_probes.reporting.results import number

KNOWN = {"expert", "replay"}  # who tells what can be solved
SMALL = 0.05  # of the tasks
LIKELY = 0.1  # p value
LARGE_SHARE = 2 / 3  # of the gap to the ceiling
UNREAD = 0.5  # R² of a quantity that planning can not count on
LOOSE = 0.5  # correlation of latent and true cost
NOISE = 1.1  # times the error of the reading: as much may be said of true latents
FEW = 10  # tasks
RARE = 0.05  # recorded actions among random ones, and what is beyond the recordings

SEARCHES = {
    "replanning": "replan",
    "refinement": "refine",
    "search": "search",
    "replanning and search": "replan_search",
}

LESS = ("goal", "metric", "model")  # what replaces less than those after it

TRY = {
    "replanning": "Plan again sooner: replan_every=1.",
    "refinement": "Refine what the sampler finds by gradient: planner.kind=hybrid, with this planner as its sampler. A "
    "shorter horizon has fewer actions to find.",
    "search": "Search more: raise planner.samples and planner.iterations, refine by gradient (planner.kind=hybrid), or "
    "start plans from inverse dynamics (warm_start=inverse_dynamics).",
    "replanning and search": "Search more and plan again sooner: replan_every=1 with more planner.samples, or "
    "planner.kind=hybrid.",
    "goal": "Make what actions move count more in the latents: raise method.inverse_weight and pretrain again, or plan "
    "with costs on states (`costs: [{kind: state, …}]`).",
    "metric": "The latents know where things are, and their distance does not say so: plan with costs on states "
    "(`costs: [{kind: state, …}]`), or train longer.",
    "encoder": "Train longer, at a higher image_size or with more data in which it changes; `supervised=true` tells "
    "whether the same network can learn it at all.",
    "dynamics": "Train the predictor longer or wider, on longer clips (open loop), and look no farther than it is "
    "right: a shorter horizon.",
    "model": "Train longer, and compare the next diagnosis with this one.",
    "data": "Record more, with actions like those that the tasks need, or train on it for longer.",
    "tasks": "Give them more steps, or goals that are nearer.",
    "none": "Harder tasks (goals farther away, fewer steps) would tell more.",
}


def conclude(result: Diagnosis) -> tuple[str, str]:
    """The link that binds, and a paragraph about it."""
    weakest, reason = _weakest(result)
    return weakest, " ".join([reason, TRY[weakest], *_remarks(result, weakest)])


def ceiling(result: Diagnosis) -> float:
    """Share of the tasks that can be solved: the best result over all tasks, or 1 where no expert exists."""
    if not is_known(result):
        return 1.0
    tasks = result.ladder["configured"].tasks
    return max(rung.success for rung in result.ladder.values() if rung.tasks == tasks)


def is_known(result: Diagnosis) -> bool:
    """Whether anybody tells how many of the tasks can be solved."""
    return not KNOWN.isdisjoint(result.ladder)


def is_clear(rung: Rung) -> bool:
    """Whether it solves more tasks than the agent as configured, and not by chance."""
    return (rung.gained - rung.lost) / rung.tasks >= SMALL and rung.p_value <= LIKELY


def _weakest(result: Diagnosis) -> tuple[str, str]:
    ladder = result.ladder
    base = ladder["configured"].success
    top = ceiling(result)
    opening = f"As configured the agent solves {_percent(base)} of the tasks"
    opening += f", of {_percent(top)} that can be solved." if is_known(result) else "; no script says how many can be."
    if not top:
        return "tasks", f"{opening} No agent solves any of them, not even the expert."
    unclear = not any(is_clear(rung) for rung in ladder.values())
    if top - base < SMALL or (unclear and top - base < 2 * SMALL):
        tasks = ladder["configured"].tasks
        return "none", f"{opening} Nothing binds: success equals the ceiling, as far as {tasks} tasks tell."
    simulator = ladder.get("simulator")
    rungs = {link: ladder[name] for link, name in SEARCHES.items() if name in ladder}
    clear = {link: _gain(rung) for link, rung in rungs.items() if is_clear(rung)}
    if clear and max(clear.values()) >= LARGE_SHARE * (top - base):
        as_good = [link for link, gain in clear.items() if gain >= max(clear.values()) - SMALL]
        link = as_good[0]  # the simplest that does as well as the best
        return link, f"{opening} The search binds, not the model: {_searched(result)}."
    if simulator is not None and top - simulator.success >= 0.5 * (top - base):
        return "search", (
            f"{opening} The search binds: even with true states in the true world this planner solves "
            f"{_percent(simulator.success)}."
        )
    return _weakest_of_the_model(result, opening, max(clear, key=clear.__getitem__, default=None))


def _weakest_of_the_model(result: Diagnosis, opening: str, search: str | None) -> tuple[str, str]:
    """Of what stands between the images and the true world."""
    ladder = result.ladder
    goal = ladder.get("goal_now")
    metric = ladder.get("readout")
    states = ladder.get("state_dynamics")
    simulator = ladder.get("simulator")
    gains: dict[str, float] = {}
    if search is not None:
        gains[search] = _gain(ladder[SEARCHES[search]])
    if goal is not None and is_clear(goal):
        gains["goal"] = _gain(goal)
    if metric is not None and is_clear(metric):
        gains["metric"] = _gain(metric)
    if states is not None and is_clear(states):
        gains["model"] = _gain(states)
    if simulator is not None and is_clear(simulator) and states is not None:
        gains["data"] = _gain(simulator) - max(0.0, _gain(states))
    if not gains or max(gains.values()) < SMALL:
        where = _suspect(result)
        return where, f"{opening} No single substitution gains more than chance would. {_evidence(result, where)}"
    link = max(gains, key=gains.__getitem__)
    if link in LESS:  # what replaces less, and closes most of the same gap, is what binds
        link = next(each for each in LESS if gains.get(each, 0.0) >= LARGE_SHARE * gains[link])
    if link == search:
        return link, f"{opening} Of what was replaced, the search gains most: {_searched(result)}."
    if link == "goal":
        return link, (
            f"{opening} The goal image binds: its latent also holds what the goal is not about. With all of that as it "
            f"is now, it is {_percent(ladder['goal_now'].success)}."
        )
    if link == "metric":
        return link, f"{opening} The metric binds: by the distance of states read off the same latents it is " + (
            f"{_percent(ladder['readout'].success)}."
        )
    if link == "data":
        return link, (
            f"{opening} The recordings bind, or the time spent on them: dynamics learned on true states solve "
            f"{_percent(ladder['state_dynamics'].success)}, the true world {_percent(ladder['simulator'].success)}."
        )
    where = _suspect(result)
    return where, (
        f"{opening} The model binds: with true states and dynamics learned on them, from the same recordings, it is "
        f"{_percent(ladder['state_dynamics'].success)}. {_evidence(result, where)}"
    )


def _searched(result: Diagnosis) -> str:
    texts = {
        "replan": "planning again after every step solves {}",
        "refine": "plans refined by gradient solve {}",
        "search": "more plans solve {}",
        "replan_search": "more plans after every step {}",
    }
    rungs = result.ladder
    return ", ".join(text.format(_percent(rungs[name].success)) for name, text in texts.items() if name in rungs)


def unread(result: Diagnosis) -> list[str]:
    """Quantities of the goal that the encoder drops: not even an MLP can decode them from the latents."""
    scores = {name: result.readout[name]["pretrained"].mlp for name in result.goal_quantities}
    return [name for name, score in scores.items() if score is not None and score < UNREAD]


def unread_places(result: Diagnosis) -> list[str]:
    """Of these what one frame can show: a velocity need not be there."""
    return [name for name in unread(result) if result.kinds[name] != "velocity"]


def worse_than_still(result: Diagnosis) -> list[OpenLoop]:
    """Quantities of the goal that imagination knows less of than who claims that nothing moves."""
    return [
        row
        for row in result.open_loop
        if row.quantity in result.goal_quantities
        and None not in (row.imagined, row.still)
        and (row.imagined or 0) > max(row.still or 0, NOISE * (row.read or 0))
    ]


def drift(result: Diagnosis) -> list[OpenLoop]:
    """Places and angles of the goal that imagination is far more wrong about than the reading itself."""
    horizon = result.config["plan"]["horizon"]
    return [
        row
        for row in result.open_loop
        if row.quantity in result.goal_quantities
        and row.horizon <= horizon
        and None not in (row.imagined, row.read)
        and (row.imagined or 0) > 2 * (row.read or 0)
    ]


def _suspect(result: Diagnosis) -> str:
    """Encoder, dynamics, or the model as a whole."""
    if unread_places(result):
        return "encoder"
    if worse_than_still(result) or drift(result):
        return "dynamics"
    return "model"


def _evidence(result: Diagnosis, where: str) -> str:
    if where == "encoder":
        return f"The encoder drops quantities that define the goal: {_scores(result, unread_places(result))}."
    if where == "dynamics":
        row = (worse_than_still(result) or drift(result))[0]
        return (
            f"The encoder holds the goal, and the dynamics lose it: after {row.horizon} imagined steps {row.quantity} "
            f"is off by {with_unit(row.imagined, row.unit)} ({with_unit(row.read, row.unit)} on true latents, "
            f"{with_unit(row.still, row.unit)} if nothing moved)."
        )
    return "The encoder holds the goal, and the dynamics keep it about as well as it can be read."


def _remarks(result: Diagnosis, weakest: str) -> Iterator[str]:
    tasks = result.ladder["configured"].tasks
    if tasks < FEW:
        yield f"{tasks} tasks are too few to tell anything: raise `tasks`."
    names = [name for name in unread(result) if result.kinds[name] == "velocity" or weakest != "encoder"]
    if names:
        yield f"Hardly read off one latent: {_scores(result, names)}."
    if weakest != "dynamics" and (rows := worse_than_still(result)):
        yield f"Imagined {rows[0].quantity} is worse than if nothing moved, {rows[0].horizon} step(s) ahead."
    cost = result.cost
    far = result.exploitation
    if cost.correlation is not None and cost.correlation < LOOSE:
        yield f"The latent cost says little of the true one (rank correlation {number(cost.correlation, 2)})."
    if cost.recorded_rank is not None and cost.recorded_rank > RARE:
        yield f"{_percent(cost.recorded_rank)} of random plans seem cheaper than the actions that led to the goal."
    if far.plans is not None and far.plans > max(RARE, 2 * (far.recorded_actions or 0)):
        yield (
            f"Plans exploit the model: {_percent(far.plans)} of what they imagine lies beyond the recordings "
            f"({_percent(far.recorded_actions or 0)} under recorded actions)."
        )
    if weakest != "none":
        yield from _cheap_remedies(result, weakest)


def _cheap_remedies(result: Diagnosis, weakest: str) -> Iterator[str]:
    """What takes no training, and may help as well."""
    ladder = result.ladder
    gap = ceiling(result) - ladder["configured"].success
    unsure = [name for name in SEARCHES.values() if name in ladder and not is_clear(ladder[name])]
    promising = [name for name in unsure if _gain(ladder[name]) >= LARGE_SHARE * gap]
    if promising and weakest not in SEARCHES:
        tasks = ladder[promising[0]].tasks
        yield f"More search may help as well, which {tasks} tasks are too few to tell: raise search_tasks."
    inverse = ladder.get("inverse_dynamics")
    if inverse and is_clear(inverse) and result.config["plan"]["warm_start"] != "inverse_dynamics":
        yield (
            f"Inverse dynamics solve {_percent(inverse.success)} without planning: plans can start from them "
            "(warm_start=inverse_dynamics)."
        )


def _scores(result: Diagnosis, names: list[str]) -> str:
    return ", ".join(f"{name} (R² {number(result.readout[name]['pretrained'].mlp, 2)})" for name in names)


def _gain(rung: Rung) -> float:
    """In the share of tasks that are solved, on the tasks that both were given."""
    return (rung.gained - rung.lost) / rung.tasks


def _percent(share: float) -> str:
    return f"{100 * share:.0f} %"
