"""Several text columns: how they are read, joined or encoded apart, pooled, saved and asked."""

import json
import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from transformers import pipeline

from model.classifier import Classifier
from model.config import DataOptions, TrainConfig
from model.data import fingerprint, normalise
from model.errors import InputError
from model.evaluation import evaluate
from model.labels.readers import texts_reader
from model.network import Head, build_network, load_base
from model.normalised_file import Examples, read_examples
from model.prediction import predict
from model.texts_file import read_texts_file
from model.tokens import Frame, Lengths, Ragged, Sequences, TokenTable, tokenize
from model.training import TrainData, TrainResult, train
from model.vocabulary import train_wordpiece
from model.windows import Windows, lost_pieces, read_texts

CPU = torch.device("cpu")
LABELS = ("login", "payment", "shipping")
COLUMNS = DataOptions(text_columns=("subject", "body", "notes"))
TICKETS: list[dict[str, Any]] = [
    {"subject": "lost", "body": "my card", "notes": "vip", "label": "bug"},
    {"subject": "thanks", "body": "all good", "notes": None, "label": "wish"},
    {"subject": " ", "body": "it hangs", "notes": "", "label": "bug"},
    {"subject": "lost", "body": "my card", "notes": "new", "label": "bug"},
    {"subject": "more", "body": "dark mode", "notes": "free", "label": "wish"},
    {"subject": "lost", "body": "my card", "notes": "vip", "label": "bug"},
]


def read(folder: Path, options: DataOptions, rows: list[dict[str, Any]] = TICKETS) -> Any:
    path = folder / "train.jsonl"
    path.write_text("\n".join(map(json.dumps, rows)), encoding="utf-8")
    summary = normalise({"train": path}, options, folder / "out")
    return summary, read_examples(folder / "out" / "train.parquet")


def test_columns_stay_apart_and_what_each_lacks_is_counted(tmp_path: Path) -> None:
    summary, examples = read(tmp_path, COLUMNS)
    assert examples.texts == (["lost", "lost", "more"], ["my card", "my card", "dark mode"],
                              ["vip", "new", "free"])  # fmt: skip
    assert summary.columns == {
        "text_a": "subject", "text_b": "body", "text_c": "notes", "label": "label"
    }  # fmt: skip
    assert summary.missing == {"train": {"text": 2, "label": 0}}
    assert summary.missing_texts == {"train": {"subject": 1, "body": 0, "notes": 2}}
    # The last row repeats the first; the fourth differs from it in the third text alone.
    assert summary.dropped == {"train": {"missing": 2, "duplicate": 1}}
    assert summary.words["max"] == 4


def test_the_missing_policy_goes_for_every_column(tmp_path: Path) -> None:
    _, examples = read(tmp_path, replace(COLUMNS, missing="empty"))
    assert [column[2] for column in examples.texts] == ["", "it hangs", ""]
    _, examples = read(tmp_path, replace(COLUMNS, missing="token", missing_token="[none]"))
    assert [column[1] for column in examples.texts] == ["thanks", "all good", "[none]"]
    with pytest.raises(InputError, match="Line 2 of train has no text in 'notes'") as caught:
        read(tmp_path, replace(COLUMNS, missing="error"))
    assert caught.value.code == "missing_value"


def test_two_columns_are_a_pair(tmp_path: Path) -> None:
    pair = DataOptions(text="subject", text_b="body")
    both = DataOptions(text_columns=("subject", "body"))
    keys = {fingerprint(read(tmp_path, options)[0], options) for options in (pair, both)}
    assert len(keys) == 1


