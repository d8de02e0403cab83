"""Several label columns at once: losses and figures by hand, and saved heads that say the same."""

from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from stopped_run import whole_and_resumed
from transformers import AutoModel, AutoModelForSequenceClassification, pipeline

from model.classifier import Classifier
from model.config import TrainConfig
from model.errors import InputError
from model.evaluation import evaluate
from model.gradients import BatchGradients
from model.heads import join_labels
from model.network import build_network
from model.normalised_file import Examples
from model.prediction import predict
from model.tasks.learning_task import FACTS
from model.tasks.multi_label import LabelPredictions, MultiLabelTask
from model.tasks.multi_task import HeadPredictions, HeadsLoss, MultiTask
from model.tasks.regression import NumberPredictions, RegressionTask
from model.tasks.single_label import ClassPredictions, CrossEntropy, SingleLabelTask
from model.training import TrainData, TrainResult, train
from model.training_cache import TrainingCache
from model.trial_data import prepare

CPU = torch.device("cpu")
TOPICS, FLAGS, BINS = ("card", "cash"), ("angry", "again"), ("< 1010", "[1010, 1020)", ">= 1020")
LABELS = (
    *(f"flags.{flag}" for flag in FLAGS),
    *(f"score.{name}" for name in BINS),
    *(f"topic.{topic}" for topic in TOPICS),
)
CONFIG = TrainConfig(
    task="multi_task",
    heads={"flags": "multi_label", "score": "regression", "topic": "single_label"},
    loss_weights={"score": 0.5},
    metric="heads_mean",
    learning_rate=3e-3,
    batch_size=16,
    max_length=12,
    epochs=2,
    precision="fp32",
)


def make_examples(rows: int, seed: int) -> Examples:
    """One word for every label; every fifth row lacks a topic, every third a score, and so on."""
    rng = np.random.default_rng(seed)
    texts, labels = [], []
    for row in range(rows):
        topic = str(rng.choice(TOPICS))
        flags = [flag for flag in FLAGS if rng.random() < 0.4]
        good = int(rng.integers(0, 3))
        words = [topic, *flags, *["good"] * good, str(rng.choice(["the", "my"]))]
        texts.append(" ".join(rng.permutation(words)))
        labels.append(
            join_labels(
                [
                    None if row % 7 == 6 else "|".join(sorted(flags)),
                    None if row % 3 == 2 else repr(1000.0 + 10 * good),
                    None if row % 5 == 4 else topic,
                ]
            )
        )
    return Examples(texts, None, labels, np.arange(1, rows + 1, dtype=np.int64))


@pytest.fixture(scope="module")
def data() -> TrainData:
    return TrainData(
        train=make_examples(96, 1),
        validation=make_examples(32, 2),
        labels=LABELS,
        dataset_key="heads",
    )


def run(data: TrainData, config: TrainConfig = CONFIG, **options: Any) -> TrainResult:
    return train(config, data, device=CPU, on_epoch=lambda _: "continue", **options)


@pytest.fixture(scope="module")
def result(data: TrainData) -> TrainResult:
    torch.set_num_threads(1)
    return run(data, replace(CONFIG, epochs=12))


def two_heads(weights: dict[str, float]) -> HeadsLoss:
    """Four rows: classes 0, 1 and 1 of the first three for `a`, classes 0 and 2 of the first and
    the last for `b`."""
    config, ids = TrainConfig(), {"a": np.array([0, 1, 1]), "b": np.array([0, 2])}
    losses = {
        head: CrossEntropy(found, np.bincount(found, minlength=3), config, CPU)
        for head, found in ids.items()
    }
    places = {"a": np.array([0, 1, 2, -1]), "b": np.array([0, -1, -1, 1])}
    columns = {"a": slice(0, 3), "b": slice(3, 6)}
    return HeadsLoss(losses, weights, columns, places)


