"""A saved model: loaded by Transformers as it stands, and evaluated to the same predictions."""

import html
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from markdown_it import MarkdownIt
from transformers import AutoModelForSequenceClassification, AutoTokenizer, pipeline

from model import export
from model.config import TrainConfig
from model.errors import InputError
from model.evaluation import evaluate
from model.normalised_file import Examples
from model.prediction import predict
from model.training import TrainData, TrainResult, train

CPU = torch.device("cpu")
LABELS = ("login", "payment", "shipping")
CONFIG = TrainConfig(
    learning_rate=2e-3, batch_size=16, max_length=12, epochs=2, precision="fp32", dropout=0.0
)


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture
def data(examples: Callable[[int, int], Examples]) -> TrainData:
    return TrainData(
        train=examples(60, 1), validation=examples(24, 2), labels=LABELS, dataset_key="cafe01"
    )


def trained(data: TrainData, model: str = "scratch:tiny") -> TrainResult:
    config = replace(CONFIG, model=model)
    return train(config, data, device=CPU, on_epoch=lambda report: "continue")


@pytest.mark.parametrize("model_type", [None, "bert", "distilbert"])
def test_a_saved_model_predicts_as_it_did_in_training(
    data: TrainData, tmp_path: Path, model_folder: Callable[[str], Path], model_type: str | None
) -> None:
    result = trained(data, "scratch:tiny" if model_type is None else str(model_folder(model_type)))
    folder = tmp_path / "new" / "saved"
    result.save(folder)
    again = evaluate(folder, data.validation, LABELS, CONFIG, device=CPU, batch_size=3)
    assert result.predictions is not None
    assert again.predictions.predicted.tolist() == result.predictions.predicted.tolist()
    np.testing.assert_allclose(
        again.predictions.probability, result.predictions.probability, atol=1e-5
    )
    assert again.confusion.tolist() == result.best.confusion.tolist()  # type: ignore[union-attr]
    assert again.metrics == pytest.approx(result.metrics, abs=1e-5)


def test_transformers_loads_the_folder_and_names_the_labels(
    data: TrainData, tmp_path: Path
) -> None:
    result = trained(data)
    folder = tmp_path / "saved"
    result.save(folder)
    model = AutoModelForSequenceClassification.from_pretrained(folder, local_files_only=True)
    tokenizer = AutoTokenizer.from_pretrained(folder, local_files_only=True)
    classify = pipeline("text-classification", model=model, tokenizer=tokenizer, device="cpu")
    found = classify(data.validation.text_a, truncation=True)
    assert result.predictions is not None
    assert [entry["label"] for entry in found] == [
        LABELS[index] for index in result.predictions.predicted
    ]
    np.testing.assert_allclose(
        [entry["score"] for entry in found], result.predictions.probability, atol=1e-5
    )


@pytest.mark.parametrize("truncation", ["head", "tail"])
@pytest.mark.parametrize("texts", [1, 2])
def test_the_pipeline_cuts_texts_where_the_training_did(
    data: TrainData, tmp_path: Path, truncation: Any, texts: int
) -> None:
    if texts == 2:
        data = replace(data, train=paired(data.train), validation=paired(data.validation))
    config = replace(CONFIG, truncation=truncation, max_length=8)
    result = train(config, data, device=CPU, on_epoch=lambda report: "continue")
    assert result.truncated_share > 0.5
    result.save(tmp_path / "saved")
    classify: Any = pipeline("text-classification", str(tmp_path / "saved"), device="cpu")
    names = ("text", "text_pair")
    rows = [dict(zip(names, row, strict=False)) for row in zip(*data.validation.texts, strict=True)]
    found = classify(rows, truncation=True)
    assert result.predictions is not None
    assert [entry["label"] for entry in found] == [
        LABELS[index] for index in result.predictions.predicted
    ]
    np.testing.assert_allclose(
        [entry["score"] for entry in found], result.predictions.probability, atol=1e-5
    )


def paired(examples: Examples) -> Examples:
    """Each text with that of the next row, whose length is another one."""
    texts = examples.text_a
    return replace(examples, text_b=[*texts[1:], texts[0]])