@pytest.mark.parametrize(
    ("options", "code"),
    [
        (DataOptions(text_columns=("subject",)), "invalid_value"),
        (DataOptions(text_columns=("subject", "subject")), "invalid_value"),
        (DataOptions(text_columns=("subject", "label")), "invalid_value"),
        (DataOptions(text_columns=("subject", "gone")), "missing_column"),
        (DataOptions(text_columns=("subject", "body"), text="notes"), "invalid_value"),
        (DataOptions(text_columns=("subject", "body"), text_b="notes"), "invalid_value"),
        (DataOptions(text_columns=("subject", "body"), template="{notes}"), "invalid_value"),
        (DataOptions(text_columns=("subject", "body"), task="token"), "invalid_value"),
    ],
)
def test_columns_that_make_no_sense_are_refused(
    tmp_path: Path, options: DataOptions, code: str
) -> None:
    with pytest.raises(InputError) as caught:
        read(tmp_path, replace(options, label="label"))
    assert caught.value.code == code


@given(
    st.lists(
        st.tuples(*[st.sampled_from(["", "a", "b", "Ã¼", " ", "a\nb"])] * 3), min_size=4, max_size=9
    ),
    st.sampled_from(["drop", "empty", "token"]),
)
def test_every_text_is_kept_in_its_column_or_counted_as_missing(
    tmp_path_factory: pytest.TempPathFactory, texts: list[tuple[str, str, str]], missing: Any
) -> None:
    rows = [
        dict(zip(("subject", "body", "notes"), row, strict=True)) | {"label": "xy"[k % 2]}
        for k, row in enumerate(texts)
    ]
    options = replace(COLUMNS, missing=missing, duplicates="keep", normalise=False)
    try:
        summary, examples = read(tmp_path_factory.mktemp("data"), options, rows)
    except InputError as error:
        assert error.code in ("no_rows", "one_class", "too_few_rows")  # noqa: PT017
        return
    found = [[text.strip() for text in row] for row in texts]
    assert summary.missing_texts["train"] == {
        name: sum(not row[k] for row in found)
        for k, name in enumerate(("subject", "body", "notes"))
    }
    kept = found if missing != "drop" else [row for row in found if all(row)]
    expected = [
        [text or ("[missing]" if missing == "token" else "") for text in row] for row in kept
    ]
    assert [[text.strip() for text in row] for row in zip(*examples.texts, strict=True)] == expected


def ragged(*texts: str) -> Ragged:
    """A letter is a piece, `a` is 1."""
    ids = np.array([ord(letter) - 96 for letter in "".join(texts)], dtype=np.int32)
    offsets: Lengths = np.cumsum([0, *map(len, texts)]).astype(np.int64)
    return Ragged(ids, offsets)


def table(*rows: tuple[str, str, str]) -> TokenTable:
    first, second, third = zip(*rows, strict=True)
    start, end = ((27, 0),), ((28, 0),)
    return TokenTable(
        ragged(*first),
        ragged(*second),
        Frame(start, end, ((28, 1),), 0, 1, texts=3),
        None,
        more=(ragged(*third),),
        single=Frame(start, (), end, 0, 0, texts=1),
    )


def spell(sequences: Sequences | Windows) -> list[str]:
    assert isinstance(sequences, Sequences)
    names = " abcdefghijklmnopqrstuvwxyz[|"
    ends = zip(sequences.offsets, sequences.offsets[1:], strict=False)
    return ["".join(names[piece] for piece in sequences.ids[a:b]) for a, b in ends]


def test_joined_columns_stand_in_one_sequence_whose_longest_text_is_cut_first() -> None:
    rows = table(("ab", "uvw", "x"), ("abcdefg", "uv", "wxyz"), ("abcde", "uvwxy", "mnopq"))
    joined = read_texts(rows, TrainConfig(max_length=4 + 8))
    # 13 pieces: of seven, two and four the room of eight leaves three, two and three; of three
    # equally long ones two, three and three.
    assert spell(joined) == ["[ab|uvw|x|", "[abc|uv|wxy|", "[ab|uvw|mno|"]
    assert isinstance(joined, Sequences)
    assert joined.type_ids[:10].tolist() == [0, 0, 0, 0, 1, 1, 1, 1, 1, 1]
    assert (joined.truncated_rows, joined.lost_tokens) == (2, 5 + 7)
    tail = read_texts(rows, TrainConfig(max_length=4 + 8, truncation="tail"))
    assert spell(tail)[1] == "[efg|uv|xyz|"
    windows = read_texts(
        rows, TrainConfig(max_length=4 + 8, truncation="windows", window_stride=1.0)
    )
    assert isinstance(windows, Windows)
    assert spell(windows.rows)[1:4] == ["[abc|uv|wxy|", "[def|uv|wxy|", "[efg|uv|wxy|"]
    assert windows.lost_tokens == 1 + (2 + 2)  # of what does not slide


