"""Several label columns as files bring them: what is kept of each, counted, divided and refused."""

import json
from pathlib import Path
from typing import Any

import pytest
from pydantic import TypeAdapter

from model.config import DataOptions, LabelColumn
from model.data import fingerprint, normalise
from model.data_warnings import data_warnings
from model.dataset_summary import DataSummary
from model.division import divide_train
from model.errors import InputError
from model.heads import parse_label_columns, split_labels
from model.normalised_file import read_examples
from model.splits import split_positions

COLUMNS: dict[str, Any] = {
    "urgency": {"column": "urg", "task": "regression"},
    "topic": "about",
    "flags": LabelColumn("marks", "multi_label"),
}
ROWS: list[dict[str, Any]] = [
    {"text": "a", "about": "card", "urg": 3, "marks": ["new", "angry"]},
    {"text": "b", "about": "cash", "urg": None, "marks": []},
    {"text": "c", "about": None, "urg": 1.5, "marks": None},
    {"text": "d", "about": "", "urg": "", "marks": None},
    {"text": "e", "about": "card", "urg": 2, "marks": "angry"},
]


def options(**stated: Any) -> DataOptions:
    return TypeAdapter(DataOptions).validate_python({"label_columns": COLUMNS} | stated)


def read(folder: Path, rows: list[dict[str, Any]], how: DataOptions) -> DataSummary:
    path = folder / "train.jsonl"
    path.write_text("\n".join(map(json.dumps, rows)), encoding="utf-8")
    return normalise({"train": path}, how, folder / "out")


def test_a_row_counts_for_the_heads_it_has_labels_of(tmp_path: Path) -> None:
    rows: list[dict[str, Any]] = ROWS + [
        row | {"text": f"{row['text']} {k}"} for k in range(8) for row in ROWS[:3]
    ]
    summary = read(tmp_path, rows, options())
    assert summary.task == "multi_task"
    assert summary.heads == {
        "flags": "multi_label",
        "topic": "single_label",
        "urgency": "regression",
    }
    assert summary.columns["label"] == "marks, about, urg"
    # The fourth row has no label at all.
    assert summary.rows == {"train": 28}
    assert summary.dropped == {"train": {"missing": 1}}
    assert summary.labelled == {"train": {"flags": 19, "topic": 19, "urgency": 19}}
    assert summary.labels == (
        "flags.angry",
        "flags.new",
        "topic.card",
        "topic.cash",
        "urgency.< 3",
        "urgency.>= 3",
    )
    assert summary.label_counts["train"] == {
        "flags.angry": 10,
        "flags.new": 9,
        "topic.card": 10,
        "topic.cash": 9,
        "urgency.< 3": 10,
        "urgency.>= 3": 9,
    }
    first = [split_labels(x) for x in read_examples(tmp_path / "out" / "train.parquet").labels[:4]]
    assert first == [
        ["angry|new", "card", "3.0"],
        ["", "cash", None],
        [None, None, "1.5"],
        ["angry", "card", "2.0"],
    ]
    facts = json.loads(json.dumps({name: getattr(summary, name) for name in summary.__slots__}))
    warnings = data_warnings(facts, task="multi_task", keeps=False)
    assert (
        "9 of 28 train rows have no label of topic; they count for the other heads only."
        in warnings
    )
    assert not any("urgency.<" in warning for warning in warnings)


def test_the_order_of_the_options_changes_nothing_and_the_heads_tasks_do(tmp_path: Path) -> None:
    rows: list[dict[str, Any]] = [
        row | {"text": f"{row['text']} {k}"} for k in range(8) for row in ROWS
    ]
    one = read(tmp_path, rows, options())
    turned = options(label_columns=dict(reversed(COLUMNS.items())))
    assert fingerprint(read(tmp_path, rows, turned), turned) == fingerprint(one, options())
    other = options(label_columns=COLUMNS | {"urgency": "urg"})
    assert fingerprint(read(tmp_path, rows, other), other) != fingerprint(one, options())


