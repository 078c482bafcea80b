"""What the numbers of a run say, in plain sentences. Bad results are reported like good ones."""

from collections.abc import Mapping
from typing import Any

from jepa_probes.reporting.results import (
    AGENTS,
    METHODS,
    RunResults,
    dream_baselines,
    number,
    percent,
    planning_baselines,
    score_text,
)

CLOSE = 0.01  # R²: smaller differences are called none


def sentences(results: RunResults, config: Mapping[str, Any]) -> list[str]:
    """One sentence or two for each thing that was measured."""
    parts = [_training(results, config), _state(results), _prediction(results), _planning(results), _dreaming(results)]
    return [part for part in parts if part]


def _training(results: RunResults, config: Mapping[str, Any]) -> str:
    p = results.pretrain
    if not p:
        return ""
    text = f"{METHODS.get(p.method, p.method)} trained for {p.steps} steps in {p.seconds:.0f} s"
    if p.clips_per_second is not None:
        text += f", at {p.clips_per_second:.0f} clips a second on {p.device}"
    if p.effective_rank is not None:
        width = config.get("encoder", {}).get("width")
        text += f"; its latents spread over about {p.effective_rank:.0f}"
        if width:
            text += f" of {width}"
        text += " directions (effective rank)"
    return text + "."


def _state(results: RunResults) -> str:
    row = results.probe.get("state_r2", {})
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
    if known:
        text += f" Baselines: {', '.join(known)}."
    for episodes, few in results.few_labels().items():
        others = [f"{label} {number(few[key], 2)}" for label, key in baselines.items() if few.get(key) is not None]
        text += f" With labels for only {episodes} episodes, it is {number(few.get('pretrained'), 2)}"
        text += f" ({', '.join(others)})." if others else "."
    return text


def _prediction(results: RunResults) -> str:
    scores = results.prediction
    if not scores:
        return ""
    ahead = max(scores, key=int)
    error = scores[ahead]
    if error.model is None or error.identity is None or error.shuffled is None:
        return ""
    steps = "One latent step" if ahead == "1" else f"{ahead} latent steps"
    text = f"{steps} ahead, its squared error is {number(error.model, 2)}"
    baselines = (
        f"{number(error.identity, 2)} if nothing moved, and "
        f"{number(error.shuffled, 2)} for the same model given other actions"
    )
    if error.model < min(error.identity, error.shuffled):
        return f"{text}, against {baselines}: it uses the actions it is given."
    return f"{text}, which does not beat both references ({baselines})."


def _planning(results: RunResults) -> str:
    p = results.plan
    if not p:
        return ""
    text = (
        f"Given only an image of the goal, it planned its way there in {percent(p.success)} of {p.tasks} "
        f"held-out tasks (95 % interval {percent(p.low)} to {percent(p.high)})"
    )
    baselines = [f"{AGENTS[agent]}: {percent(share)}" for agent, share in planning_baselines(p).items()]
    if baselines:
        text += f"; {', '.join(baselines)}"
    text += "."
    if "random" in p.baselines and p.low <= p.baselines["random"].high:
        text += " That is not clearly better than chance."
    reflex = p.baselines.get("inverse_dynamics")
    if reflex is not None and reflex.success >= p.success:
        text += " A reflex is enough for these tasks: inverse dynamics solves as many, without planning."
    return text


def _dreaming(results: RunResults) -> str:
    d = results.dream
    if not d or d.value is None:
        return ""
    score = score_text(d, d.value)
    if d.tasks is None:
        text = f"A controller that learned in its dreams alone collected a mean return of {score} in the world"
    else:
        text = f"A controller that learned in its dreams alone solved {score} of {d.tasks} held-out tasks"
    text += f" (95 % interval {score_text(d, d.low)} to {score_text(d, d.high)})"
    baselines = [f"{label} {score}" for label, score in dream_baselines(d).items()]
    if baselines:
        text += f"; baselines: {', '.join(baselines)}"
    text += "."
    if whole := d.returns.get("task"):
        text += f" Over {whole.steps} latent steps the return was {number(whole.dream, 1)} in the dream"
        text += f" and {number(whole.world, 1)} in the world."
    return text
