"""Labels as files bring them, task by task: what is kept, counted, divided, and refused by name."""

import contextlib
import csv
import io
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from model.config import TASKS, DataOptions
from model.data import fingerprint, normalise
from model.dataset_summary import DataSummary
from model.errors import InputError
from model.label_sets import split_label_sets
from model.labels.readers import READERS, choose_reader, reader_of
from model.normalised_file import read_examples

TOPICS = "text,labels\nno cash,atm|cash\nhello,\nlost card,card\nagain,cash| atm |\nbye,card\n"


def summarise(folder: Path, content: str, name: str = "train.csv", **options: Any) -> DataSummary:
    path = folder / name
    path.write_text(content, encoding="utf-8")
    return normalise({"train": path}, DataOptions(**options), folder / "out")


def labels_of(folder: Path) -> list[str]:
    return read_examples(folder / "out" / "train.parquet").labels


def test_several_labels_are_sorted_and_rows_without_any_are_kept_and_counted(
    tmp_path: Path,
) -> None:
    summary = summarise(tmp_path, TOPICS)
    assert summary.task == "multi_label"
    assert labels_of(tmp_path) == ["atm|cash", "", "card", "atm|cash", "card"]
    assert summary.labels == ("atm", "card", "cash")
    assert summary.label_counts == {"train": {"atm": 2, "card": 2, "cash": 2}}
    assert summary.missing == {"train": {"text": 0, "label": 1}}


def test_lists_of_labels_say_what_joined_labels_say(tmp_path: Path) -> None:
    rows = [("a", ["x", "y"]), ("b", []), ("c", ["y", "x", "x"]), ("d", None)]
    lines = [json.dumps({"text": text, "labels": labels}) for text, labels in rows]
    summarise(tmp_path, "\n".join(lines), "train.jsonl")
    assert labels_of(tmp_path) == ["x|y", "", "x|y", ""]


def test_a_held_out_row_must_not_bring_a_new_label(tmp_path: Path) -> None:
    (tmp_path / "train.csv").write_text(TOPICS, encoding="utf-8")
    (tmp_path / "test.csv").write_text("text,labels\na,card|loan\n", encoding="utf-8")
    files: dict[Any, Path] = {split: tmp_path / f"{split}.csv" for split in ("train", "test")}
    with pytest.raises(InputError, match="'loan'") as caught:
        normalise(files, DataOptions(), tmp_path / "out")
    assert (caught.value.code, caught.value.where) == ("unseen_label", ("test", "line 2"))


@pytest.mark.parametrize("label", ["¬a", "∅", "a|∅"])
def test_what_means_something_in_a_matrix_is_no_label(tmp_path: Path, label: str) -> None:
    with pytest.raises(InputError) as caught:
        summarise(tmp_path, f"text,labels\nx,a\ny,{label}\n")
    assert (caught.value.code, caught.value.where) == ("bad_label", ("train", "line 3"))


def test_the_columns_tell_the_task_unless_it_is_stated() -> None:
    assert choose_reader(["text", "label"], DataOptions()).task == "single_label"
    assert choose_reader(["text", "labels"], DataOptions()).task == "multi_label"
    assert choose_reader(["text", "topics"], DataOptions(label="topics")).task == "single_label"
    stated = DataOptions(label="topics", task="multi_label")
    assert choose_reader(["text", "topics"], stated).task == "multi_label"


def test_equal_rows_read_for_another_task_are_another_data_set(tmp_path: Path) -> None:
    content = "text,label\na,1\nb,2\nc,1\nd,2\n"
    one = fingerprint(summarise(tmp_path, content), DataOptions())
    options = DataOptions(task="multi_label")
    other = fingerprint(summarise(tmp_path, content, task="multi_label"), options)
    assert one != other


def test_the_rarest_label_is_shared_out_first() -> None:
    # Shares of 0.5: two of the four rows with "rare", and of the 20 others half.
    sets = [("rare", "often")] * 4 + [("often",)] * 16 + [()] * 4
    rows = split_label_sets(sets, validation_fraction=0.5, test_fraction=0.0, seed=3)
    assert len(rows.validation) == 12
    assert sum("rare" in sets[row] for row in rows.validation) == 2
    assert sum("often" in sets[row] for row in rows.validation) == 10


@given(
    sets=st.lists(st.sets(st.sampled_from("abcde")), min_size=2, max_size=60),
    validation=st.floats(0, 0.6),
    test=st.floats(0, 0.39),
    seed=st.integers(0, 9),
)
def test_every_row_lands_in_exactly_one_split_and_always_in_the_same(
    sets: list[set[str]], validation: float, test: float, seed: int
) -> None:
    wanted: dict[str, Any] = {"validation_fraction": validation, "test_fraction": test}
    rows = split_label_sets([sorted(s) for s in sets], **wanted, seed=seed)
    again = split_label_sets([sorted(s) for s in sets], **wanted, seed=seed)
    parts = [rows.train, rows.validation, rows.test]
    assert sorted(np.concatenate(parts).tolist()) == list(range(len(sets)))
    assert [p.tolist() for p in (again.train, again.validation)] == [p.tolist() for p in parts[:2]]
    taught = set[str]().union(*(sets[row] for row in rows.train))
    assert taught == set[str]().union(*sets)


CELLS = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(),
    st.floats(),
    st.text(max_size=8),
    st.sampled_from(["O", "B-x", "I-x", "a|b", "nan", "1e400", "3,5", " "]),
)


@settings(
    suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=40, deadline=None
)
@given(
    rows=st.lists(
        st.tuples(CELLS | st.lists(CELLS, max_size=3), CELLS | st.lists(CELLS)), max_size=6
    ),
    task=st.sampled_from(sorted(READERS)),
)
def test_no_jsonl_makes_a_reader_fail_but_by_name(
    tmp_path: Path, rows: list[tuple[Any, Any]], task: Any
) -> None:
    reader = reader_of(task, DataOptions())
    names = reader.text_names[0], reader.label_names[0]
    lines = [json.dumps(dict(zip(names, row, strict=True))) for row in rows]
    with contextlib.suppress(InputError):
        summary = summarise(tmp_path, "\n".join(lines), "train.jsonl", task=task)
        assert summary.rows["train"] == len(labels_of(tmp_path))


@settings(
    suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=40, deadline=None
)
@given(
    rows=st.lists(st.tuples(st.text(max_size=6), st.text(max_size=8)), max_size=6),
    task=st.sampled_from(sorted(READERS)),
)
def test_no_csv_makes_a_reader_fail_but_by_name(
    tmp_path: Path, rows: list[tuple[str, str]], task: Any
) -> None:
    reader = reader_of(task, DataOptions())
    text = io.StringIO()
    csv.writer(text).writerows([(reader.text_names[0], reader.label_names[0]), *rows])
    content = text.getvalue().encode("utf-8", "surrogatepass")
    path = tmp_path / "train.csv"
    path.write_bytes(content)
    with contextlib.suppress(InputError):
        normalise({"train": path}, DataOptions(task=task), tmp_path / "out")


def test_every_task_has_a_reader() -> None:
    assert set(READERS) <= set(TASKS)
