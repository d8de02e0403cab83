"""Several classes per row: every figure by hand, and a saved model that says the same."""

from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from stopped_run import whole_and_resumed
from torch.nn import functional
from transformers import pipeline

from model.config import TrainConfig
from model.evaluation import evaluate
from model.metrics import Evaluation
from model.normalised_file import Examples
from model.tasks.learning_task import FACTS
from model.tasks.multi_label import LabelPredictions, MultiLabelTask, YesOrNo
from model.tasks.thresholds import best_thresholds
from model.training import TrainData, TrainingCache, TrainResult, train
from model.training_run import TrainingRun
from model.trial_data import prepare

CPU = torch.device("cpu")
LABELS = ("card", "cash", "loan")
CONFIG = TrainConfig(
    task="multi_label",
    metric="micro_f1",
    learning_rate=2e-3,
    batch_size=16,
    max_length=12,
    epochs=2,
    precision="fp32",
)


def scored(true: list[list[int]], probabilities: list[list[float]]) -> Evaluation:
    answers = np.array(true, dtype=bool)
    predictions = LabelPredictions(
        rows=np.arange(1, len(true) + 1),
        true=answers,
        probabilities=np.array(probabilities, dtype=np.float32),
        thresholds=np.full(answers.shape[1], 0.5),
    )
    return MultiLabelTask.score(LABELS, predictions, loss=0.25)


# Said: card; cash; nothing; card and cash. Right: the first row alone.
BY_HAND = scored(
    true=[[1, 0, 0], [1, 0, 0], [0, 1, 0], [1, 0, 0]],
    probabilities=[[0.9, 0.1, 0.1], [0.3, 0.8, 0.1], [0.2, 0.4, 0.1], [0.6, 0.7, 0.2]],
)


def test_the_figures_are_those_worked_out_by_hand() -> None:
    # card: 2 of 3 found, none wrong. cash: 0 of 1 found, 2 wrong. loan: nothing of nothing.
    figures = BY_HAND.metrics
    assert figures["micro_f1"] == pytest.approx(2 * 2 / (4 + 4))
    assert figures["macro_f1"] == pytest.approx((0.8 + 0 + 0) / 3)
    assert figures["weighted_f1"] == pytest.approx((3 * 0.8 + 1 * 0) / 4)
    assert figures["subset_accuracy"] == pytest.approx(1 / 4)
    # card ranked 1 1 1 0 by probability: 1. cash: third of four: 1/3. loan has no row: left out.
    assert figures["map"] == pytest.approx((1 + 1 / 3) / 2)
    assert figures["loss"] == 0.25
    card = BY_HAND.per_class[0]
    assert (card.precision, card.recall, card.f1, card.support) == pytest.approx((1, 2 / 3, 0.8, 3))


def test_missed_labels_are_paired_with_those_said_in_their_place() -> None:
    usual = BY_HAND.matrices[0]
    assert (usual.kind, usual.unit, usual.labels[-1]) == ("label_by_label", "pairs", "∅")
    # Row 2 missed card for cash, row 3 missed cash for nothing, row 4 said cash for nothing.
    assert usual.counts.tolist() == [[2, 1, 0, 0], [0, 0, 0, 1], [0, 0, 0, 0], [0, 1, 0, 0]]
    empty = scored([[0, 0, 0]], [[0.1, 0.1, 0.1]]).matrices[0]
    assert empty.counts.tolist() == [[0] * 4, [0] * 4, [0] * 4, [0, 0, 0, 1]]


def test_every_class_has_a_matrix_of_its_own() -> None:
    halves = {half.labels: half.counts.tolist() for half in BY_HAND.matrices[1:]}
    assert halves == {
        ("¬card", "card"): [[1, 0], [1, 2]],
        ("¬cash", "cash"): [[1, 2], [1, 0]],
        ("¬loan", "loan"): [[4, 0], [0, 0]],
    }


