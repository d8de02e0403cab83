"""What is measured of a model, by its task: metrics, their directions, and kinds of matrices."""

from collections.abc import Mapping, Sequence
from typing import Literal

from model.config import MULTI_TASK, Direction, Task

Unit = Literal["rows", "tokens", "entities", "decisions", "pairs"]
"""What the cells of a matrix count; all cells together are so many of them."""

METRICS: dict[Task, dict[str, Direction]] = {
    "single_label": {
        "accuracy": "maximize",
        "macro_f1": "maximize",
        "micro_f1": "maximize",
        "weighted_f1": "maximize",
        "mcc": "maximize",
        "loss": "minimize",
    },
    "multi_label": {
        "micro_f1": "maximize",
        "macro_f1": "maximize",
        "weighted_f1": "maximize",
        "subset_accuracy": "maximize",
        "map": "maximize",
        "loss": "minimize",
    },
    "token": {
        "entity_f1": "maximize",
        "entity_precision": "maximize",
        "entity_recall": "maximize",
        "macro_f1": "maximize",
        "accuracy": "maximize",
        "loss": "minimize",
    },
    "regression": {
        "spearman": "maximize",
        "pearson": "maximize",
        "r2": "maximize",
        "mae": "minimize",
        "rmse": "minimize",
        "loss": "minimize",
    },
    "multi_task": {"heads_mean": "maximize", "loss": "minimize"},
}
"""Names of validation metrics and the direction in which each is better; `metrics_of` knows those
of every head too."""

DEFAULT_METRIC: dict[Task, str] = {
    "single_label": "macro_f1",
    "multi_label": "micro_f1",
    "token": "entity_f1",
    "regression": "spearman",
    "multi_task": "heads_mean",
}
"""`heads_mean` is the plain mean of the heads' own defaults, all of which are 1 at their best."""

DEFAULT_HEAD = "label"
"""What the one head of a network is called where several are possible."""
PER_CLASS = "per_class"
"""The kind of which there is a matrix for every class."""

MATRICES: dict[Task, dict[str, Unit]] = {
    "single_label": {"multiclass": "rows"},
    "multi_label": {"label_by_label": "pairs", PER_CLASS: "rows"},
    "token": {"entities": "entities", "tokens": "tokens"},
    "regression": {"bins": "rows"},
    "multi_task": {},
}
"""Kinds of confusion matrices and what they count; a task's usual one is its first. `multi_task`
has those of its heads."""

NOTHING = "∅"
"""The label of a matrix for what has none: no label, no entity."""
NOT = "¬"
"""Before a label: every other one."""


def metrics_of(task: Task, heads: Mapping[str, Task]) -> dict[str, Direction]:
    """A task's metrics and their directions; a head's are called `<head>.<metric>`."""
    return METRICS[task] | {
        f"{head}.{metric}": direction
        for head, kind in heads.items()
        for metric, direction in METRICS[kind].items()
    }


def task_of(task: Task, heads: Mapping[str, Task], head: str) -> Task | None:
    """What the labels of a head are; None where there is no such head."""
    if task == MULTI_TASK:
        return heads.get(head)
    return task if head == DEFAULT_HEAD else None


def head_names(task: Task, heads: Mapping[str, Task]) -> tuple[str, ...]:
    """The heads in the order of all results, also where there is only one."""
    return tuple(heads) if task == MULTI_TASK else (DEFAULT_HEAD,)


def labels_of(labels: Sequence[str], task: Task, head: str) -> tuple[str, ...]:
    """The labels of one head, among a data set's; several heads' are written `<head>.<label>`."""
    if task != MULTI_TASK:
        return tuple(labels)
    start = f"{head}."
    return tuple(label.removeprefix(start) for label in labels if label.startswith(start))


def usual_matrix(task: Task) -> str:
    return next(iter(MATRICES[task]))


def yes_or_no(label: str) -> tuple[str, str]:
    """The labels of one class's 2×2 matrix."""
    return NOT + label, label


def entity_types(tags: Sequence[str]) -> tuple[str, ...]:
    """The types that BIO tags speak of, sorted."""
    return tuple(sorted({tag[2:] for tag in tags if tag != "O"}))


def class_labels(task: Task, labels: Sequence[str]) -> tuple[str, ...]:
    """What has a precision and a recall of its own, of a data set with these labels."""
    if task == "token":
        return entity_types(labels)
    return () if task == "regression" else tuple(labels)


def matrix_labels(kind: str, labels: Sequence[str]) -> tuple[str, ...]:
    """Rows and columns of a kind of matrix over a data set with these labels.

    ``per_class`` gives those of all classes' matrices, one behind the other.
    """
    if kind == PER_CLASS:
        return tuple(side for label in labels for side in yes_or_no(label))
    if kind == "label_by_label":
        return (*labels, NOTHING)
    if kind == "entities":
        return (*entity_types(labels), NOTHING)
    return tuple(labels)
