import dataclasses
from pathlib import Path

import pytest

from model.config import DataOptions, Task
from model.data import fingerprint, normalise
from model.data_warnings import data_warnings
from model.dataset_summary import DataSummary
from model.errors import InputError
from model.normalised_file import read_examples

TRAIN = "text,label\nhangs,bug\nhangs,bug\nhangs,wish\ndark,wish\nfails,bug\nlight,wish\nslow,bug\n"
TEST = "text,label\nfails,bug\nnew,wish\nnew,wish\n"


def read(
    folder: Path, options: DataOptions | None = None, train: str = TRAIN, **others: str
) -> DataSummary:
    (folder / "train.csv").write_text(train)
    paths = {"train": folder / "train.csv"}
    for split, content in others.items():
        paths[split] = folder / f"{split}.csv"
        paths[split].write_text(content)
    return normalise(paths, options or DataOptions(), folder / "out")  # type: ignore[arg-type]


def kept(folder: Path, split: str = "train") -> list[int]:
    return [int(row) for row in read_examples(folder / "out" / f"{split}.parquet").rows]


def told(summary: DataSummary, *, keeps: bool = False) -> str:
    return "\n".join(data_warnings(dataclasses.asdict(summary), task=summary.task, keeps=keeps))


def test_repeats_and_what_stands_in_test_leave_train_alone_and_are_counted(tmp_path: Path) -> None:
    summary = read(tmp_path, test=TEST)
    assert kept(tmp_path) == [1, 3, 4, 6, 7]
    assert kept(tmp_path, "test") == [1, 2, 3]
    assert summary.dropped == {"train": {"duplicate": 1, "held_out": 1}, "test": {}}
    assert summary.duplicates == {"train": 2, "test": 1}
    assert summary.overlap == {"test": 1}
    assert summary.rows == {"train": 5, "test": 3}
    assert summary.label_counts["train"] == {"bug": 2, "wish": 3}
    assert "1 of 7 train rows were dropped, as their text also stands in validation or test." in (
        told(summary)
    )


def test_one_text_with_two_labels_is_named_with_its_rows_and_stays(tmp_path: Path) -> None:
    summary = read(tmp_path)
    assert summary.conflicts["train"] == {"texts": 1, "rows": 3, "examples": [[1, 2, 3]]}
    assert {1, 3} <= set(kept(tmp_path))
    assert "1 texts of train stand there with different labels, in 3 rows" in told(summary)


def test_what_is_kept_on_request_is_told_and_is_another_data_set(tmp_path: Path) -> None:
    options = DataOptions(duplicates="keep")
    dropped = fingerprint(read(tmp_path, test=TEST), DataOptions())
    summary = read(tmp_path, options, test=TEST)
    assert kept(tmp_path) == [1, 2, 3, 4, 5, 6, 7]
    assert summary.dropped == {"train": {}, "test": {}}
    assert fingerprint(summary, options) != dropped
    assert "1 texts of test also stand in train; its scores will be too good." in (
        told(summary, keeps=True)
    )


@pytest.mark.parametrize(
    ("task", "labels"),
    [("multi_label", ("a|b", "a", "b")), ("regression", ("1", "2", "3"))],
)
def test_repeats_are_dropped_whatever_the_task(
    tmp_path: Path, task: Task, labels: tuple[str, ...]
) -> None:
    rows = [(f"text {k % 9}", labels[k % 3]) for k in range(12)]
    train = "text,label\n" + "".join(f"{text},{label}\n" for text, label in rows)
    summary = read(tmp_path, DataOptions(task=task, label="label"), train)
    assert summary.dropped == {"train": {"duplicate": 3}}
    assert summary.task == task


def test_equal_sentences_with_other_tags_conflict(tmp_path: Path) -> None:
    lines = [
        '{"tokens": ["Ann", "ran"], "tags": ["B-per", "O"]}',
        '{"tokens": ["Ann", "ran"], "tags": ["O", "O"]}',
        '{"tokens": ["Bob", "sat"], "tags": ["B-per", "O"]}',
        '{"tokens": ["Bob", "sat"], "tags": ["B-per", "O"]}',
        '{"tokens": ["it", "rains"], "tags": ["O", "O"]}',
    ]
    path = tmp_path / "train.jsonl"
    path.write_text("\n".join(lines))
    summary = normalise({"train": path}, DataOptions(validation_fraction=0.4), tmp_path / "out")
    assert summary.task == "token"
    assert summary.conflicts["train"] == {"texts": 1, "rows": 2, "examples": [[1, 2]]}
    assert summary.dropped == {"train": {"duplicate": 1}}