APART = TrainConfig(columns="apart", max_length=5, precision="fp32")


def test_apart_every_text_is_a_sequence_of_its_own_and_empty_ones_are_none() -> None:
    rows = table(("ab", "uvwxy", "m"), ("", "", ""), ("", "z", "mnopqr"))
    apart = read_texts(rows, APART)
    assert isinstance(apart, Windows)
    assert spell(apart.rows) == ["[ab|", "[uvw|", "[m|", "[|", "[z|", "[mno|"]
    assert apart.offsets.tolist() == [0, 3, 4, 6]
    assert apart.lengths.tolist() == [4 + 5 + 3, 2, 3 + 5]
    assert (apart.truncated_rows, apart.lost_tokens) == (2, 2 + 3)
    assert lost_pieces(rows, APART).tolist() == [2, 0, 3]


def test_apart_every_text_may_have_windows_of_its_own() -> None:
    rows = table(("ab", "uvwxyz", "m"), ("", "", "mnop"))
    config = replace(APART, truncation="windows", window_stride=1.0, max_windows=2)
    apart = read_texts(rows, config)
    assert isinstance(apart, Windows)
    assert isinstance(apart.rows, Windows)
    assert spell(apart.rows.rows) == ["[ab|", "[uvw|", "[xyz|", "[m|", "[mno|", "[nop|"]
    assert (apart.offsets.tolist(), apart.rows.offsets.tolist()) == ([0, 3, 4], [0, 1, 3, 4, 6])
    assert apart.lengths.tolist() == [4 + 10 + 3, 10]
    assert (apart.truncated_rows, apart.lost_tokens) == (0, 0)
    few = replace(config, max_windows=1)
    assert lost_pieces(rows, few).tolist() == [3, 1]
    assert read_texts(rows, few).lost_tokens == 4


WORDS = st.text(st.sampled_from("abcdefgh"), max_size=9)


@given(st.lists(st.tuples(WORDS, WORDS, WORDS), min_size=1, max_size=6), st.integers(5, 20))
def test_no_piece_is_read_that_is_not_there_nor_lost_without_being_counted(
    rows: list[tuple[str, str, str]], max_length: int
) -> None:
    texts = table(*rows)
    room = max_length - 4
    for kept, row in zip(texts.kept(max_length).T.tolist(), rows, strict=True):
        assert sum(kept) == min(room, sum(map(len, row)))
        cut = [k for k, text in zip(kept, row, strict=True) if k < len(text)]
        assert all(k <= min(cut) + 1 for k in kept if cut)  # no text is longer than one that is cut
    apart = read_texts(texts, replace(APART, max_length=max_length))
    assert isinstance(apart, Windows)
    assert len(apart) == len(rows)
    expected = [[text for text in row if text] or [""] for row in rows]
    assert [[f"[{text[: max_length - 2]}|" for text in row] for row in expected] == [
        spell(apart.rows)[a:b] for a, b in zip(apart.offsets, apart.offsets[1:], strict=False)
    ]


