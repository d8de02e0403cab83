"""Tags per token: entities and figures by hand, alignment with word pieces, saved models."""

import json
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from stopped_run import whole_and_resumed
from tokenizers import Tokenizer
from torch.nn import functional
from transformers import pipeline

from model.config import DataOptions, TrainConfig
from model.data import normalise
from model.errors import InputError
from model.evaluation import evaluate
from model.normalised_file import Examples, read_examples
from model.tasks.entities import entities
from model.tasks.tags import TagLoss, TagPredictions, TagTask
from model.tokens import tokenize_words
from model.training import TrainData, TrainResult, train
from model.vocabulary import bert_tokenizer, train_wordpiece

CPU = torch.device("cpu")
LABELS = ("O", "B-loc", "I-loc", "B-per", "I-per")
CONFIG = TrainConfig(
    task="token",
    metric="entity_f1",
    learning_rate=3e-3,
    batch_size=16,
    max_length=24,
    epochs=2,
    precision="fp32",
)


@pytest.mark.parametrize(
    ("tags", "found"),
    [
        ("O B-per I-per O", {(1, 3): "per"}),
        ("B-per B-per", {(0, 1): "per", (1, 2): "per"}),
        ("O I-loc I-loc", {(1, 3): "loc"}),
        ("B-per I-loc I-loc", {(0, 1): "per", (1, 3): "loc"}),
        ("I-per O I-per", {(0, 1): "per", (2, 3): "per"}),
        ("B-per I-per B-per I-per", {(0, 2): "per", (2, 4): "per"}),
        ("O", {}),
    ],
)
def test_entities_begin_and_end_where_seqeval_has_them(
    tags: str, found: dict[tuple[int, int], str]
) -> None:
    assert entities(tags.split()) == found


@given(st.lists(st.sampled_from(["O", "B-per", "I-per", "B-loc", "I-loc"]), max_size=8))
def test_an_entity_is_a_longest_run_of_one_type_that_nothing_begins_anew(tags: list[str]) -> None:
    """Every pair of places is tried by the rules as conlleval states them."""

    def begins(place: int) -> bool:
        before = tags[place - 1][2:] if place else ""
        return tags[place].startswith("B-") or tags[place][2:] != before

    def is_entity(start: int, end: int) -> bool:
        kind = tags[start][2:]
        return (
            kind != ""
            and begins(start)
            and all(tag == f"I-{kind}" for tag in tags[start + 1 : end])
            and (end == len(tags) or tags[end] != f"I-{kind}")
        )

    places = range(len(tags) + 1)
    expected = {(a, b): tags[a][2:] for a in places for b in places if a < b and is_entity(a, b)}
    assert entities(tags) == expected


def test_the_figures_are_those_worked_out_by_hand() -> None:
    true = ["B-per", "I-per", "O", "B-loc", "O", "B-loc"]
    said = ["B-per", "I-per", "O", "B-per", "B-loc", "O"]
    ids = {label: index for index, label in enumerate(LABELS)}
    predictions = TagPredictions(
        rows=np.array([1, 2]),
        offsets=np.array([0, 4, 6]),
        true=np.array([ids[tag] for tag in true]),
        predicted=np.array([ids[tag] for tag in said]),
        probability=np.ones(6, dtype=np.float32),
    )
    result = TagTask.score(LABELS, predictions, loss=0.5)
    # True: one per, two loc. Said: per, per (a loc), loc (nothing there). Right: the first.
    assert result.metrics["entity_precision"] == pytest.approx(1 / 3)
    assert result.metrics["entity_recall"] == pytest.approx(1 / 3)
    assert result.metrics["entity_f1"] == pytest.approx(1 / 3)
    assert result.metrics["macro_f1"] == pytest.approx((2 / 3 + 0) / 2)
    assert result.metrics["accuracy"] == pytest.approx(3 / 6)
    assert result.metrics["loss"] == 0.5
    loc, per = result.per_class
    assert (per.label, per.precision, per.recall, per.support) == ("per", 0.5, 1, 1)
    assert (loc.label, loc.precision, loc.recall, loc.f1, loc.support) == ("loc", 0, 0, 0, 2)
    by_type, by_tag = result.matrices
    assert (by_type.kind, by_type.unit, by_type.labels) == (
        "entities", "entities", ("loc", "per", "∅")
    )  # fmt: skip
    assert by_type.counts.tolist() == [[0, 1, 1], [0, 1, 0], [1, 0, 0]]
    assert (by_tag.kind, by_tag.unit, by_tag.labels) == ("tokens", "tokens", LABELS)
    assert by_tag.counts[0].tolist() == [1, 1, 0, 0, 0]
    assert by_tag.counts[1].tolist() == [1, 0, 0, 1, 0]
    assert by_tag.counts.sum() == 6


