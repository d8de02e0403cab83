"""Pooling over tokens: every architecture, padded or packed, in training and when saved."""

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from transformers import AutoModelForSequenceClassification, pipeline

from model.checkpoint import read_checkpoint
from model.classifier import Classifier
from model.config import TrainConfig
from model.errors import InputError
from model.evaluation import evaluate
from model.network import Head, build_network, load_base
from model.normalised_file import Examples
from model.pooling import pool_padded
from model.prediction import predict
from model.tokens import Sequences
from model.training import TrainData, TrainResult, train

CPU = torch.device("cpu")
LABELS = ("login", "payment", "shipping")
# Rows of 3, 7 and 1 tokens.
SEQUENCES = Sequences(
    np.arange(5, 16, dtype=np.int32), np.zeros(11, dtype=np.uint8), np.array([0, 3, 10, 11]), 0, 0
)
CONFIG = TrainConfig(
    learning_rate=2e-3, batch_size=8, max_length=12, epochs=1, precision="fp32", dropout=0.0
)


@pytest.fixture
def data(examples: Callable[[int, int], Examples]) -> TrainData:
    return TrainData(
        train=examples(24, 1), validation=examples(12, 2), labels=LABELS, dataset_key="words"
    )


def trained(data: TrainData, **settings: Any) -> TrainResult:
    config = replace(CONFIG, **settings)
    return train(config, data, device=CPU, on_epoch=lambda report: "continue")


def test_padding_is_no_part_of_a_mean_or_a_maximum() -> None:
    hidden = torch.tensor([[[1.0], [3.0], [9.0]], [[-4.0], [9.0], [9.0]]])
    mask = torch.tensor([[1, 1, 0], [1, 0, 0]])
    assert pool_padded(hidden, mask, "mean").tolist() == [[2.0], [-4.0]]
    assert pool_padded(hidden, mask, "max").tolist() == [[3.0], [-4.0]]


@pytest.mark.parametrize("pooling", ["mean", "max"])
def test_berts_classifier_reads_the_pooled_tokens(
    model_folder: Callable[[str], Path], pooling: Any
) -> None:
    base = load_base(model_folder("bert"))
    network: Any = build_network(
        base, Head(LABELS), device=CPU, dropout=0.0, pooling=pooling
    ).eval()
    classifier = Classifier(network, 40, CPU, "fp32")
    packed = classifier.logits(SEQUENCES, np.array([1, 0]))
    plain: Any = build_network(base, Head(LABELS), device=CPU, dropout=0.0).eval()
    plain.load_state_dict(network.state_dict())
    for place, row in enumerate((slice(3, 10), slice(0, 3))):
        ids = torch.from_numpy(SEQUENCES.ids[row].astype(np.int64))[None]
        hidden = plain.bert.encoder(plain.bert.embeddings(ids)).last_hidden_state[0]
        pooled = hidden.mean(0) if pooling == "mean" else hidden.amax(0)
        expected = plain.classifier(plain.bert.pooler(pooled[None, None]))[0]
        torch.testing.assert_close(packed[place], expected, atol=1e-6, rtol=1e-5)


