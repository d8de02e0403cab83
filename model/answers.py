"""What a model says of a text, by task: names and numbers in place of positions in arrays."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from model.config import MULTI_TASK, Task
from model.heads import join_labels
from model.labels.tags import OUTSIDE
from model.measures import labels_of
from model.metrics import Evaluation
from model.saved_model import SavedModel


@dataclass(frozen=True, slots=True)
class ClassAnswer:
    """Of `single_label`."""

    label: str
    """The most probable one."""
    probability: float


@dataclass(frozen=True, slots=True)
class LabelsAnswer:
    """Of `multi_label`."""

    labels: tuple[str, ...]
    """Those whose probability reaches their threshold; there may be none."""
    probabilities: dict[str, float]
    """Of every label, each by itself."""


@dataclass(frozen=True, slots=True)
class TagsAnswer:
    """Of `token`; the three run in parallel."""

    tokens: tuple[str, ...]
    tags: tuple[str, ...]
    """`O` for a token that was not read, since it lies beyond `max_length`."""
    probabilities: tuple[float, ...]
    """0 for a token that was not read."""


@dataclass(frozen=True, slots=True)
class NumberAnswer:
    """Of `regression`."""

    value: float
    """In the units of the train labels."""


@dataclass(frozen=True, slots=True)
class HeadsAnswer:
    """Of `multi_task`."""

    heads: dict[str, Any]
    """The answer of each head's task."""


def placeholder(saved: SavedModel, text: str) -> str:
    """A label that ``text`` could have, in the canonical form of its task: what stands in the
    place of the true one where that is not known."""
    task = saved.config.task
    if task == MULTI_TASK:
        return join_labels(
            [
                _placeholder(kind, labels_of(saved.labels, task, head), text)
                for head, kind in saved.config.heads.items()
            ]
        )
    return _placeholder(task, saved.labels, text)


def _placeholder(task: Task, labels: tuple[str, ...], text: str) -> str:
    if task == "token":
        return " ".join([OUTSIDE] * len(text.split(" ")))
    return {"single_label": labels[0], "multi_label": "", "regression": "0"}[task]


def answers(evaluation: Evaluation, texts: list[str]) -> list[Any]:
    """What the predictions of an evaluation say of its ``texts``, in their order."""
    return list(_ANSWERS[evaluation.task](evaluation.labels, evaluation.predictions, texts))


def _classes(labels: tuple[str, ...], found: Any, _: list[str]) -> list[ClassAnswer]:
    pairs = zip(found.predicted.tolist(), found.probability.tolist(), strict=True)
    return [ClassAnswer(labels[k], probability) for k, probability in pairs]


def _label_sets(labels: tuple[str, ...], found: Any, _: list[str]) -> list[LabelsAnswer]:
    return [
        LabelsAnswer(
            tuple(label for label, said in zip(labels, row, strict=True) if said),
            dict(zip(labels, probabilities, strict=True)),
        )
        for row, probabilities in zip(
            found.predicted.tolist(), found.probabilities.tolist(), strict=True
        )
    ]


def _tags(labels: tuple[str, ...], found: Any, texts: list[str]) -> list[TagsAnswer]:
    said: list[TagsAnswer] = []
    for text, start, end in zip(texts, found.offsets[:-1], found.offsets[1:], strict=True):
        tags = (labels[k] for k in found.predicted[start:end].tolist())
        shares = found.probability[start:end].tolist()
        read = TagsAnswer(tuple(text.split(" ")), tuple(tags), tuple(shares))
        said.append(read if text else TagsAnswer((), (), ()))
    return said


def _numbers(labels: tuple[str, ...], found: Any, _: list[str]) -> list[NumberAnswer]:  # noqa: ARG001
    return [NumberAnswer(value) for value in found.predicted.tolist()]


def _heads(labels: tuple[str, ...], found: Any, texts: list[str]) -> list[HeadsAnswer]:  # noqa: ARG001
    said = {head: answers(one, texts) for head, one in found.heads.items()}
    return [
        HeadsAnswer(dict(zip(said, row, strict=True))) for row in zip(*said.values(), strict=True)
    ]


_ANSWERS: dict[Task, Callable[[tuple[str, ...], Any, list[str]], Any]] = {
    "single_label": _classes,
    "multi_label": _label_sets,
    "token": _tags,
    "regression": _numbers,
    "multi_task": _heads,
}
ANSWERED = tuple(_ANSWERS)
"""The tasks whose models can be asked."""