@pytest.fixture(scope="module")
def tokenizer() -> Tokenizer:
    pieces = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "ann", "##a", "went", "to", "-", "york"]
    trained = train_wordpiece(["a"], 20)
    return bert_tokenizer({piece: k for k, piece in enumerate(pieces)}, trained.normalizer)


def tagged(rows: list[tuple[str, str]]) -> Examples:
    texts, labels = zip(*rows, strict=True)
    return Examples(list(texts), None, list(labels), np.arange(1, len(rows) + 1))


def test_a_word_is_told_by_its_first_piece_and_what_is_cut_off_is_o(tokenizer: Tokenizer) -> None:
    # Pieces: ann ##a | went | to | york - york, and in row 2 a word without any piece.
    rows = tagged([("anna went to york-york", "B-per O O B-loc"), ("\u200b york", "O B-loc")])
    table = tokenize_words(tokenizer, [text.split(" ") for text in rows.text_a])
    sequences = table.fit(6)
    assert sequences.begins is not None
    assert sequences.begins.tolist() == [-1, 0, -1, 1, 2, -1, -1, 1, -1]
    task = TagTask(LABELS)
    split = task.split("test", rows, sequences)
    assert split.units(np.array([1, 0])).tolist() == [5, 0, 1, 2]
    observed = np.array([[3, 0.9, 0.1], [0, 0.8, 0.2], [0, 0.7, 0.3], [1, 0.6, 0.4]])
    result = task.evaluate(split, observed.astype(np.float32))
    assert [LABELS[k] for k in result.predictions.predicted] == [
        "B-per", "O", "O", "O", "O", "B-loc"
    ]  # fmt: skip
    assert result.metrics["loss"] == pytest.approx(0.25)
    assert result.metrics["entity_recall"] == pytest.approx(2 / 3)
    lines = list(TagTask.table(result)[1])
    assert lines[3] == (1, 4, "B-loc", "O", "")
    assert lines[5] == (2, 2, "B-loc", "B-loc", "0.600000")
    tail = table.fit(6, "tail").begins
    assert tail is not None
    assert tail.tolist()[:6] == [-1, 2, 3, -1, -1, -1]


def test_the_loss_is_that_of_first_pieces_alone(tokenizer: Tokenizer) -> None:
    rows = tagged([("anna went", "B-per O"), ("to york-york", "O B-loc")])
    sequences = tokenize_words(tokenizer, [text.split(" ") for text in rows.text_a]).fit(8)
    split = TagTask(LABELS).split("train", rows, sequences)
    loss = TagLoss(split, len(LABELS), CONFIG, CPU)
    logits = torch.tensor(np.random.default_rng(0).normal(size=(2, 6, 5)), dtype=torch.float32)
    targets = torch.full((2, 6), -100)
    targets[0, 1], targets[0, 3], targets[1, 1], targets[1, 2] = 3, 0, 0, 1
    expected = functional.cross_entropy(logits.transpose(1, 2), targets)
    positions = np.array([0, 1])
    assert loss.weight(positions) == 4
    assert loss.total(logits, positions).item() / 4 == pytest.approx(expected.item(), abs=1e-6)


def jsonl(folder: Path, *rows: dict[str, Any]) -> Path:
    path = folder / "train.jsonl"
    path.write_text("\n".join(json.dumps(row) for row in rows), encoding="utf-8")
    return path


