"""A number per row: every figure by hand, its own units inside and outside, and its bins."""

from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from stopped_run import whole_and_resumed
from transformers import pipeline

from model.config import DataOptions, TrainConfig
from model.data import normalise
from model.errors import InputError
from model.evaluation import evaluate
from model.labels.bins import bins_of, quantile_bins
from model.labels.number import NumberReader
from model.metrics import Evaluation
from model.normalised_file import Examples, read_examples
from model.tasks.regression import Distance, NumberPredictions, RegressionTask
from model.training import TrainData, TrainResult, train

CPU = torch.device("cpu")
CONFIG = TrainConfig(
    task="regression",
    metric="mae",
    direction="minimize",
    learning_rate=2e-3,
    batch_size=16,
    max_length=16,
    epochs=2,
    precision="fp32",
)
BINS = ("< 2", "[2, 3)", ">= 3")


def scored(true: list[float], predicted: list[float]) -> Evaluation:
    rows = np.arange(1, len(true) + 1)
    predictions = NumberPredictions(rows, np.array(true), np.array(predicted))
    return RegressionTask.score(BINS, predictions, loss=0.5)


def test_the_figures_are_those_worked_out_by_hand() -> None:
    figures = scored([1, 2, 3, 4], [1, 3, 2, 6]).metrics
    # Errors 0, 1, -1, 2. Spread of the true values around 2.5: 5.
    assert figures["mae"] == pytest.approx(1)
    assert figures["rmse"] == pytest.approx((6 / 4) ** 0.5)
    assert figures["r2"] == pytest.approx(1 - 6 / 5)
    # Deviations -1.5 -0.5 0.5 1.5 and -2 0 -1 3: 7 over sqrt(5 · 14).
    assert figures["pearson"] == pytest.approx(7 / 70**0.5)
    # Ranks 1 2 3 4 and 1 3 2 4: 1 - 6 · 2 / (4 · 15).
    assert figures["spearman"] == pytest.approx(0.8)
    assert figures["loss"] == 0.5


def test_equal_ranks_share_their_mean() -> None:
    # Ranks 1 2 3 and 1.5 1.5 3: 1.5 over sqrt(2 · 1.5).
    assert scored([1, 2, 3], [0, 0, 5]).metrics["spearman"] == pytest.approx(1.5 / 3**0.5)


def test_what_does_not_vary_correlates_with_nothing() -> None:
    flat = scored([1, 2, 3], [2, 2, 2]).metrics
    assert (flat["pearson"], flat["spearman"], flat["r2"]) == (0, 0, 0)
    assert scored([2, 2], [1, 3]).metrics["r2"] == 0


def test_bins_hold_about_as_many_values_and_say_where_they_begin() -> None:
    names = quantile_bins(np.arange(1.0, 11))
    assert names == ("< 2", "[2, 4)", "[4, 6)", "[6, 8)", ">= 8")
    assert bins_of(np.array([-9, 1.9, 2, 7.9, 8, 99]), names).tolist() == [0, 0, 1, 3, 4, 4]
    assert quantile_bins(np.array([1.0, 1, 1, 1, 1, 1, 5])) == ("< 5", ">= 5")
    near = quantile_bins(1e6 + np.arange(10) / 1000)
    assert bins_of(1e6 + np.arange(10) / 1000, near).max() == 4
    assert quantile_bins(np.array([3.0, 3])) == ()


def test_the_matrix_counts_rows_by_their_true_and_predicted_bins() -> None:
    (matrix,) = scored([1, 2, 3, 4], [1, 3, 2, 6]).matrices
    assert (matrix.kind, matrix.unit, matrix.labels) == ("bins", "rows", BINS)
    assert matrix.counts.tolist() == [[1, 0, 0], [0, 0, 1], [0, 1, 1]]


def test_huber_is_half_the_square_up_to_one_and_linear_beyond() -> None:
    targets = np.array([0, 0], dtype=np.float32)
    logits, rows = torch.tensor([[0.5], [3.0]]), np.array([0, 1])
    assert Distance(targets, "mse").total(logits, rows).item() == pytest.approx(0.25 + 9)
    assert Distance(targets, "huber").total(logits, rows).item() == pytest.approx(0.125 + 2.5)


@pytest.mark.parametrize("label", ["nan", "inf", "-Infinity", "1e31", "3,5", "1_000", "high"])
def test_what_is_no_finite_number_is_refused_with_its_line(tmp_path: Path, label: str) -> None:
    path = tmp_path / "train.csv"
    path.write_text(f'text,score\na,1\nb,"{label}"\nc,2\n', encoding="utf-8")
    with pytest.raises(InputError) as caught:
        normalise({"train": path}, DataOptions(), tmp_path / "out")
    assert (caught.value.code, caught.value.where) == ("bad_label", ("train", "line 3"))