def test_a_threshold_is_where_the_f1_is_highest_and_half_where_nothing_can_be_learned() -> None:
    probabilities = np.array([[0.4, 0.9], [0.3, 0.8], [0.2, 0.7], [0.1, 0.6]], dtype=np.float32)
    true = np.array([[1, 0], [1, 0], [0, 0], [0, 0]], dtype=bool)
    # Said from 0.3 on the first class is all right; 0.25 is halfway to the next.
    assert best_thresholds(true, probabilities) == pytest.approx([0.25, 0.5])


def test_equal_probabilities_are_said_together() -> None:
    probabilities = np.array([[0.6], [0.6], [0.2]], dtype=np.float32)
    true = np.array([[1], [0], [1]], dtype=bool)
    # F1 from 0.6 on: 2·1/(2+2); from 0.2 on: 2·2/(3+2).
    assert best_thresholds(true, probabilities) == pytest.approx([0.1])


def test_the_loss_is_binary_cross_entropy_and_parts_add_up() -> None:
    answers = np.array([[1, 0, 0], [1, 1, 0], [0, 0, 0], [1, 0, 0]], dtype=np.float32)
    logits = torch.tensor(np.random.default_rng(0).normal(size=(4, 3)), dtype=torch.float32)
    plain = YesOrNo(answers, CONFIG, CPU)
    expected = functional.binary_cross_entropy_with_logits(logits, torch.from_numpy(answers))
    parts = [plain.total(logits[:1], np.array([0])), plain.total(logits[1:], np.array([1, 2, 3]))]
    assert float(sum(parts)) / plain.weight(np.arange(4)) == pytest.approx(
        expected.item(), abs=1e-6
    )
    # Of card 3 rows of 4: with weights, having and not having it count alike.
    inverse = YesOrNo(answers, replace(CONFIG, class_weighting="inverse"), CPU)
    zero = torch.zeros(4, 3)
    having, without = np.array([0, 1, 3]), np.array([2])
    card = [inverse.total(zero[rows][:, :], rows).item() for rows in (having, without)]
    assert sum(card) == pytest.approx(4 * np.log(2), rel=1e-5)


def test_focal_loss_counts_what_is_known_little() -> None:
    answers = np.array([[1, 0]], dtype=np.float32)
    config = replace(CONFIG, loss="focal", focal_gamma=2.0)
    # Told with probability 3/4 that it has the first, and 1/5 the second, which is wrong by 1/5.
    logits = torch.tensor([[np.log(3), -np.log(4)]], dtype=torch.float32, requires_grad=True)
    loss = YesOrNo(answers, config, CPU).total(logits, np.array([0]))
    first, second = (1 / 4) ** 2 * -np.log(3 / 4), (1 / 5) ** 2 * -np.log(4 / 5)
    assert loss.item() == pytest.approx((first + second) / 2)
    loss.backward()
    assert logits.grad is not None
    assert logits.grad.isfinite().all()
    far = torch.tensor([[200.0, -200.0]], requires_grad=True)  # as sure as can be
    YesOrNo(answers, config, CPU).total(far, np.array([0])).backward()
    assert far.grad is not None
    assert far.grad.tolist() == [[0.0, 0.0]]


def make_examples(rows: int, seed: int) -> Examples:
    """One word for every label; a third of the rows have none."""
    rng = np.random.default_rng(seed)
    texts, labels = [], []
    for _ in range(rows):
        found = [label for label in LABELS if rng.random() < 0.35]
        words = [str(word) for word in rng.choice(["the", "a", "my", "now"], size=4)] + found
        texts.append(" ".join(rng.permutation(words)))
        labels.append("|".join(found))
    return Examples(texts, None, labels, np.arange(1, rows + 1, dtype=np.int64))


@pytest.fixture(scope="module")
def data() -> TrainData:
    return TrainData(
        train=make_examples(96, 1),
        validation=make_examples(32, 2),
        labels=LABELS,
        dataset_key="topics",
    )


def run(data: TrainData, config: TrainConfig = CONFIG, **options: Any) -> TrainResult:
    return train(config, data, device=CPU, on_epoch=lambda _: "continue", **options)


@pytest.fixture(scope="module")
def result(data: TrainData) -> TrainResult:
    torch.set_num_threads(1)
    return run(data, replace(CONFIG, epochs=8, seed=5))


