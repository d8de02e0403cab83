"""Rows held out by group, by date, and where texts repeat: nothing leaks, and the past teaches."""

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest

from model.config import SPLITS, DataOptions, Split
from model.data import fingerprint, normalise
from model.data_warnings import data_warnings
from model.dataset_summary import DataSummary
from model.division import divide_train
from model.errors import InputError
from model.splits import split_positions

OPTIONS = DataOptions(validation_fraction=0.2, test_fraction=0.2)


def read(
    folder: Path, rows: Sequence[tuple[str, ...]], options: DataOptions, header: str
) -> DataSummary:
    path = folder / "train.csv"
    path.write_text("\n".join([header, *(",".join(row) for row in rows)]) + "\n")
    return normalise({"train": path}, options, folder / "out")


def parts(
    folder: Path, summary: DataSummary, options: DataOptions, seed: int = 0
) -> list[list[dict[str, Any]]]:
    path = folder / "out" / "train.parquet"
    table = pq.read_table(path).to_pylist()
    rows = divide_train(
        path, summary.task, options, seed=seed, repeated_texts=summary.repeated_texts > 0
    )
    return [[table[k] for k in positions] for positions in split_positions(rows)]


def numbers(part: list[dict[str, Any]]) -> list[int]:
    return [row["row"] for row in part]


BY_CUSTOMER = [(f"text {k}", "xy"[k % 2], f"customer {k // 4}") for k in range(40)]


