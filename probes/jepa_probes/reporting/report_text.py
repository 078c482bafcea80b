"""What the numbers of a run say, in plain sentences. A bad result is told like a good one."""

from collections.abc import Mapping
from typing import Any

from jepa_probes.reporting.results import (
    AGENTS,
    METHODS,
    dream_baselines,
    headline,
    number,
    percent,
    planning_baselines,
    told_of,
)

CLOSE = 0.01  # R²: smaller differences are called none


def sentences(results: Mapping[str, Any], config: Mapping[str, Any]) -> list[str]:
    """One sentence or two for each thing that was measured."""
    parts = [_training(results, config), _state(results), _prediction(results), _planning(results), _dreaming(results)]
    return [part for part in parts if part]


def _training(results: Mapping[str, Any], config: Mapping[str, Any]) -> str:
    p = results.get("pretrain")
    if not p:
        return ""
    method = METHODS.get(p.get("method") or "", p.get("method") or "The method")
    text = f"{method} trained for {p.get('steps')} steps"
    if p.get("seconds") is not None:
        text += f" in {p['seconds']:.0f} s"
    if p.get("clips_per_second") is not None:
        text += f", at {p['clips_per_second']:.0f} clips a second on {p.get('device', 'this machine')}"
    if p.get("effective_rank") is not None:
        width = config.get("encoder", {}).get("width")
        text += f"; its latents spread over about {p['effective_rank']:.0f}"
        text += f" of {width} directions (effective rank)" if width else " directions (effective rank)"
    return text + "."


def _state(results: Mapping[str, Any]) -> str:
    row = results.get("probe", {}).get("state_r2", {})
    learned, before = row.get("pretrained"), row.get("random_init")
    if learned is None:
        return ""
    text = (
        "On held-out episodes, a linear map from the frozen latents reads the true state of the world with "
        f"R² {number(learned, 2)} (1 is perfect, 0 is always guessing the mean)."
    )
    if before is None:
        return text
    gain = learned - before
    if gain > CLOSE:
        text += f" The same encoder before training reaches {number(before, 2)}, so learning added {number(gain, 2)}."
    elif gain < -CLOSE:
        text += f" The same encoder before training reaches {number(before, 2)}: training made this worse."
    else:
        text += f" The same encoder before training reaches {number(before, 2)}: training made no difference here."
    baselines = {
        "raw pixels": "pixels",
        "PCA of pixels": "pca_pixels",
        "an encoder trained on the true state": "supervised",
    }
    known = [f"{label} {number(row[key], 2)}" for label, key in baselines.items() if row.get(key) is not None]
    return text + (f" Beside it: {', '.join(known)}." if known else "")


def _prediction(results: Mapping[str, Any]) -> str:
    scores = results.get("prediction") or {}
    if not scores:
        return ""
    ahead = max(scores, key=int)
    s = scores[ahead]
    model, identity, shuffled = (s.get(name) for name in ("model", "identity", "shuffled"))
    if model is None or identity is None or shuffled is None:
        return ""
    steps = "One latent step" if ahead == "1" else f"{ahead} latent steps"
    text = f"{steps} ahead, its squared error is {number(model, 2)}"
    baselines = (
        f"{number(identity, 2)} if nothing moved, and {number(shuffled, 2)} for the same model told other actions"
    )
    if model < min(identity, shuffled):
        return f"{text}, against {baselines}: it uses the actions it is given."
    return f"{text}, which does not beat both references ({baselines})."


def _planning(results: Mapping[str, Any]) -> str:
    p = results.get("plan")
    if not p or p.get("success") is None:
        return ""
    text = (
        f"Given only a picture of the goal, it planned its way there in {percent(p['success'])} of {p.get('tasks')} "
        f"held-out tasks (95 % interval {percent(p.get('low'))} to {percent(p.get('high'))})"
    )
    baselines = [f"{AGENTS[agent]}: {percent(share)}" for agent, share in planning_baselines(p).items()]
    text += f"; {', '.join(baselines)}." if baselines else "."
    chance = p.get("baselines", {}).get("random")
    if chance and p.get("low") is not None and p["low"] <= chance["high"]:
        text += " That is not clearly better than chance."
    return text


def _dreaming(results: Mapping[str, Any]) -> str:
    d = results.get("dream")
    if not d or d.get(headline(d)) is None:
        return ""
    found, low, high = (told_of(d, key) for key in (headline(d), "low", "high"))
    if headline(d) == "return":
        text = f"A controller that learned in its dreams alone earned {found} an episode of the world, on average"
    else:
        text = f"A controller that learned in its dreams alone solved {found} of {d.get('tasks')} held-out tasks"
    text += f" (95 % interval {low} to {high})"
    baselines = [f"{label} {told}" for label, told in dream_baselines(d).items()]
    text += f"; beside it: {', '.join(baselines)}." if baselines else "."
    whole = d.get("returns", {}).get("task")
    if whole:
        text += f" A dream of {whole['steps']} latent steps was worth {number(whole['dream'], 1)}"
        text += f", and the world {number(whole['world'], 1)}."
    return text