@pytest.mark.parametrize("pooling", ["mean", "max"])
@pytest.mark.parametrize("model_type", ["bert", "distilbert"])
def test_the_logits_of_a_row_are_pooled_over_its_texts_and_theirs_over_their_windows(
    model_folder: Callable[[str], Path], model_type: str, pooling: Any
) -> None:
    network = build_network(
        load_base(model_folder(model_type)), Head(LABELS), device=CPU, dropout=0.0
    )
    classifier = Classifier(network.eval(), 40, CPU, "fp32")
    rows = table(("ab", "uvwxyz", "m"), ("", "", "mnop"))
    windows = replace(APART, truncation="windows", window_stride=1.0, column_pooling=pooling)
    apart = read_texts(rows, windows)
    assert isinstance(apart, Windows)
    assert isinstance(apart.rows, Windows)
    assert isinstance(apart.rows.rows, Sequences)
    single = classifier.logits(apart.rows.rows, np.arange(6))  # ab uvw xyz m mno nop
    found = classifier.logits(apart, np.array([1, 0]))
    texts = torch.stack([single[0], single[1:3].mean(0), single[3]])
    first = texts.mean(0) if pooling == "mean" else texts.max(0).values
    expected = torch.stack([single[4:].mean(0), first])
    torch.testing.assert_close(found, expected, atol=1e-5, rtol=0)


def test_a_tokenizer_gives_texts_alone_and_together_its_own_frame() -> None:
    tokenizer = train_wordpiece(["my card is lost"] * 9, 60)
    found = tokenize(tokenizer, ["my card"], ["lost"], ["card"])
    cls, sep = (tokenizer.token_to_id(name) for name in ("[CLS]", "[SEP]"))
    assert found.single is not None
    assert [len(frame) for frame in (found.frame, found.single)] == [4, 2]
    joined = found.fit(20)
    pair = tokenizer.encode("my card", "lost [SEP] card")
    assert joined.ids.tolist() == pair.ids
    assert joined.type_ids.tolist() == pair.type_ids
    assert (joined.ids[0], joined.ids[-1]) == (cls, sep)
    assert found.pieces == 4


CONFIG = TrainConfig(
    max_length=24, learning_rate=2e-3, batch_size=8, epochs=2, dropout=0.0, precision="fp32"
)


def columned(examples: Examples, columns: int) -> Examples:
    """Every text's words dealt out to columns, which may leave one empty."""
    words = [text.split() for text in examples.text_a]
    first, second, *more = ([" ".join(row[k::columns]) for row in words] for k in range(columns))
    return Examples(first, second, examples.labels, examples.rows, tuple(more))


@pytest.fixture
def data(examples: Callable[[int, int], Examples]) -> Callable[[int], TrainData]:
    return lambda columns: TrainData(
        train=columned(examples(48, 1), columns),
        validation=columned(examples(24, 2), columns),
        labels=LABELS,
        dataset_key=f"words {columns}",
    )


def run(config: TrainConfig, data: TrainData) -> TrainResult:
    return train(config, data, device=CPU, on_epoch=lambda report: "continue")


def said_by(result: TrainResult) -> list[tuple[str, float]]:
    found = result.predictions
    pairs = zip(found.predicted.tolist(), found.probability.tolist(), strict=True)
    return [(LABELS[label], probability) for label, probability in pairs]


@pytest.mark.parametrize("columns", [2, 3])
def test_a_joined_model_says_in_the_pipeline_what_the_trial_recorded(
    data: Callable[[int], TrainData], tmp_path: Path, columns: int
) -> None:
    result = run(CONFIG, data(columns))
    assert result.truncated_share == 0
    result.save(tmp_path / "saved")
    classify: Any = pipeline("text-classification", str(tmp_path / "saved"))
    separator = classify.tokenizer.sep_token
    texts = data(columns).validation.texts
    rows = [
        {"text": first, "text_pair": f" {separator} ".join(others)}
        for first, *others in zip(*texts, strict=True)
    ]
    found = [(said["label"], said["score"]) for said in classify(rows)]
    assert [label for label, _ in found] == [label for label, _ in said_by(result)]
    np.testing.assert_allclose(
        [score for _, score in found], [score for _, score in said_by(result)], atol=1e-5
    )
    asked = predict(tmp_path / "saved", *texts)
    assert [one.label for one in asked] == [label for label, _ in found]
    card = (tmp_path / "saved" / "README.md").read_text(encoding="utf-8")
    assert '{"text": "first text", "text_pair": "second text"' in card
    assert ("classify.tokenizer.sep_token" in card) == (columns == 3)