@pytest.mark.parametrize(
    ("tokens", "tags", "code"),
    [
        (["a", "b"], ["O"], "bad_row"),
        (["a b"], ["O"], "bad_row"),
        (["a", ""], ["O", "O"], "bad_row"),
        (["a"], ["per"], "bad_label"),
        (["a"], ["S-per"], "bad_label"),
        (["a"], ["B-"], "bad_label"),
        (["a"], [3], "bad_label"),
        ([["a"]], ["O"], "bad_row"),
    ],
)
def test_what_is_no_tagged_text_is_refused_with_its_line(
    tmp_path: Path, tokens: Any, tags: Any, code: str
) -> None:
    good = {"tokens": ["x"], "tags": ["B-per"]}
    path = jsonl(tmp_path, good, {"tokens": tokens, "tags": tags}, good)
    with pytest.raises(InputError) as caught:
        normalise({"train": path}, DataOptions(), tmp_path / "out")
    assert (caught.value.code, caught.value.where) == (code, ("train", "line 2"))


def test_tokens_and_tags_are_read_and_every_type_has_both_its_tags(tmp_path: Path) -> None:
    rows = [{"tokens": ["in", "York", f"n{k}"], "tags": ["O", "B-loc", "O"]} for k in range(9)]
    path = jsonl(tmp_path, *rows, {"tokens": ["x", "y"], "tags": ["O", "I-per"]})
    summary = normalise({"train": path}, DataOptions(), tmp_path / "out")
    assert (summary.task, summary.labels) == ("token", LABELS)
    assert summary.label_counts["train"] == {"O": 19, "B-loc": 9, "I-per": 1}
    examples = read_examples(tmp_path / "out" / "train.parquet")
    assert (examples.text_a[0], examples.labels[0]) == ("in York n0", "O B-loc O")


def make_examples(rows: int, seed: int) -> Examples:
    rng = np.random.default_rng(seed)
    made = []
    for _ in range(rows):
        words = [(str(word), "O") for word in rng.choice(["we", "met", "in", "the"], size=4)]
        name = [("anna", "B-per"), ("lee", "I-per")][: int(rng.integers(1, 3))]
        town = [("new", "B-loc"), ("york", "I-loc")]
        parts = [*words[:2], *name, *words[2:], *(town if rng.random() < 0.6 else [])]
        made.append(tuple(" ".join(column) for column in zip(*parts, strict=True)))
    return tagged(made)  # type: ignore[arg-type]


@pytest.fixture(scope="module")
def data() -> TrainData:
    return TrainData(
        train=make_examples(96, 1),
        validation=make_examples(32, 2),
        labels=LABELS,
        dataset_key="names",
    )


def run(data: TrainData, config: TrainConfig = CONFIG, **options: Any) -> TrainResult:
    return train(config, data, device=CPU, on_epoch=lambda _: "continue", **options)


def test_it_learns_and_the_saved_model_and_its_pipeline_give_the_recorded_predictions(
    data: TrainData, tmp_path: Path
) -> None:
    torch.set_num_threads(1)
    result = run(data, replace(CONFIG, epochs=6))
    assert result.metrics["entity_f1"] > 0.9
    result.save(tmp_path / "saved")
    again = evaluate(tmp_path / "saved", data.validation, LABELS, CONFIG, device=CPU)
    assert again.metrics == pytest.approx(result.metrics, abs=1e-5)
    found = result.predictions
    assert again.predictions.predicted.tolist() == found.predicted.tolist()
    tag = pipeline(
        "token-classification",
        str(tmp_path / "saved"),
        aggregation_strategy="first",
        device="cpu",
    )
    for row, text in enumerate(data.validation.text_a):
        words = text.split(" ")
        begin = [sum(len(word) + 1 for word in words[:k]) for k in range(len(words))]
        said: Any = tag(words, is_split_into_words=True)
        said = said[0] if said and isinstance(said[0], list) else said
        tags = [LABELS[k] for k in found.predicted[found.offsets[row] : found.offsets[row + 1]]]
        recorded = {(begin[start], kind) for (start, _), kind in entities(tags).items()}
        assert {(group["start"], group["entity_group"]) for group in said} == recorded


def test_a_run_stopped_within_an_epoch_ends_as_if_it_had_not_been(
    data: TrainData, tmp_path: Path
) -> None:
    whole, resumed = whole_and_resumed(partial(run, data), tmp_path / "state")
    assert resumed.predictions.predicted.tolist() == whole.predictions.predicted.tolist()
