"""Every figure against a value worked out by hand."""

import json
import math
from dataclasses import asdict

import numpy as np
import pytest
from sklearn.metrics import matthews_corrcoef

from model.metrics import Evaluation, confused_pairs
from model.tasks.single_label import ClassPredictions, SingleLabelTask, matthews_correlation

LABELS = ("ant", "bee", "cat")


def scored(true: list[int], predicted: list[int], labels: tuple[str, ...] = LABELS) -> Evaluation:
    predictions = ClassPredictions(
        rows=np.arange(1, len(true) + 1),
        true=np.array(true),
        predicted=np.array(predicted),
        probability=np.full(len(true), 0.5, dtype=np.float32),
    )
    return SingleLabelTask.score(labels, predictions, loss=0.25)


def test_the_figures_are_those_worked_out_by_hand() -> None:
    # ant: 2 of 3 found, 1 false; bee: 1 of 2 found, 1 false; cat: 1 of 1 found.
    result = scored(true=[0, 0, 0, 1, 1, 2], predicted=[0, 0, 1, 1, 0, 2])
    assert result.metrics["accuracy"] == pytest.approx(4 / 6)
    assert result.metrics["micro_f1"] == pytest.approx(4 / 6)
    assert result.metrics["macro_f1"] == pytest.approx((2 / 3 + 1 / 2 + 1) / 3)
    assert result.metrics["weighted_f1"] == pytest.approx((3 * 2 / 3 + 2 * 1 / 2 + 1 * 1) / 6)
    # (4·6 − (3·3 + 2·2 + 1·1)) / (36 − 14)
    assert result.metrics["mcc"] == pytest.approx(10 / 22)
    assert result.metrics["loss"] == 0.25
    ant = result.per_class[0]
    assert (ant.label, ant.support) == ("ant", 3)
    assert (ant.precision, ant.recall, ant.f1) == pytest.approx((2 / 3, 2 / 3, 2 / 3))


def test_the_matrix_has_true_labels_as_rows() -> None:
    result = scored(true=[0, 0, 1, 2], predicted=[1, 1, 1, 0])
    assert result.confusion.tolist() == [[0, 2, 0], [0, 1, 0], [1, 0, 0]]
    assert result.confusion.dtype == np.int64


def test_a_class_that_the_split_lacks_counts_as_zero_in_the_macro_mean() -> None:
    result = scored(true=[0, 1], predicted=[0, 1])
    assert result.metrics["macro_f1"] == pytest.approx(2 / 3)
    assert result.metrics["micro_f1"] == 1.0
    assert result.per_class[2].support == 0
    assert result.confusion.shape == (3, 3)


def test_one_class_everywhere_gives_an_mcc_of_zero_without_a_warning() -> None:
    assert scored(true=[0, 0], predicted=[0, 0]).metrics["mcc"] == 0.0


def test_the_matthews_correlation_is_scikit_learns() -> None:
    rng = np.random.default_rng(0)
    true = rng.integers(0, 3, 200)
    predicted = np.where(rng.random(200) < 0.6, true, rng.integers(0, 3, 200))
    confusion = np.zeros((3, 3), dtype=np.int64)
    np.add.at(confusion, (true, predicted), 1)
    assert matthews_correlation(confusion) == pytest.approx(matthews_corrcoef(true, predicted))


def test_all_figures_are_plain_numbers_that_json_writes() -> None:
    result = scored(true=[0, 1, 2], predicted=[0, 1, 1])
    content = {
        "metrics": result.metrics,
        "per_class": [asdict(entry) for entry in result.per_class],
        "confusion": result.confusion.tolist(),
    }
    assert json.loads(json.dumps(content)) == content
    assert all(math.isfinite(value) for value in result.metrics.values())


def test_confused_pairs_lists_the_largest_mistakes_first_and_no_empty_cell() -> None:
    result = scored(true=[0, 0, 0, 1, 2], predicted=[1, 1, 0, 2, 2])
    assert confused_pairs(result.matrices[0], most=5) == [("ant", "bee", 2), ("bee", "cat", 1)]
    assert confused_pairs(result.matrices[0], most=1) == [("ant", "bee", 2)]
