"""A saved model that is asked says what its trial recorded, whatever the task; and the command."""

import csv
import io
import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from model.answers import ClassAnswer, LabelsAnswer, NumberAnswer, TagsAnswer
from model.config import TrainConfig
from model.errors import InputError
from model.normalised_file import Examples
from model.prediction import predict
from model.prediction_command import main
from model.training import TrainData, TrainResult, train

CPU = torch.device("cpu")
WORDS = ["the", "a", "my", "please", "card", "app", "today", "again", "still", "new"]
CUES = ("login", "payment", "shipping")
LABELS = {
    "single_label": CUES,
    "multi_label": CUES,
    "token": ("O", *(f"{place}-{cue}" for cue in CUES for place in "BI")),
    "regression": ("< 2", ">= 2"),
}
METRICS = {
    "single_label": "macro_f1",
    "multi_label": "micro_f1",
    "token": "entity_f1",
    "regression": "spearman",
}


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def label_of(task: str, words: list[str]) -> str:
    said = [word for word in words if word in CUES]
    if task == "token":
        return " ".join(f"B-{word}" if word in CUES else "O" for word in words)
    if task == "multi_label":
        return "|".join(sorted(set(said)))
    return str(len(said)) if task == "regression" else said[0]


def rows(task: str, count: int, seed: int, *, pair: bool = False) -> Examples:
    """Texts of up to nine words, of which one to three are cues that tell the label."""
    rng = np.random.default_rng(seed)
    texts, labels = [], []
    for _ in range(count):
        words = [str(word) for word in rng.choice(WORDS, size=rng.integers(2, 7))]
        for cue in rng.choice(CUES, size=rng.integers(1, 4), replace=False):
            words.insert(int(rng.integers(0, len(words) + 1)), str(cue))
        texts.append(" ".join(words))
        labels.append(label_of(task, words))
    second = [f"{text.split()[0]} again" for text in texts] if pair else None
    return Examples(texts, second, labels, np.arange(1, count + 1, dtype=np.int64))


def saved(task: str, folder: Path, *, pair: bool = False, **settings: Any) -> TrainResult:
    config = TrainConfig(
        task=task,  # type: ignore[arg-type]
        metric=METRICS[task],
        learning_rate=2e-3,
        batch_size=16,
        max_length=settings.pop("max_length", 8),  # some texts are longer
        epochs=2,
        precision="fp32",
        **settings,
    )
    data = TrainData(
        train=rows(task, 60, 1, pair=pair),
        validation=rows(task, 20, 2, pair=pair),
        labels=LABELS[task],
        dataset_key="cafe02",
    )
    result = train(config, data, device=CPU, on_epoch=lambda report: "continue")
    result.save(folder)
    return result


def test_one_class_and_its_probability(tmp_path: Path) -> None:
    recorded = saved("single_label", tmp_path / "model", pair=True).predictions
    asked = rows("single_label", 20, 2, pair=True)
    found = predict(tmp_path / "model", asked.text_a, asked.text_b, device="cpu")
    assert [type(one) for one in found] == [ClassAnswer] * 20
    assert [one.label for one in found] == [CUES[k] for k in recorded.predicted]
    np.testing.assert_allclose([a.probability for a in found], recorded.probability, atol=1e-5)


def test_labels_are_said_from_their_thresholds_on(tmp_path: Path) -> None:
    recorded = saved("multi_label", tmp_path / "model").predictions
    found = predict(tmp_path / "model", rows("multi_label", 20, 2).text_a, device="cpu")
    for one, said, probabilities in zip(
        found, recorded.predicted, recorded.probabilities, strict=True
    ):
        assert isinstance(one, LabelsAnswer)
        assert one.labels == tuple(np.array(CUES)[said])
        assert list(one.probabilities) == list(CUES)
        np.testing.assert_allclose(list(one.probabilities.values()), probabilities, atol=1e-5)
    assert not all(abs(t - 0.5) < 1e-9 for t in recorded.thresholds)  # they are used, not 0.5


def test_every_token_has_its_tag_also_one_that_was_not_read(tmp_path: Path) -> None:
    recorded = saved("token", tmp_path / "model").predictions
    texts = rows("token", 20, 2).text_a
    found = predict(tmp_path / "model", texts, device="cpu")
    assert [type(one) for one in found] == [TagsAnswer] * 20
    said = [tag for one in found for tag in one.tags]
    assert said == [LABELS["token"][k] for k in recorded.predicted]
    shares = [share for one in found for share in one.probabilities]
    np.testing.assert_allclose(shares, recorded.probability, atol=1e-5)
    assert [" ".join(one.tokens) for one in found] == texts
    assert 0.0 in shares  # eight places hold six tokens


def test_numbers_are_told_in_the_units_of_the_labels(tmp_path: Path) -> None:
    recorded = saved("regression", tmp_path / "model").predictions
    found = predict(tmp_path / "model", rows("regression", 20, 2).text_a, device="cpu")
    assert [type(one) for one in found] == [NumberAnswer] * 20
    values = [one.value for one in found]
    np.testing.assert_allclose(values, recorded.predicted, atol=1e-4)
    assert np.std(values) > 0


def test_texts_are_repaired_as_the_reader_does(tmp_path: Path) -> None:
    saved("single_label", tmp_path / "model")
    clean, broken = "my card login", "my\x1fcard\x07 login"
    told = predict(tmp_path / "model", [clean, broken], device="cpu")
    assert told[0] == told[1]
    kept = predict(tmp_path / "model", [clean, broken], device="cpu", normalise=False)
    assert kept[0] == told[0]
    assert kept[1] != told[1]