def test_the_loss_is_the_weighted_sum_of_means_over_the_rows_labelled_for_each_head() -> None:
    logits = torch.log(
        torch.tensor(
            [
                [0.5, 0.25, 0.25, 0.8, 0.1, 0.1],
                [0.25, 0.5, 0.25, 0.2, 0.4, 0.4],
                [0.25, 0.25, 0.5, 0.2, 0.4, 0.4],
                [0.9, 0.05, 0.05, 0.25, 0.25, 0.5],
            ]
        )
    )
    loss, rows = two_heads({"a": 1.0, "b": 0.3}), np.arange(4)
    # a: -ln of 0.5, 0.5, 0.25 over three rows; b: -ln of 0.8, 0.5 over two.
    a = (np.log(2) + np.log(2) + np.log(4)) / 3
    b = (np.log(1.25) + np.log(2)) / 2
    assert loss.total(logits, rows).item() == pytest.approx(a + 0.3 * b, rel=1e-6)
    # Parts of a batch divide by the whole batch's counts, so they add up to its loss.
    weight = loss.weight(rows)
    assert weight == {"a": 3.0, "b": 2.0}
    parts = [np.array([0, 1]), np.array([2]), np.array([3])]
    shares = [loss.share(logits[part], part, weight).item() for part in parts]
    assert sum(shares) == pytest.approx(a + 0.3 * b, rel=1e-6)


def test_a_head_that_a_batch_has_no_label_of_adds_nothing_to_it() -> None:
    loss, rows = two_heads({"a": 1.0, "b": 0.3}), np.array([1, 2])
    logits = torch.zeros(2, 6, requires_grad=True)
    total = loss.total(logits, rows)
    assert total.item() == pytest.approx(np.log(3), rel=1e-6)
    total.backward()
    assert logits.grad is not None
    assert not logits.grad[:, 3:].any()
    assert logits.grad[:, :3].any()


def test_parts_of_a_batch_give_the_gradients_of_the_whole(data: TrainData) -> None:
    torch.set_num_threads(1)
    config = replace(CONFIG, dropout=0.0)
    material = prepare(config, data, TrainingCache(0))
    gradients = []
    for part_rows in (16, 3):
        torch.manual_seed(0)
        network = build_network(material.base, material.task.head, device=CPU, dropout=0.0)
        classifier = Classifier(network, material.base.max_positions, CPU, "fp32")
        loss = material.task.loss(material.train, config, CPU)
        batch = BatchGradients(
            classifier, material.train, loss, part_rows=part_rows, clear=network.zero_grad
        )
        value = batch.add(np.arange(16))
        found = {name: x.grad for name, x in network.named_parameters() if x.grad is not None}
        gradients.append((value, found))
    (whole, of_whole), (parts, of_parts) = gradients
    assert parts.item() == pytest.approx(whole.item(), rel=1e-6)
    for name, gradient in of_whole.items():
        assert torch.allclose(of_parts[name], gradient, atol=1e-6), name


def test_the_figures_are_those_of_each_head_and_their_mean() -> None:
    rows = np.arange(1, 5)
    topic = SingleLabelTask.score(
        TOPICS,
        ClassPredictions(rows[:2], np.array([0, 1]), np.array([0, 0]), np.ones(2, np.float32)),
        0.5,
    )
    score = RegressionTask.score(
        BINS,
        NumberPredictions(rows[1:], np.array([1.0, 2, 3]), np.array([1.0, 3, 2])),
        0.25,
    )
    flags = MultiLabelTask.score(
        FLAGS,
        LabelPredictions(
            rows[:1],
            np.array([[True, False]]),
            np.array([[0.9, 0.1]], dtype=np.float32),
            np.full(2, 0.5),
        ),
        0.125,
    )
    heads = {"flags": flags, "score": score, "topic": topic}
    found = MultiTask.score(LABELS, HeadPredictions(rows, heads), loss=0.75)
    # card is right once and said twice: F1 2/3, cash 0. Ranks 1 2 3 against 1 3 2: 1 - 6·2/(3·8).
    assert found.metrics["topic.macro_f1"] == pytest.approx(1 / 3)
    assert found.metrics["score.spearman"] == pytest.approx(0.5)
    assert found.metrics["flags.micro_f1"] == 1
    assert found.metrics["heads_mean"] == pytest.approx((1 / 3 + 0.5 + 1) / 3)
    assert (found.metrics["loss"], found.metrics["topic.loss"]) == (0.75, 0.5)
    assert [(m.head, m.kind) for m in found.matrices] == [
        ("flags", "label_by_label"),
        ("flags", "per_class"),
        ("flags", "per_class"),
        ("score", "bins"),
        ("topic", "multiclass"),
    ]
    assert found.matrices[-1].counts.tolist() == [[1, 0], [1, 0]]
    assert [entry.full_name for entry in found.per_class] == [
        "flags.angry",
        "flags.again",
        "topic.card",
        "topic.cash",
    ]
    header, lines = MultiTask.table(found)
    assert header == [
        "row", "flags.true", "flags.predicted", "flags.probability",
        "score.true", "score.predicted", "topic.true", "topic.predicted", "topic.probability",
    ]  # fmt: skip
    assert [list(line) for line in lines][1:3] == [
        [2, "", "", "", 1.0, 1.0, "cash", "card", "1.000000"],
        [3, "", "", "", 2.0, 3.0, "", "", ""],
    ]


