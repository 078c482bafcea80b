"""All probes on all representations: one table of scores, every pretrained number beside its baselines.

rows     state_r2                                  mean R² of the groups of the headline; without one, see state.py
         state_r2.N_episodes                       the same, of N labelled episodes, see few_labels.py
         state.GROUP[.occluded]                    mean R² of the states of a group, state.py
         state.NAME                                R² of a state
         class.LABEL.PROBE.accuracy | .balanced    of every classifier that is asked for: linear, attentive, knn, …
         spatial.KIND.MEASURE                      of masks, depth and keypoints, see dense/readout.py
columns  pretrained, random_init, pixels, pca_pixels, supervised, and `floor`: the mean state, the majority class
"""

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from jaxtyping import Int
from torch import Tensor

from jepa_probes.probing.base import ClassProbe
from jepa_probes.probing.dense.readout import dense_rows
from jepa_probes.probing.dense.targets import DenseTargets
from jepa_probes.probing.features import Features
from jepa_probes.probing.few_labels import few_label_rows
from jepa_probes.probing.labels import Task, accuracies, classify, make_task
from jepa_probes.probing.state import StateScores, find_targets, fit_state, mean_state

logger = logging.getLogger(__name__)

PRETRAINED = "pretrained"
PIXELS = "pixels"
PCA_PIXELS = "pca_pixels"
FLOOR = "floor"


@dataclass
class ProbeTable:
    """Scores by row and column of the table, and what is needed to judge them.

    Attributes:
        scores: row -> column -> score; None where there are too few samples.
        chosen: column -> what was chosen on held-out training episodes (penalties, k).
        counts: clips, scored and left-out samples.
    """

    scores: dict[str, dict[str, float | None]] = field(default_factory=dict)
    chosen: dict[str, dict[str, Any]] = field(default_factory=dict)
    counts: dict[str, Any] = field(default_factory=dict)

    def put(self, column: str, rows: Mapping[str, float | None]) -> None:
        for row, value in rows.items():
            self.scores.setdefault(row, {})[column] = value


def score_features(
    features: Mapping[str, tuple[Features, Features]],
    *,
    classifiers: Sequence[ClassProbe],
    labels: Sequence[str] | None = None,
    headline: Sequence[str] | None = None,
    few_episodes: Sequence[int] = (),
    dense: DenseTargets | None = None,
    seed: int = 0,
) -> ProbeTable:
    """Every probe on every representation (training features, test features); all of the same clips.

    Args:
        headline: groups of states whose mean R² is `state_r2`; None: as in state.py.
        few_episodes: the state is also read by maps fitted to so many training episodes.
        dense: made the targets in `Features.spatial`; None: there are none.

    Raises:
        UserError: there are fewer training episodes than `few_episodes`.
    """
    results = ProbeTable()
    train, test = next(iter(features.values()))
    names = sorted(train.labels.keys() & test.labels.keys()) if labels is None else labels
    tasks = [task for name in names if (task := make_task(name, train, test)) is not None]
    for name in sorted(set(names) - {task.name for task in tasks}):
        logger.info(f"label {name}: not probed, it has fewer than two classes here")
    results.counts = {"clips": {"train": len(train), "test": len(test)}}
    results.counts["label_dropped"] = {t.name: t.dropped for t in tasks}
    with_states = bool(find_targets(train.state_names))
    if with_states:
        blind = mean_state(train)
        floor = blind.score(test)
        infinite = blind.score(train).infinite
        results.put(FLOOR, _state_rows(floor, headline))
        results.counts |= {"state": floor.samples, "state_dropped": floor.dropped, "occluded": floor.occluded}
        results.counts["state_infinite"] = {"train": infinite, "test": floor.infinite}
        for name in infinite | floor.infinite:
            counted = f"{infinite.get(name, 0)} in training and {floor.infinite.get(name, 0)} in testing"
            logger.info(f"state {name}: infinite at some latent steps, which are left out ({counted})")
    for task in tasks:
        for classifier in classifiers:
            results.put(FLOOR, _class_rows(classifier, task, task.majority()))
    for column, (train, test) in features.items():
        chosen = results.chosen.setdefault(column, {})
        if with_states:
            probe = fit_state(train, seed=seed)
            chosen["ridge_penalty"] = probe.penalties
            results.put(column, _state_rows(probe.score(test), headline))
        for task in tasks:
            results.put(column, _classify(classifiers, task, train, test, chosen, seed))
    if with_states:
        results.scores |= few_label_rows(features, few_episodes, FLOOR, headline=headline, seed=seed)
    if dense is not None:
        for column, rows in dense_rows(features, dense, FLOOR, seed=seed).items():
            results.put(column, rows)
    return results


def _state_rows(scores: StateScores, headline: Sequence[str] | None) -> dict[str, float | None]:
    columns = {f"state.{name}": value for name, value in scores.columns.items()}
    return (
        {"state_r2": scores.mean_of(headline)} | {f"state.{group}": r2 for group, r2 in scores.groups.items()} | columns
    )


def _classify(
    classifiers: Sequence[ClassProbe], task: Task, train: Features, test: Features, chosen: dict[str, Any], seed: int
) -> dict[str, float | None]:
    """All classifiers on one label; what each chooses is added to `chosen`."""
    rows = dict[str, float | None]()
    for classifier in classifiers:
        fitted, answers = classify(classifier, task, train, test, seed)
        chosen.update({f"{task.name}.{name}": value for name, value in fitted.chosen.items()})
        rows |= _class_rows(classifier, task, answers)
    return rows


def _class_rows(classifier: ClassProbe, task: Task, answers: Int[Tensor, " m"]) -> dict[str, float | None]:
    """How good the answers of a classifier to a label are."""
    scored = accuracies(answers, task)
    return {f"class.{task.name}.{classifier.config.kind}.{what}": value for what, value in scored.items()}