@pytest.mark.parametrize(
    ("smoothing", "weighting"), [(0.0, "none"), (0.2, "none"), (0.0, "inverse")]
)
def test_a_head_starts_where_saying_the_same_of_every_row_loses_least(
    smoothing: float, weighting: Any
) -> None:
    answers = np.zeros((2000, 3), dtype=np.float32)
    answers[:600, 0] = 1
    answers[:40, 1] = 1  # no row has the third
    config = replace(CONFIG, label_smoothing=smoothing, class_weighting=weighting)
    loss = YesOrNo(answers, config, CPU)
    start = loss.start()
    if (smoothing, weighting) == (0.0, "none"):
        expected = [np.log(600.5 / 1400.5), np.log(40.5 / 1960.5), np.log(0.5 / 2000.5)]
        assert start.tolist() == pytest.approx(expected, abs=1e-5)
    else:
        same = start[:2].clone().requires_grad_()
        rows = torch.cat([same, start[2:]]).expand(2000, 3)
        loss.total(rows, np.arange(2000)).backward()
        assert same.grad is not None
        assert same.grad.abs().max() < 0.5  # half a row more of either answer


def test_a_new_head_says_the_shares_of_the_classes_and_a_loaded_one_what_it_has_learned(
    data: TrainData, tmp_path: Path
) -> None:
    material = prepare(CONFIG, data, TrainingCache(0))
    run = TrainingRun(CONFIG, material, device=CPU, precision="fp32")
    bias = run.network.get_parameter("classifier.bias")
    shares = material.train.targets.mean(axis=0)
    assert bias.sigmoid().tolist() == pytest.approx(shares.tolist(), abs=0.02)
    folder = tmp_path / "saved"
    result = train(CONFIG, data, device=CPU, on_epoch=lambda report: "continue")
    result.save(folder)
    assert result.trained is not None
    again = prepare(replace(CONFIG, model=str(folder)), data, TrainingCache(0))
    run = TrainingRun(CONFIG, again, device=CPU, precision="fp32")
    learned = result.trained.weights["classifier.bias"]
    assert torch.equal(run.network.get_parameter("classifier.bias"), learned)


def test_it_learns_and_a_saved_model_predicts_as_it_did_in_training(
    data: TrainData, result: TrainResult, tmp_path: Path
) -> None:
    assert result.metrics["micro_f1"] > 0.9
    result.save(tmp_path / "saved")
    again = evaluate(tmp_path / "saved", data.validation, LABELS, CONFIG, device=CPU)
    assert again.metrics == pytest.approx(result.metrics, abs=1e-5)
    assert np.array_equal(again.predictions.predicted, result.predictions.predicted)
    # The stored thresholds are used as they are: on other rows none is tuned.
    other = evaluate(tmp_path / "saved", make_examples(20, 3), LABELS, CONFIG, device=CPU)
    assert np.array_equal(other.predictions.thresholds, result.predictions.thresholds)


def test_the_pipeline_of_transformers_gives_the_recorded_predictions(
    data: TrainData, result: TrainResult, tmp_path: Path
) -> None:
    result.save(tmp_path / "saved")
    classify = pipeline("text-classification", str(tmp_path / "saved"), top_k=None, device="cpu")
    thresholds = getattr(classify.model.config, FACTS)["thresholds"]
    found: Any = classify(data.validation.text_a, truncation=True)
    said = [{x["label"] for x in row if x["score"] >= thresholds[x["label"]]} for row in found]
    recorded = [
        {label for label, yes in zip(LABELS, row, strict=True) if yes}
        for row in result.predictions.predicted
    ]
    assert said == recorded
    card = (tmp_path / "saved" / "README.md").read_text(encoding="utf-8")
    assert f"| card | {thresholds['card']:.6g} |" in card
    assert "## Every class against the rest, in rows" in card


def test_a_run_stopped_within_an_epoch_ends_as_if_it_had_not_been(
    data: TrainData, tmp_path: Path
) -> None:
    whole, resumed = whole_and_resumed(partial(run, data), tmp_path / "state")
    assert np.array_equal(resumed.predictions.probabilities, whole.predictions.probabilities)