def test_the_loss_of_a_split_is_that_of_its_heads_by_their_weights(result: TrainResult) -> None:
    figures = result.metrics
    expected = figures["flags.loss"] + 0.5 * figures["score.loss"] + figures["topic.loss"]
    assert figures["loss"] == pytest.approx(expected, rel=1e-9)


def test_each_head_is_scored_on_the_rows_that_have_a_label_of_it(
    data: TrainData, result: TrainResult
) -> None:
    assert result.best is not None
    rows = np.arange(32)
    heads = result.predictions.heads
    assert heads["topic"].predictions.rows.tolist() == (rows[rows % 5 != 4] + 1).tolist()
    assert heads["score"].predictions.rows.tolist() == (rows[rows % 3 != 2] + 1).tolist()
    assert heads["topic"].metrics["accuracy"] > 0.9
    by_head = {matrix.head: matrix.counts.sum() for matrix in result.best.matrices}
    assert (by_head["topic"], by_head["score"]) == ((rows % 5 != 4).sum(), (rows % 3 != 2).sum())
    assert len(data.validation.labels) == 32


def test_a_saved_model_predicts_as_it_did_in_training(
    data: TrainData, result: TrainResult, tmp_path: Path
) -> None:
    result.save(tmp_path / "saved")
    again = evaluate(tmp_path / "saved", data.validation, LABELS, CONFIG, device=CPU)
    assert again.metrics == pytest.approx(result.metrics, abs=1e-4)
    with pytest.raises(InputError) as caught:
        evaluate(tmp_path / "saved", data.validation, LABELS[1:], CONFIG, device=CPU)
    assert caught.value.code == "wrong_labels"


def test_every_head_is_a_folder_whose_pipeline_gives_the_recorded_predictions(
    data: TrainData, result: TrainResult, tmp_path: Path
) -> None:
    folder = tmp_path / "saved"
    result.save(folder)
    heads = result.predictions.heads
    texts = data.validation.text_a

    def asked(head: str) -> list[Any]:
        classify = pipeline(
            "text-classification", str(folder / "heads" / head), top_k=None, device="cpu"
        )
        rows = heads[head].predictions.rows - 1
        return list(classify([texts[row] for row in rows], truncation=True))

    topic = heads["topic"].predictions
    found = [(x[0]["label"], x[0]["score"]) for x in asked("topic")]
    assert [label for label, _ in found] == [TOPICS[k] for k in topic.predicted]
    assert [p for _, p in found] == pytest.approx(topic.probability.tolist(), abs=1e-4)
    numbers = [x[0]["score"] for x in asked("score")]
    assert numbers == pytest.approx(heads["score"].predictions.predicted.tolist(), rel=1e-5)
    flags = heads["flags"].predictions
    probabilities = [
        [{x["label"]: x["score"] for x in row}[f] for f in FLAGS] for row in asked("flags")
    ]
    assert np.allclose(probabilities, flags.probabilities, atol=1e-4)
    # The whole loads too: the shared encoder, and all outputs as they are.
    whole = AutoModelForSequenceClassification.from_pretrained(folder)
    assert whole.config.id2label[0] == "flags.angry"
    assert AutoModel.from_pretrained(folder).config.hidden_size == whole.config.hidden_size
    said = [answer.heads for answer in predict(folder, texts)]
    assert [said[row - 1]["topic"].label for row in topic.rows] == [
        TOPICS[k] for k in topic.predicted
    ]
    numbers = [said[row - 1]["score"].value for row in heads["score"].predictions.rows]
    assert numbers == pytest.approx(heads["score"].predictions.predicted.tolist(), rel=1e-5)
    card = (folder / "README.md").read_text(encoding="utf-8")
    thresholds = getattr(whole.config, FACTS)["heads"]["flags"]["thresholds"]
    assert f"| angry | {thresholds['angry']:.6g} |" in card
    assert "| loss_weight.score | 0.5 |" in card
    assert "## Confusion: topic multiclass, in rows" in card