@pytest.mark.parametrize("pooling", ["mean", "max"])
def test_a_model_of_texts_apart_is_asked_as_its_card_says(
    data: Callable[[int], TrainData], tmp_path: Path, pooling: Any
) -> None:
    config = replace(CONFIG, columns="apart", column_pooling=pooling)
    result = run(config, data(3))
    result.save(tmp_path / "saved")
    folder, texts = tmp_path / "saved", data(3).validation.texts
    again = evaluate(folder, data(3).validation, LABELS, config, device=CPU)
    assert again.metrics == pytest.approx(result.metrics, abs=1e-5)
    asked = predict(folder, *texts)
    assert [one.label for one in asked] == [label for label, _ in said_by(result)]
    np.testing.assert_allclose(
        [one.probability for one in asked], [score for _, score in said_by(result)], atol=1e-5
    )
    card = (folder / "README.md").read_text(encoding="utf-8")
    code = re.findall(r"```python\n(.*?)```", card, re.DOTALL)[0]
    code = code.replace("path/to/this/folder", str(folder))
    for number in (0, 5):
        row = [column[number] for column in texts if column[number]]
        listed = code.replace('["first text", "second text", "third text"]', repr(row))
        names: dict[str, Any] = {}
        exec(listed, names)
        values = torch.tensor([names["row"][label] for label in LABELS]).softmax(0)
        assert max(names["row"], key=names["row"].get) == asked[number].label
        assert values.max().item() == pytest.approx(asked[number].probability, abs=1e-5)


def test_a_model_asks_for_as_many_texts_as_it_learned_from(
    data: Callable[[int], TrainData], tmp_path: Path
) -> None:
    run(replace(CONFIG, epochs=1), data(2)).save(tmp_path / "saved")
    with pytest.raises(InputError, match="reads 2 texts a row; got 3"):
        predict(tmp_path / "saved", ["a"], ["b"], ["c"])
    with pytest.raises(InputError, match="reads 2 texts a row; got 1"):
        predict(tmp_path / "saved", ["a"])


def test_one_text_cannot_be_apart(examples: Callable[[int, int], Examples]) -> None:
    one = TrainData(
        train=examples(24, 1), validation=examples(12, 2), labels=LABELS, dataset_key="one"
    )
    with pytest.raises(InputError, match="data option text_columns") as caught:
        run(replace(CONFIG, columns="apart"), one)
    assert caught.value.where == ("columns",)


def test_augmented_columns_are_cut_as_they_are_read(data: Callable[[int], TrainData]) -> None:
    config = replace(CONFIG, columns="apart", word_dropout=0.3, epochs=1)
    first, second = run(config, data(3)), run(config, data(3))
    assert first.metrics == second.metrics
    assert first.metrics != run(replace(config, word_dropout=0.0), data(3)).metrics


def test_a_file_of_texts_alone_is_read_by_its_columns(tmp_path: Path) -> None:
    path = tmp_path / "input.csv"
    path.write_text("body,subject,notes\nb,a,c\nB,A,\n")
    found = read_texts_file(path, COLUMNS, texts_reader("single_label"))
    assert found == (["a", "A"], ["b", "B"], ["c", ""])


@pytest.mark.parametrize(
    "options",
    [
        replace(COLUMNS, missing="token"),
        DataOptions(template="{subject} {notes}", missing="token", missing_token="[?]"),
        DataOptions(text="subject", text_b="notes", missing="token"),
    ],
)
def test_a_missing_text_is_asked_about_as_it_was_learned_from(
    tmp_path: Path, options: DataOptions
) -> None:
    path = tmp_path / "train.csv"
    rows = [f"body {k},subject {k},{'note' * (k % 2)},{'xy'[k % 3 > 0]}" for k in range(12)]
    path.write_text("\n".join(["body,subject,notes,label", *rows]) + "\n")
    normalise({"train": path}, options, tmp_path / "out")
    learned = read_examples(tmp_path / "out" / "train.parquet")
    asked = read_texts_file(path, options, texts_reader("single_label"))
    assert asked == learned.texts
    assert any(options.missing_token in text for column in asked for text in column)