def test_the_card_states_figures_settings_matrix_and_data(data: TrainData, tmp_path: Path) -> None:
    result = trained(data)
    result.save(tmp_path / "saved")
    card = (tmp_path / "saved" / "README.md").read_text(encoding="utf-8")
    assert card.startswith("---\nlibrary_name: transformers\n")
    assert "| learning_rate | 0.002 |" in card
    assert f"| macro_f1 | {result.metrics['macro_f1']:.4f} |" in card
    assert "`cafe01`" in card
    assert r"| true \\ predicted | login | payment | shipping |" in card
    assert result.confusion is not None
    assert f"| login | {' | '.join(map(str, result.confusion[0]))} |" in card


def test_the_card_shows_labels_as_they_stand(data: TrainData, tmp_path: Path) -> None:
    marked = (r"a\|b", "<!-- gone", "[x](y)", "`tick`")
    names = dict(zip(LABELS, marked, strict=False))
    train_rows, validation_rows = (
        replace(rows, labels=[names[label] for label in rows.labels])
        for rows in (data.train, data.validation)
    )
    trained(replace(data, train=train_rows, validation=validation_rows, labels=marked)).save(
        tmp_path / "saved"
    )
    card = (tmp_path / "saved" / "README.md").read_text(encoding="utf-8")
    rendered = MarkdownIt("commonmark").enable("table").render(card)
    _, heads, matrix = rendered.partition("<th>true \\ predicted</th>")
    for label in map(html.escape, marked):
        assert f"<td>{label}</td>" in rendered
        assert heads
        assert f"<th>{label}</th>" in matrix


def test_more_than_ten_labels_keep_their_order(data: TrainData, tmp_path: Path) -> None:
    many = tuple(sorted((*LABELS, *(f"none{k:02}" for k in range(9)))))
    result = trained(replace(data, labels=many))
    result.save(tmp_path / "saved")
    again = evaluate(tmp_path / "saved", data.validation, many, CONFIG, device=CPU)
    assert again.predictions.predicted.tolist() == result.predictions.predicted.tolist()
    found = predict(tmp_path / "saved", data.validation.text_a)
    assert [entry.label for entry in found] == [many[k] for k in result.predictions.predicted]


def test_a_card_does_not_tell_where_the_base_model_stood(
    data: TrainData, tmp_path: Path, model_folder: Callable[[str], Path]
) -> None:
    trained(data, str(model_folder("bert"))).save(tmp_path / "saved")
    written = [path.read_text() for path in (tmp_path / "saved").glob("*.[mj][ds]*")]
    assert written
    assert not any(str(tmp_path) in text for text in written)


def test_weights_are_as_readable_as_the_other_files(data: TrainData, tmp_path: Path) -> None:
    trained(data).save(tmp_path / "saved")
    modes = {path.stat().st_mode for path in (tmp_path / "saved").iterdir()}
    assert len(modes) == 1


def test_a_folder_that_holds_anything_is_left_alone(data: TrainData, tmp_path: Path) -> None:
    result = trained(data)
    (tmp_path / "saved").mkdir()
    result.save(tmp_path / "saved")  # an empty one is taken
    with pytest.raises(InputError) as raised:
        result.save(tmp_path / "saved")
    assert raised.value.code == "folder_exists"


def test_a_save_that_fails_leaves_nothing_behind(
    data: TrainData, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    result = trained(data)

    def full(*arguments: object) -> None:
        raise OSError("No space left on device")

    monkeypatch.setattr(export, "_save_tokenizer", full)
    with pytest.raises(OSError, match="No space"):
        result.save(tmp_path / "out" / "saved")
    assert list((tmp_path / "out").iterdir()) == []


def test_a_model_of_other_labels_is_not_evaluated(data: TrainData, tmp_path: Path) -> None:
    trained(data).save(tmp_path / "saved")
    with pytest.raises(InputError) as raised:
        evaluate(tmp_path / "saved", data.validation, LABELS[::-1], CONFIG, device=CPU)
    assert raised.value.code == "wrong_labels"