@pytest.mark.parametrize("task", ["single_label", "token"])
def test_half_of_a_surrogate_pair_is_refused_with_its_row(
    tmp_path: Path, task: str, capsys: pytest.CaptureFixture[str]
) -> None:
    saved(task, tmp_path / "model")
    for normalise in (True, False):
        with pytest.raises(InputError, match="half of a surrogate pair") as caught:
            predict(tmp_path / "model", ["hi", "\ud800 hi"], device="cpu", normalise=normalise)
        assert (caught.value.code, caught.value.where) == ("bad_row", ("texts", "row 2"))
    path = tmp_path / "mails.jsonl"
    path.write_text(
        '{"text": "hi", "tokens": "hi"}\n\n{"text": "\\ud800", "tokens": ["\\ud800"]}\n'
    )
    assert main([str(tmp_path / "model"), "--input", str(path), "--device", "cpu"]) == 2
    assert capsys.readouterr().err.startswith("error: bad_row: Line 3 of input holds half of a")


def test_second_texts_must_be_as_many(tmp_path: Path) -> None:
    saved("single_label", tmp_path / "model")
    with pytest.raises(InputError, match="2 first texts and 1 second"):
        predict(tmp_path / "model", ["a", "b"], ["c"], device="cpu")


@pytest.fixture
def tagger(tmp_path: Path) -> Path:
    saved("token", tmp_path / "tagger", max_length=16)
    return tmp_path / "tagger"


def told(capsys: pytest.CaptureFixture[str]) -> list[dict[str, Any]]:
    return [json.loads(line) for line in capsys.readouterr().out.splitlines()]


def give(monkeypatch: pytest.MonkeyPatch, content: bytes) -> None:
    """As standard input."""
    monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(content)))


def test_the_command_reads_lines_and_keeps_their_order(
    tagger: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    texts = ["my login  app", "", "the payment"]
    give(monkeypatch, "".join(f"{text}\n" for text in texts).encode())
    assert main([str(tagger), "--device", "cpu", "--threads", "1"]) == 0
    found = told(capsys)
    assert [one["tokens"] for one in found] == [["my", "login", "app"], [], ["the", "payment"]]
    assert [len(one["tags"]) for one in found] == [3, 0, 2]


def test_the_command_reads_a_table_with_the_columns_that_options_name(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    saved("single_label", tmp_path / "model")
    path = tmp_path / "mails.csv"
    with path.open("w", newline="", encoding="utf-8") as file:
        lines = [("subject", "body"), ("login", "my card"), ("", "payment please")]
        csv.writer(file, delimiter=";").writerows(lines)
    asked = [str(tmp_path / "model"), "--input", str(path), "--delimiter", ";", "--device", "cpu"]
    assert main([*asked, "--text", "subject", "body"]) == 0
    joined = told(capsys)
    assert main([*asked, "--template", "{subject} {body}"]) == 0
    assert told(capsys)[0] == joined[0]
    expected = predict(tmp_path / "model", ["login my card", "payment please"], device="cpu")
    assert [(one["label"], one["probability"]) for one in joined] == [
        (one.label, pytest.approx(one.probability, abs=1e-6)) for one in expected
    ]


def test_the_command_takes_quotes_as_characters_where_it_is_told_so(
    tagger: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "tokens.tsv"
    path.write_text('tokens\tid\n"my login\t1\napp"\t2\n')
    asked = [str(tagger), "--input", str(path), "--device", "cpu"]
    assert main([*asked, "--quoting", "none"]) == 0
    assert [one["tokens"] for one in told(capsys)] == [['"my', "login"], ['app"']]


def test_the_command_reads_pairs_and_tokens_by_their_usual_names(
    tagger: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "tokens.jsonl"
    path.write_text('{"tokens": ["my", "login"]}\n{"tokens": ["app"]}\n')
    assert main([str(tagger), "--input", str(path), "--device", "cpu"]) == 0
    assert [one["tokens"] for one in told(capsys)] == [["my", "login"], ["app"]]

    saved("single_label", tmp_path / "pairs", pair=True)
    table = tmp_path / "pairs.csv"
    table.write_text("text_a,text_b\nmy login,my again\n")
    assert main([str(tmp_path / "pairs"), "--input", str(table), "--device", "cpu"]) == 0
    (one,) = predict(tmp_path / "pairs", ["my login"], ["my again"], device="cpu")
    assert told(capsys) == [
        {"label": one.label, "probability": pytest.approx(one.probability, abs=1e-6)}
    ]


def test_the_command_refuses_in_one_line(
    tagger: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    model_folder: Callable[[str], Path],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    give(monkeypatch, b"caf\xe9\n")
    table = tmp_path / "mails.csv"
    table.write_text("body\nhello\n")
    for arguments, said in (
        ([str(tmp_path / "none")], "unknown_model: "),
        ([str(model_folder("bert"))], "no_settings: "),
        ([str(tagger), "--threads", "0"], "invalid_value: It must be at least 1"),
        ([str(tagger), "--input", str(table)], "missing_column: The input file has no column"),
        ([str(tagger), "--input", str(tmp_path / "x.csv")], "no_file: "),
        ([str(tagger)], "not_utf8: Line 1 of standard input"),
    ):
        assert main(arguments) == 2
        error = capsys.readouterr().err
        assert error.startswith(f"error: {said}")
        assert error.count("\n") == 1
