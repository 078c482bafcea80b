"""Labels of clips as classification tasks, and how answers are scored: accuracy, and accuracy averaged over classes."""

from dataclasses import dataclass

import torch
from jaxtyping import Int
from torch import Tensor
from torchmetrics.classification import MulticlassAccuracy

from jepa_probes.probing.base import ClassProbe, FittedProbe
from jepa_probes.probing.features import Features


@dataclass(frozen=True)
class Task:
    """One label of the data set, for clips to which it applies.

    Attributes:
        classes: label values; the first `trained` of them occur in training, and only those can be answered.
        train, test: indices of the clips to which the label applies.
        train_class, test_class: positions in `classes`.
        dropped: clips of either split to which the label does not apply (-1).
    """

    name: str
    classes: tuple[int, ...]
    trained: int
    train: Int[Tensor, " n"]
    test: Int[Tensor, " m"]
    train_class: Int[Tensor, " n"]
    test_class: Int[Tensor, " m"]
    dropped: int

    def majority(self) -> Int[Tensor, " m"]:
        """The most frequent class of training, for every test clip."""
        return self.train_class.bincount().argmax().expand(len(self.test))


def make_task(name: str, train: Features, test: Features) -> Task | None:
    """The task of a label; None if training has less than two classes, or the test split no clip of it."""
    train_index = (train.labels[name] != -1).nonzero()[:, 0]
    test_index = (test.labels[name] != -1).nonzero()[:, 0]
    trained = train.labels[name][train_index].tolist()
    tested = test.labels[name][test_index].tolist()
    known = sorted(set(trained))
    # A class that only the test split has cannot be answered, and counts as an error.
    classes = tuple(known + sorted(set(tested) - set(known)))
    if len(known) < 2 or not tested:
        return None
    index = {value: i for i, value in enumerate(classes)}
    train_class = torch.tensor([index[value] for value in trained])
    test_class = torch.tensor([index[value] for value in tested])
    dropped = len(train) - len(trained) + len(test) - len(tested)
    return Task(name, classes, len(known), train_index, test_index, train_class, test_class, dropped)


def classify(
    classifier: ClassProbe, task: Task, train: Features, test: Features, seed: int
) -> tuple[FittedProbe, Int[Tensor, " m"]]:
    """A classifier that is fitted to the training clips of a task, and its answers to the test clips."""
    keys = [train.keys[int(i)] for i in task.train]
    fitted = classifier.fit(train.latents[task.train], task.train_class, keys, task.trained, seed=seed)
    return fitted, fitted(test.latents[task.test])


def accuracies(answers: Int[Tensor, " m"], task: Task) -> dict[str, float]:
    """`accuracy` over the test clips and `balanced`, its mean over the classes."""
    metrics = {
        "accuracy": MulticlassAccuracy(num_classes=len(task.classes), average="micro"),
        "balanced": MulticlassAccuracy(num_classes=len(task.classes), average="macro"),
    }
    for metric in metrics.values():
        metric.update(answers, task.test_class)
    return {name: float(metric.compute()) for name, metric in metrics.items()}