@pytest.mark.parametrize(("smallest", "is_refused"), [("2000", False), ("1700000000", True)])
def test_numbers_that_a_saved_model_could_not_tell_apart_are_refused(
    tmp_path: Path, smallest: str, is_refused: bool
) -> None:
    """Ten numbers in steps of a half: a saved model's have seven digits."""
    path = tmp_path / "train.csv"
    lines = "".join(f"text {n},{int(smallest) + n / 2}\n" for n in range(10))
    path.write_text("text,score\n" + lines, encoding="utf-8")
    if not is_refused:
        assert normalise({"train": path}, DataOptions(), tmp_path / "out").rows["train"] == 10
        return
    with pytest.raises(InputError) as caught:
        normalise({"train": path}, DataOptions(), tmp_path / "out")
    assert (caught.value.code, caught.value.where) == ("one_class", ("train",))
    assert "subtract 1.7e+09" in caught.value.detail


def test_pairs_with_a_score_are_read_and_summed_up_by_bins(tmp_path: Path) -> None:
    path = tmp_path / "train.csv"
    lines = "".join(f"a{n},b{n},{n % 10 + 1}\n" for n in range(40))
    path.write_text("text_a,text_b,score\n" + lines, encoding="utf-8")
    summary = normalise({"train": path}, DataOptions(), tmp_path / "out")
    assert (summary.task, summary.columns["text_b"]) == ("regression", "text_b")
    assert summary.label_counts["train"] == {
        "< 2": 4, "[2, 4)": 8, "[4, 6)": 8, "[6, 8)": 8, ">= 8": 12
    }  # fmt: skip
    labels = read_examples(tmp_path / "out" / "train.parquet").labels
    assert labels[:2] == ["1.0", "2.0"]
    options: dict[str, Any] = {"validation_fraction": 0.25, "test_fraction": 0.0, "seed": 0}
    rows = NumberReader().divide(labels, **options)
    held_out = bins_of(np.array([float(labels[row]) for row in rows.validation]), summary.labels)
    assert np.bincount(held_out).tolist() == [1, 2, 2, 2, 3]


def make_examples(rows: int, seed: int) -> Examples:
    """Pairs; every `good` adds 10 to 1,000."""
    rng = np.random.default_rng(seed)
    count = rng.integers(0, 6, size=rows)
    first = [" ".join(["the", "thing", *["good"] * min(n, 3)]) for n in count]
    second = [" ".join(["was", *["good"] * max(0, n - 3)]) for n in count]
    labels = [repr(1000.0 + 10 * int(n)) for n in count]
    return Examples(first, second, labels, np.arange(1, rows + 1, dtype=np.int64))


@pytest.fixture(scope="module")
def data() -> TrainData:
    return TrainData(
        train=make_examples(96, 1),
        validation=make_examples(32, 2),
        labels=("< 1020", "[1020, 1040)", ">= 1040"),
        dataset_key="scores",
    )


def run(data: TrainData, config: TrainConfig = CONFIG, **options: Any) -> TrainResult:
    return train(config, data, device=CPU, on_epoch=lambda _: "continue", **options)


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_a_saved_model_predicts_as_it_did_in_training_and_in_the_labels_units(
    data: TrainData, tmp_path: Path, precision: Any
) -> None:
    torch.set_num_threads(1)
    config = replace(CONFIG, epochs=12, regression_loss="huber", precision=precision)
    result = run(data, config)
    assert result.metrics["mae"] < 8  # the labels' own mean is 15 off
    result.save(tmp_path / "saved")
    again = evaluate(tmp_path / "saved", data.validation, data.labels, config, device=CPU)
    near = {"fp32": 1e-3, "bf16": 0.3}[precision]
    found = again.predictions.predicted
    np.testing.assert_allclose(found, result.predictions.predicted, rtol=0, atol=near)
    measure = pipeline("text-classification", str(tmp_path / "saved"), device="cpu")
    pairs = [
        {"text": first, "text_pair": second}
        for first, second in zip(data.validation.text_a, data.validation.text_b or (), strict=True)
    ]
    said = [measure(pair, truncation=True) for pair in pairs]
    scores = [(x[0] if isinstance(x, list) else x)["score"] for x in said]
    near = {"fp32": 1e-2, "bf16": 1.0}[precision]
    np.testing.assert_allclose(scores, result.predictions.predicted, rtol=0, atol=near)
    with pytest.raises(InputError, match="labels are < 1020"):
        evaluate(tmp_path / "saved", data.validation, BINS, config, device=CPU)


def test_a_run_stopped_within_an_epoch_ends_as_if_it_had_not_been(
    data: TrainData, tmp_path: Path
) -> None:
    whole, resumed = whole_and_resumed(partial(run, data), tmp_path / "state")
    assert resumed.predictions.predicted.tolist() == whole.predictions.predicted.tolist()