@pytest.mark.parametrize("pooling", ["cls", "mean", "max"])
def test_the_packed_pass_has_the_gradients_of_the_padded_one(
    model_folder: Callable[[str], Path], pooling: Any
) -> None:
    base = load_base(model_folder("bert"))
    network = build_network(base, Head(LABELS), device=CPU, dropout=0.0, pooling=pooling).train()
    classifier = Classifier(network, 40, CPU, "fp32")
    weights = torch.arange(9.0).view(3, 3)

    def gradients() -> dict[str, torch.Tensor]:
        network.zero_grad()
        (classifier.logits(SEQUENCES, np.arange(3)) * weights).sum().backward()
        return {name: p.grad for name, p in network.named_parameters() if p.grad is not None}

    packed = gradients()
    classifier._packed = None
    padded = gradients()
    assert packed.keys() == padded.keys()
    for name, gradient in padded.items():
        torch.testing.assert_close(packed[name], gradient, atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("model_type", ["albert", "distilbert", "electra", "modernbert", "mpnet"])
def test_every_architecture_pools_rows_alike_whatever_stands_beside_them(
    model_folder: Callable[[str], Path], model_type: str
) -> None:
    base = load_base(model_folder(model_type))
    found = []
    for pooling in ("cls", "mean", "max"):
        torch.manual_seed(0)
        network = build_network(base, Head(LABELS), device=CPU, dropout=0.0, pooling=pooling).eval()
        classifier = Classifier(network, 40, CPU, "fp32")
        together = classifier.logits(SEQUENCES, np.arange(3))
        alone = torch.cat([classifier.logits(SEQUENCES, np.array([row])) for row in range(3)])
        torch.testing.assert_close(together, alone, atol=1e-5, rtol=1e-5)
        # A row of one token has one thing to pool.
        found.append(together)
    assert not torch.allclose(found[0][1], found[1][1])
    assert not torch.allclose(found[1][1], found[2][1])
    for pooled in found[1:]:
        torch.testing.assert_close(pooled[2], found[0][2], atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("pooling", ["mean", "max"])
def test_a_pooled_model_is_refused_by_transformers_and_predicts_here_as_in_training(
    data: TrainData, tmp_path: Path, pooling: str
) -> None:
    result = trained(data, pooling=pooling)
    folder = tmp_path / "saved"
    result.save(folder)
    with pytest.raises(ValueError, match="bertune-bert"):
        AutoModelForSequenceClassification.from_pretrained(folder)
    assert read_checkpoint(folder).model_type == "bert"
    again = evaluate(folder, data.validation, LABELS, CONFIG, device=CPU)
    assert again.metrics == pytest.approx(result.metrics, abs=1e-5)
    card = (folder / "README.md").read_text(encoding="utf-8")
    assert "from model.prediction import predict" in card
    assert "pipeline" not in card.partition("## Validation")[0].partition("---\n\n")[2]
    assert_predicts(folder, data, result)


def assert_predicts(folder: Path, data: TrainData, result: TrainResult) -> None:
    assert result.predictions is not None
    found = predict(folder, data.validation.text_a, device="cpu")
    assert [one.label for one in found] == [LABELS[k] for k in result.predictions.predicted]
    probabilities = [one.probability for one in found]
    np.testing.assert_allclose(probabilities, result.predictions.probability, atol=1e-5)


def test_windows_are_predicted_whole_from_a_saved_folder(data: TrainData, tmp_path: Path) -> None:
    result = trained(data, truncation="windows", max_length=6)
    result.save(tmp_path / "saved")
    assert_predicts(tmp_path / "saved", data, result)
    assert predict(tmp_path / "saved", [], device="cpu") == []


def test_modernberts_own_mean_is_saved_for_every_tool(
    data: TrainData, tmp_path: Path, model_folder: Callable[[str], Path]
) -> None:
    result = trained(data, model=str(model_folder("modernbert")), pooling="mean")
    result.save(tmp_path / "saved")
    content = json.loads((tmp_path / "saved" / "config.json").read_text(encoding="utf-8"))
    assert (content["model_type"], content["classifier_pooling"]) == ("modernbert", "mean")
    classify = pipeline("text-classification", str(tmp_path / "saved"), device="cpu")
    found = classify(data.validation.text_a, truncation=True)
    assert result.predictions is not None
    scores = [entry["score"] for entry in found]
    np.testing.assert_allclose(scores, result.predictions.probability, atol=1e-4)


def test_a_pooled_model_can_be_trained_further_and_pools_as_it_did(
    data: TrainData, tmp_path: Path
) -> None:
    trained(data, pooling="max").save(tmp_path / "first")
    kept = trained(data, model=str(tmp_path / "first"))
    assert kept.trained is not None
    assert kept.trained.config.bertune_pooling == "max"
    reset = trained(data, model=str(tmp_path / "first"), pooling="cls")
    reset.save(tmp_path / "second")
    AutoModelForSequenceClassification.from_pretrained(tmp_path / "second")


def test_a_folder_of_others_is_not_predicted_with(model_folder: Callable[[str], Path]) -> None:
    with pytest.raises(InputError) as raised:
        predict(model_folder("bert"), ["a card"], device="cpu")
    assert raised.value.code == "no_settings"