@pytest.mark.parametrize("model_type", ["distilbert", "electra", "modernbert"])
def test_the_heads_of_every_architecture_are_folders_of_their_own(
    data: TrainData, model_folder: Callable[[str], Path], model_type: str, tmp_path: Path
) -> None:
    torch.set_num_threads(1)
    config = replace(CONFIG, model=str(model_folder(model_type)), epochs=1)
    result = run(data, config)
    result.save(tmp_path / "saved")
    topic = result.predictions.heads["topic"].predictions
    ask = pipeline("text-classification", str(tmp_path / "saved" / "heads" / "topic"), device="cpu")
    texts = [data.validation.text_a[row - 1] for row in topic.rows]
    found: Any = ask(texts, truncation=True)
    assert [x["score"] for x in found] == pytest.approx(topic.probability.tolist(), abs=1e-4)
    again = evaluate(tmp_path / "saved", data.validation, LABELS, config, device=CPU)
    assert again.metrics == pytest.approx(result.metrics, abs=1e-3)


def test_a_run_stopped_within_an_epoch_ends_as_if_it_had_not_been(
    data: TrainData, tmp_path: Path
) -> None:
    torch.set_num_threads(1)
    whole, resumed = whole_and_resumed(partial(run, data), tmp_path / "state")
    for head, one in whole.predictions.heads.items():
        assert resumed.predictions.heads[head].metrics == one.metrics


def test_weights_and_metrics_of_no_head_are_refused_by_name(data: TrainData) -> None:
    with pytest.raises(InputError) as caught:
        run(data, replace(CONFIG, loss_weights={"mood": 1.0}))
    assert caught.value.where == ("loss_weight.mood",)
    with pytest.raises(InputError, match=r"topic\.macro_f1") as caught:
        run(data, replace(CONFIG, metric="mood.macro_f1"))
    assert caught.value.code == "unknown_metric"


def test_a_split_without_a_label_of_a_head_is_refused_by_name(data: TrainData) -> None:
    bare = [join_labels(["angry", None, "card"])] * 4
    validation = Examples(["card"] * 4, None, bare, np.arange(1, 5))
    with pytest.raises(InputError) as caught:
        run(replace(data, validation=validation))
    assert (caught.value.code, caught.value.where) == ("no_rows", ("validation", "score"))


def test_focal_loss_and_smoothing_reach_the_heads_that_have_them() -> None:
    ids = np.array([0, 1])
    config = TrainConfig(loss="focal", focal_gamma=2.0)
    loss = HeadsLoss(
        {"a": CrossEntropy(ids, np.array([1, 1]), config, CPU)},
        {"a": 2.0},
        {"a": slice(0, 2)},
        {"a": ids},
    )
    logits = torch.zeros(2, 2)
    # Half sure: (1 - 0.5)² of the cross-entropy, ln 2 each.
    assert loss.total(logits, ids).item() == pytest.approx(2 * 0.25 * np.log(2), rel=1e-6)