def test_every_head_has_labels_in_every_split(tmp_path: Path) -> None:
    rows: list[dict[str, Any]] = [
        {
            "text": f"text {k}",
            "about": ("card", "cash")[k % 2] if k % 5 else None,
            "urg": k % 7 if k % 3 == 0 else None,
            "marks": None if k % 4 else ["new"][: k % 8],
        }
        for k in range(1, 201)
    ]
    how = options(validation_fraction=0.2, test_fraction=0.1)
    summary = read(tmp_path, rows, how)
    labels = read_examples(tmp_path / "out" / "train.parquet").labels
    divided = divide_train(
        tmp_path / "out" / "train.parquet", summary.task, how, seed=3, repeated_texts=False
    )
    shares = [
        [sum(split_labels(labels[k])[head] is not None for k in part) for head in range(3)]
        for part in split_positions(divided)
    ]
    for head, total in enumerate(summary.labelled["train"].values()):
        train, validation, test = (share[head] for share in shares)
        assert train + validation + test == total
        assert validation == pytest.approx(0.2 * total, abs=3)
        assert test == pytest.approx(0.1 * total, abs=3)


def test_a_head_with_too_few_labels_to_hold_some_out_is_named(tmp_path: Path) -> None:
    rows: list[dict[str, Any]] = [
        {"text": f"t {k}", "about": "xy"[k % 2], "urg": None, "marks": []} for k in range(40)
    ]
    for k, row in enumerate(rows[:2]):
        row |= {"urg": k, "marks": ["new"]}
    with pytest.raises(InputError, match="head urgency leave none for validation") as caught:
        read(tmp_path, rows, options())
    assert (caught.value.code, caught.value.where) == ("too_few_rows", ("train", "urgency"))


def test_a_file_without_a_label_of_a_head_is_named(tmp_path: Path) -> None:
    (tmp_path / "test.csv").write_text("text,about,urg,marks\nz,card,,new\n", encoding="utf-8")
    rows: list[dict[str, Any]] = [
        row | {"text": f"{row['text']} {k}"} for k in range(8) for row in ROWS
    ]
    path = tmp_path / "train.jsonl"
    path.write_text("\n".join(map(json.dumps, rows)), encoding="utf-8")
    with pytest.raises(InputError) as caught:
        normalise({"train": path, "test": tmp_path / "test.csv"}, options(), tmp_path / "out")
    assert (caught.value.code, caught.value.where) == ("no_rows", ("test", "urgency"))


@pytest.mark.parametrize(
    ("stated", "where", "said"),
    [
        ({"topic": "about", "tags": {"column": "bio", "task": "token"}}, "tags", "of their own"),
        ({"topic": "about", "ner": "tags"}, "ner", "called as one of tags"),
        ({"topic": "about", "a.b": "marks"}, "a.b", "names no head"),
        ({"topic": "about"}, None, "One column is options.label"),
        ({"topic": "about", "urgency": "nowhere"}, None, "no column 'nowhere'"),
        ({"topic": "about", "other": "text"}, None, "different columns"),
    ],
)
def test_what_cannot_be_learned_at_once_is_refused_with_advice(
    tmp_path: Path, stated: Any, where: str | None, said: str
) -> None:
    with pytest.raises(InputError, match=said) as caught:
        read(tmp_path, ROWS, options(label_columns=stated))
    assert caught.value.where[0] == "options"
    assert where is None or caught.value.where == ("options", "label_columns", where)


@pytest.mark.parametrize(
    "more",
    [{"label": "about"}, {"task": "single_label"}, {"label_columns": None, "task": "multi_task"}],
)
def test_options_that_contradict_are_refused(tmp_path: Path, more: Any) -> None:
    with pytest.raises(InputError) as caught:
        read(tmp_path, ROWS, options(**more))
    assert caught.value.where[:2] == ("options", "label_columns")


def test_the_separator_parts_only_labels_of_several_classes(tmp_path: Path) -> None:
    rows: list[dict[str, Any]] = [
        {"text": f"t {k}", "about": ("a;b", "c")[k % 2], "urg": k, "marks": ("x;y", "x")[k % 3 > 0]}
        for k in range(40)
    ]
    summary = read(tmp_path, rows, options(label_separator=";"))
    assert summary.labels[:4] == ("flags.x", "flags.y", "topic.a;b", "topic.c")


def test_the_text_form_of_the_option_says_the_same() -> None:
    assert parse_label_columns(["topic=about", "urgency=urg:regression", "odd=a: b"]) == {
        "topic": "about",
        "urgency": LabelColumn("urg", "regression"),
        "odd": "a: b",
    }
    for wrong in (["topic"], ["topic=a:mood"], ["topic=a", "topic=b"]):
        with pytest.raises(InputError) as caught:
            parse_label_columns(wrong)
        assert caught.value.where[:2] == ("options", "label_columns")
