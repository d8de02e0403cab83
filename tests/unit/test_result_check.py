"""What a worker reports of several heads must fit the data set, head by head."""

from typing import Any

import pytest

from model.config import Task
from model.errors import InputError
from service.queue.result_check import check_result
from studies.wire.leases import ClassMetrics, ConfusionMatrix, ResultRequest

HEADS: dict[str, Task] = {"score": "regression", "topic": "single_label"}
LABELS = ("score.< 1", "score.>= 1", "topic.card", "topic.cash")


def matrix(head: str, **changes: Any) -> ConfusionMatrix:
    usual = {
        "score": {"kind": "bins", "labels": ["< 1", ">= 1"], "matrix": [[2, 0], [1, 1]]},
        "topic": {"kind": "multiclass", "labels": ["card", "cash"], "matrix": [[3, 1], [0, 2]]},
    }[head]
    return ConfusionMatrix.model_validate({"head": head, **usual, **changes})


def classes(*support: int, head: str = "topic") -> list[ClassMetrics]:
    return [
        ClassMetrics(label=label, precision=0.5, recall=0.5, f1=0.5, support=rows, head=head)
        for label, rows in zip(("card", "cash"), support, strict=True)
    ]


def result(**changes: Any) -> ResultRequest:
    fields: dict[str, Any] = {
        "value": 0.5,
        "metrics": {"topic.macro_f1": 0.5},
        "per_class": classes(4, 2),
        "confusion": matrix("score"),
        "further_matrices": [matrix("topic")],
    }
    return ResultRequest(**fields | changes)


def check(report: ResultRequest) -> None:
    check_result(
        report,
        metric="topic.macro_f1",
        labels=LABELS,
        kind="train",
        task="multi_task",
        heads=HEADS,
    )


def test_a_result_that_fits_passes() -> None:
    check(result())


@pytest.mark.parametrize(
    ("changes", "where"),
    [
        ({"confusion": matrix("topic"), "further_matrices": []}, ("confusion", "kind")),
        ({"further_matrices": [matrix("score")]}, ("further_matrices", 0)),
        (
            {"further_matrices": [matrix("topic").model_copy(update={"head": "mood"})]},
            ("further_matrices", 0, "head"),
        ),
        (
            {"further_matrices": [matrix("topic", labels=["cash", "card"])]},
            ("further_matrices", 0, "labels"),
        ),
        (
            {"further_matrices": [matrix("topic", kind="bins")]},
            ("further_matrices", 0, "kind"),
        ),
        ({"per_class": classes(4, 3)}, ("further_matrices", 0, "matrix", 1)),
        ({"per_class": classes(4, 2, head="score")}, ("per_class",)),
    ],
)
def test_what_does_not_fit_is_refused_by_its_place(changes: Any, where: tuple[Any, ...]) -> None:
    with pytest.raises(InputError) as caught:
        check(result(**changes))
    assert (caught.value.code, caught.value.where) == ("invalid_result", where)
