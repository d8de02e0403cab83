"""The loss among the metrics, worked out by hand from what a network says.

It is that of the rows as they are, whatever the training weighted, smoothed or focused: figures of
trials that differ in these can be compared.
"""

from math import e, log

import numpy as np
import pytest
import torch

from model.batches import Positions
from model.metrics import Evaluation
from model.normalised_file import Examples
from model.tasks.learning_task import LearningTask
from model.tasks.multi_label import MultiLabelTask
from model.tasks.regression import RegressionTask, Scale
from model.tasks.single_label import SingleLabelTask
from model.tokens import Sequences

NO_TOKENS = Sequences(
    np.zeros(0, dtype=np.int32),
    np.zeros(0, dtype=np.uint8),
    np.zeros(4, dtype=np.int64),
    truncated_rows=0,
    lost_tokens=0,
)


def evaluated(task: LearningTask, labels: list[str], logits: list[list[float]]) -> Evaluation:
    """As `model.evaluation` does it, in two parts: rows 3 and 1, then row 2."""
    rows = np.arange(1, len(labels) + 1, dtype=np.int64)
    split = task.split("validation", Examples([""] * len(rows), None, labels, rows), NO_TOKENS)
    observed = np.zeros((len(rows), task.observed_columns), dtype=np.float32)
    parts: list[Positions] = [np.array([2, 0]), np.array([1])]
    for part in parts:
        said = torch.tensor([logits[row] for row in part])
        observed[split.units(part)] = task.observe(said, split, part).numpy()
    return task.evaluate(split, observed)


def test_one_class_per_row_costs_the_logarithm_of_its_probability() -> None:
    task = SingleLabelTask(("ant", "bee", "cat"))
    # e to these: 2 1 1, 1 8 1, 1 1 3; shares of their sums 1/2, 1/10 and 3/5.
    logits = [[log(2), 0.0, 0.0], [0.0, log(8), 0.0], [0.0, 0.0, log(3)]]
    found = evaluated(task, ["ant", "cat", "cat"], logits)
    assert found.metrics["loss"] == pytest.approx((log(2) + log(10) + log(5 / 3)) / 3)
    assert found.predictions.probability.tolist() == pytest.approx([1 / 2, 8 / 10, 3 / 5])


def test_several_classes_cost_what_each_answer_does_on_average() -> None:
    task = MultiLabelTask(("card", "cash"))
    # Probabilities 3/4 and 1/2; 1/5 and 1/2; 1/2 and e/(1 + e).
    logits = [[log(3), 0.0], [-log(4), 0.0], [0.0, 1.0]]
    found = evaluated(task, ["card", "", "card|cash"], logits)
    first = -log(3 / 4) - log(1 / 2)
    second = -log(4 / 5) - log(1 / 2)
    third = -log(1 / 2) - log(e / (1 + e))
    assert found.metrics["loss"] == pytest.approx((first + second + third) / 6)


@pytest.mark.parametrize(
    ("kind", "expected"),
    # Deviations from the labels 0, -1/2 and 3, in the train labels' standard deviations.
    [("mse", (0 + 1 / 4 + 9) / 3), ("huber", (0 + 1 / 8 + 5 / 2) / 3)],
)
def test_numbers_cost_their_errors_in_standard_deviations(kind: str, expected: float) -> None:
    task = RegressionTask(("< 10", ">= 10"), Scale(10.0, 4.0), kind)  # type: ignore[arg-type]
    found = evaluated(task, ["14.0", "10.0", "6.0"], [[1.0], [-0.5], [2.0]])
    assert found.metrics["loss"] == pytest.approx(expected)
    # In the labels' units 14, 8 and 18, where 14, 10 and 6 are right.
    assert found.metrics["mae"] == pytest.approx((0 + 2 + 12) / 3)
