"""An evaluation as a checkpoint holds it: its predictions, from which all figures are computed."""

import dataclasses
from collections.abc import Mapping
from typing import Any

import numpy.typing as npt

from model.metrics import Evaluation
from model.tasks.catalogue import task_named
from model.tasks.multi_task import HeadPredictions

Columns = dict[str, npt.NDArray[Any]]


def evaluation_facts(evaluation: Evaluation) -> dict[str, Any]:
    """What the predictions do not say themselves, as JSON values."""
    facts: dict[str, Any] = {
        "task": evaluation.task,
        "labels": evaluation.labels,
        "loss": evaluation.metrics["loss"],
    }
    predictions = evaluation.predictions
    if isinstance(predictions, HeadPredictions):
        facts["heads"] = {head: evaluation_facts(one) for head, one in predictions.heads.items()}
    return facts


def evaluation_columns(evaluation: Evaluation) -> Columns:
    """The predictions by name; those of a head are called `<head>/<name>`."""
    predictions = evaluation.predictions
    if not isinstance(predictions, HeadPredictions):
        names = (field.name for field in dataclasses.fields(predictions))
        return {name: getattr(predictions, name) for name in names}
    parts = {
        f"{head}/{name}": column
        for head, one in predictions.heads.items()
        for name, column in evaluation_columns(one).items()
    }
    return {"rows": predictions.rows, **parts}


def stored_evaluation(
    facts: Mapping[str, Any], columns: Mapping[str, npt.NDArray[Any]]
) -> Evaluation:
    """What `evaluation_facts` and `evaluation_columns` were taken of. Raises `KeyError` or
    `TypeError` where something is absent."""
    task = task_named(facts["task"])
    labels = tuple(facts["labels"])
    if "heads" not in facts:
        return task.score(labels, task.predictions_type(**columns), facts["loss"])
    heads = {
        head: stored_evaluation(stated, _of_head(columns, f"{head}/"))
        for head, stated in facts["heads"].items()
    }
    return task.score(labels, HeadPredictions(columns["rows"], heads), facts["loss"])


def _of_head(columns: Mapping[str, npt.NDArray[Any]], start: str) -> Columns:
    return {
        name.removeprefix(start): column
        for name, column in columns.items()
        if name.startswith(start)
    }