def test_no_group_stands_in_two_splits_and_the_shares_are_met(tmp_path: Path) -> None:
    options = dataclasses.replace(OPTIONS, group="who")
    summary = read(tmp_path, BY_CUSTOMER, options, "text,label,who")
    for seed in range(5):
        split = parts(tmp_path, summary, options, seed)
        groups = [{(row - 1) // 4 for row in numbers(part)} for part in split]
        assert [len(part) for part in split] == [24, 8, 8]
        assert [len(found) for found in groups] == [6, 2, 2]
        assert not groups[0] & groups[1] | groups[0] & groups[2] | groups[1] & groups[2]
    assert summary.columns["group"] == "who"


def test_the_groups_held_out_follow_the_seed(tmp_path: Path) -> None:
    options = dataclasses.replace(OPTIONS, group="who")
    summary = read(tmp_path, BY_CUSTOMER, options, "text,label,who")
    drawn = [numbers(parts(tmp_path, summary, options, seed)[1]) for seed in (0, 0, 1)]
    assert drawn[0] == drawn[1] != drawn[2]


def test_a_train_file_holds_no_name_of_a_group_and_another_column_is_another_data_set(
    tmp_path: Path,
) -> None:
    options = dataclasses.replace(OPTIONS, group="who")
    summary = read(tmp_path, BY_CUSTOMER, options, "text,label,who")
    assert b"customer" not in (tmp_path / "out" / "train.parquet").read_bytes()
    plain = read(tmp_path, BY_CUSTOMER, OPTIONS, "text,label,who")
    assert fingerprint(summary, options) != fingerprint(plain, OPTIONS)


def test_groups_of_given_files_that_also_stand_in_train_are_counted(tmp_path: Path) -> None:
    test = tmp_path / "test.csv"
    test.write_text("text,label,who\nnew,x,customer 1\nnewer,y,somebody\n")
    (tmp_path / "train.csv").write_text(
        "text,label,who\n" + "".join(",".join(row) + "\n" for row in BY_CUSTOMER)
    )
    files: Any = {"train": tmp_path / "train.csv", "test": test}
    summary = normalise(files, DataOptions(group="who"), tmp_path / "out")
    assert summary.group_overlap == {"test": 1}


def test_too_few_groups_are_refused(tmp_path: Path) -> None:
    rows = [(f"text {k}", "xy"[k % 2], "one") for k in range(10)]
    with pytest.raises(InputError) as caught:
        read(tmp_path, rows, dataclasses.replace(OPTIONS, group="who"), "text,label,who")
    assert caught.value.code == "too_few_rows"
    assert not (tmp_path / "out").exists()


def dated(day: int) -> str:
    return f"2026-03-{day:02}"


def test_the_past_teaches_and_the_latest_rows_test(tmp_path: Path) -> None:
    # the file's order is not that of time: row k + 1 is of the day 10 - k
    rows = [(f"text {k}", "xy"[k % 2], dated(10 - k)) for k in range(10)]
    options = dataclasses.replace(OPTIONS, date="when")
    summary = read(tmp_path, rows, options, "text,label,when")
    split = parts(tmp_path, summary, options)
    assert [numbers(part) for part in split] == [[5, 6, 7, 8, 9, 10], [3, 4], [1, 2]]


def test_rows_of_one_time_stay_together_also_across_time_zones(tmp_path: Path) -> None:
    times = ["2026-03-01T10:00", "2026-03-01T11:00", "2026-03-01T12:00+01:00", "2026-03-01T12:00"]
    rows = [(f"text {k}", "xy"[k % 2], time) for k, time in enumerate(times)]
    options = DataOptions(date="when", validation_fraction=0.5, unseen="drop")
    summary = read(tmp_path, rows, options, "text,label,when")
    split = parts(tmp_path, summary, options)
    # rows 2 and 3 are both of 11:00 UTC, so a half is not to be had: one or three rows
    assert numbers(split[0]) in ([1], [1, 2, 3])
    berlin = dataclasses.replace(options, timezone="Europe/Berlin")
    summary = read(tmp_path, rows, berlin, "text,label,when")
    # now rows 3 and 4 are of 11:00 UTC, rows 1 and 2 of 9:00 and 10:00
    split = parts(tmp_path, summary, berlin)
    assert [numbers(part) for part in split] == [[1, 2], [3, 4], []]


@pytest.mark.parametrize(
    ("format_", "texts"),
    [
        ("unix", ["86400", "172800.5", "259200", "345600"]),
        ("unix_ms", ["86400000", "172800500", "259200000", "345600000"]),
        ("%d.%m.%Y", ["02.01.1970", "03.01.1970", "04.01.1970", "05.01.1970"]),
    ],
)
def test_dates_are_read_as_the_option_says(tmp_path: Path, format_: str, texts: list[str]) -> None:
    rows = [(f"text {k}", "xy"[k % 2], text) for k, text in enumerate(texts)]
    options = DataOptions(date="when", date_format=format_, validation_fraction=0.25)
    read(tmp_path, rows, options, "text,label,when")
    found = pq.read_table(tmp_path / "out" / "train.parquet")["date"].to_pylist()
    half = 0 if format_.startswith("%") else 500_000
    day = 86_400_000_000
    assert found == [day, 2 * day + half, 3 * day, 4 * day]


def test_a_date_that_is_none_names_its_line_and_a_missing_one_drops_its_row(
    tmp_path: Path,
) -> None:
    rows = [(f"text {k}", "xy"[k % 2], dated(k + 1)) for k in range(8)]
    options = DataOptions(date="when")
    summary = read(tmp_path, [*rows, ("late", "x", "")], options, "text,label,when")
    assert summary.missing["train"]["date"] == 1
    assert summary.dropped["train"] == {"missing": 1}
    with pytest.raises(InputError) as caught:
        read(tmp_path, [*rows, ("late", "x", "soon")], options, "text,label,when")
    assert (caught.value.code, caught.value.where) == ("bad_date", ("train", "line 10"))


def test_rows_of_given_files_that_are_older_than_the_newest_of_train_are_counted(
    tmp_path: Path,
) -> None:
    rows = {"train": (3, 4, 5, 6), "validation": (4, 5, 6, 7), "test": (8, 9)}
    sources: dict[Split, Path] = {}
    for split in SPLITS:
        sources[split] = path = tmp_path / f"{split}.csv"
        lines = (f"{split} {day},{'xy'[day % 2]},{dated(day)}\n" for day in rows[split])
        path.write_text("text,label,when\n" + "".join(lines))
    summary = normalise(sources, DataOptions(date="when"), tmp_path / "out")
    assert summary.older_than_train == {"validation": 2, "test": 0}
    told = data_warnings(dataclasses.asdict(summary), task="single_label", keeps=False)
    assert any(warning.startswith("2 rows of validation are older") for warning in told)
    # Without its column a file is taken as it is.
    sources["validation"].write_text("text,label\na,x\nb,y\n")
    summary = normalise(sources, DataOptions(date="when"), tmp_path / "other")
    assert summary.older_than_train == {"validation": 0, "test": 0}


def test_a_class_of_the_latest_rows_alone_is_refused_by_name_or_left_out(tmp_path: Path) -> None:
    rows = [(f"text {k}", "new" if k == 9 else "xy"[k % 2], dated(k + 1)) for k in range(10)]
    options = DataOptions(date="when", validation_fraction=0.2)
    with pytest.raises(InputError) as caught:
        read(tmp_path, rows, options, "text,label,when")
    assert caught.value.code == "unseen_label"
    assert caught.value.where == ("train", "row 10")
    assert "'new'" in caught.value.detail
    options = dataclasses.replace(options, unseen="drop")
    summary = read(tmp_path, rows, options, "text,label,when")
    assert [numbers(part) for part in parts(tmp_path, summary, options)] == [
        [1, 2, 3, 4, 5, 6, 7, 8],
        [9],
        [],
    ]


@pytest.mark.parametrize("task", ["regression", "multi_task"])
def test_the_latest_numbers_may_be_higher_than_any_before(tmp_path: Path, task: Any) -> None:
    """What rises over time is the reason to divide by date: a number is no class."""
    rows = [(f"text {k}", f"{k}.5", "xy"[k % 2], dated(k + 1)) for k in range(20)]
    labels: dict[str, Any] = {
        "regression": {"task": "regression", "label": "score"},
        "multi_task": {"label_columns": {"score": "score", "kind": "kind"}},
    }
    options = DataOptions(date="when", validation_fraction=0.3, **labels[task])
    summary = read(tmp_path, rows, options, "text,score,kind,when")
    split = parts(tmp_path, summary, options)
    assert [numbers(part) for part in split] == [[*range(1, 15)], [*range(15, 21)], []]


def test_groups_of_numbers_are_held_out_whatever_train_keeps(tmp_path: Path) -> None:
    rows = [(f"text {k}", f"{k}.5", f"customer {k // 10}") for k in range(30)]
    options = dataclasses.replace(OPTIONS, task="regression", label="score", group="customer")
    summary = read(tmp_path, rows, options, "text,score,customer")
    assert [len(part) for part in parts(tmp_path, summary, options)] == [10, 10, 10]


@pytest.mark.parametrize("by", [{"date": "when"}, {"group": "when"}])
def test_rows_left_out_for_their_class_make_another_data_set(tmp_path: Path, by: Any) -> None:
    rows = [(f"text {k}", "xy"[k % 2], dated(k + 1)) for k in range(10)]
    options = DataOptions(validation_fraction=0.2, **by)
    summary = read(tmp_path, rows, options, "text,label,when")
    refused = fingerprint(summary, options)
    assert fingerprint(summary, dataclasses.replace(options, unseen="drop")) != refused


def test_one_text_with_two_labels_stays_in_one_split(tmp_path: Path) -> None:
    rows = [(f"text {k // 2}", "xy"[k % 2]) for k in range(40)]
    summary = read(tmp_path, rows, OPTIONS, "text,label")
    for seed in range(5):
        texts = [
            {row["text_a"] for row in part} for part in parts(tmp_path, summary, OPTIONS, seed)
        ]
        assert sum(map(len, texts)) == 20
        assert all(texts)


def test_group_and_date_cannot_both_divide(tmp_path: Path) -> None:
    rows = [("a", "x", "1"), ("b", "y", "2")]
    with pytest.raises(InputError) as caught:
        read(tmp_path, rows, DataOptions(group="who", date="who"), "text,label,who")
    assert caught.value.where == ("options", "date")