def test_a_class_that_dropping_would_take_from_train_is_named(tmp_path: Path) -> None:
    train = "text,label\na,x\nb,x\nc,y\nd,y\ne,rare\n"
    with pytest.raises(InputError) as caught:
        read(tmp_path, None, train, test="text,label\ne,rare\n")
    assert caught.value.code == "unseen_label"
    assert "'rare'" in caught.value.detail
    assert not (tmp_path / "out").exists()


def test_held_out_rows_of_an_unseen_class_are_dropped_on_request_and_counted(
    tmp_path: Path,
) -> None:
    test = "text,label\nnew,wish\nodd,praise\n"
    with pytest.raises(InputError) as caught:
        read(tmp_path, test=test)
    assert caught.value.code == "unseen_label"
    assert caught.value.where == ("test", "line 3")
    assert "'praise'" in caught.value.detail
    summary = read(tmp_path, DataOptions(unseen="drop"), test=test)
    assert summary.dropped["test"] == {"unseen_label": 1}
    assert summary.rows["test"] == 1


def test_repairs_are_counted_by_rows_and_equal_texts_are_found_after_them(tmp_path: Path) -> None:
    train = 'text,label\nschÃ¶n,x\nschön,x\n"a\r\nb",y\nc,y\nd,x\ne,y\n'
    (tmp_path / "train.csv").write_bytes(train.encode())
    summary = normalise({"train": tmp_path / "train.csv"}, DataOptions(), tmp_path / "out")
    assert summary.repaired == {"train": {"line_breaks": 1, "mojibake": 1}}
    assert summary.dropped == {"train": {"duplicate": 1}}
    assert "Characters were repaired in rows of train: line breaks 1, mojibake 1." in told(summary)
    raw = DataOptions(normalise=False)
    summary = normalise({"train": tmp_path / "train.csv"}, raw, tmp_path / "out")
    assert summary.repaired == {"train": {}}
    assert read_examples(tmp_path / "out" / "train.parquet").text_a[0] == "schÃ¶n"


def test_classes_of_one_row_and_numbers_as_classes_are_told(tmp_path: Path) -> None:
    train = "text,label\na,1\nb,1.0\nc,1\nd,2\n"
    summary = read(tmp_path, None, train, validation="text,label\nz,1\n")
    warnings = told(summary)
    assert "Only one train row has the label 1.0, 2;" in warnings
    assert "The labels 1 and 1.0 are one number and two classes; write them alike." in warnings
    many = "text,label\n" + "".join(f"t{k},{k / 10}\n" for k in range(21))
    summary = read(tmp_path, None, many, validation="text,label\nz,0.1\n")
    assert "set the data option task to regression" in told(summary)


def test_the_token_policy_keeps_rows_without_a_text_but_none_without_a_label(
    tmp_path: Path,
) -> None:
    train = "text,label\n,x\na,x\nb,\nc,y\nd,y\n"
    summary = read(tmp_path, DataOptions(missing="token"), train)
    examples = read_examples(tmp_path / "out" / "train.parquet")
    assert examples.text_a == ["[missing]", "a", "c", "d"]
    assert summary.missing == {"train": {"text": 1, "label": 1}}
    assert summary.dropped == {"train": {"missing": 1}}


def test_a_file_of_repeats_is_refused_with_what_is_left_of_it(tmp_path: Path) -> None:
    with pytest.raises(InputError) as caught:
        read(tmp_path, None, "text,label\n" + "a,x\nb,y\n" * 20)
    assert caught.value.code == "too_few_rows"
    assert "The 2 train rows left of 40, without repeats and gaps, leave" in caught.value.detail
    with pytest.raises(InputError) as caught:
        read(tmp_path, None, "text,label\na,x\nb,y\n")
    assert caught.value.detail.startswith("The 2 train rows leave none for validation.")
