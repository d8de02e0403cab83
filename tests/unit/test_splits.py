from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from model.errors import InputError
from model.splits import SplitRows, held_out_counts, read_rows, split_rows, write_rows


def split(labels: str, validation: float, test: float = 0.0, seed: int = 0) -> SplitRows:
    return split_rows(list(labels), validation_fraction=validation, test_fraction=test, seed=seed)


def classes(labels: str, positions: "np.ndarray[tuple[int], np.dtype[np.int64]]") -> dict[str, int]:
    return dict(Counter(labels[k] for k in positions))


def test_each_class_gives_its_share() -> None:
    labels = "a" * 40 + "b" * 20 + "c" * 20
    rows = split(labels, 0.25, 0.1)
    assert classes(labels, rows.validation) == {"a": 10, "b": 5, "c": 5}
    assert classes(labels, rows.test) == {"a": 4, "b": 2, "c": 2}
    assert classes(labels, rows.train) == {"a": 26, "b": 13, "c": 13}


def test_rounding_goes_to_the_largest_remainder() -> None:
    # shares of 0.2: 2.8, 1.4, 0.8 = 5.0 in all; floors 2, 1, 1 (at least one), the last row to a
    assert held_out_counts([14, 7, 4], 0.2, 0.0) == ([3, 1, 1], [0, 0, 0])
    # shares 1.25 each sum to 5: the tie goes to the first class
    assert held_out_counts([5, 5, 5, 5], 0.25, 0.0)[0] == [2, 1, 1, 1]
    # the rare classes' minimum is taken from the class that is best served
    assert held_out_counts([90, 5, 5], 0.1, 0.0)[0] == [8, 1, 1]


def test_a_class_with_one_row_stays_in_train_and_the_next_rows_go_to_validation_then_test() -> None:
    assert held_out_counts([1, 2, 3, 100], 0.1, 0.1) == ([0, 1, 1, 9], [0, 0, 1, 10])


def test_a_large_fraction_never_empties_a_class() -> None:
    validation, test = held_out_counts([2, 3, 10], 0.6, 0.39)
    assert [n - v - t for n, v, t in zip([2, 3, 10], validation, test, strict=True)] == [1, 1, 1]


def test_the_seed_decides_which_rows_and_nothing_else() -> None:
    labels = "ab" * 100
    one, same, other = split(labels, 0.2), split(labels, 0.2), split(labels, 0.2, seed=1)
    assert one.validation.tolist() == same.validation.tolist()
    assert one.validation.tolist() != other.validation.tolist()
    assert classes(labels, other.validation) == {"a": 20, "b": 20}


@given(
    labels=st.text("abcdef", min_size=1, max_size=120),
    validation=st.floats(0, 0.6),
    test=st.floats(0, 0.39),
    seed=st.integers(0, 9),
)
def test_every_row_lands_in_exactly_one_split_and_no_class_leaves_train(
    labels: str, validation: float, test: float, seed: int
) -> None:
    rows = split(labels, validation, test, seed)
    parts = [rows.train, rows.validation, rows.test]
    assert sorted(np.concatenate(parts).tolist()) == list(range(len(labels)))
    assert all(part.dtype == np.int64 and np.all(np.diff(part) > 0) for part in parts)
    assert {labels[k] for k in rows.train} == set(labels)
    if validation > 0:
        frequent = {label for label, n in Counter(labels).items() if n > 1}
        assert {labels[k] for k in rows.validation} == frequent


@pytest.mark.parametrize(
    ("validation", "test", "field"),
    [(1.0, 0.0, "validation_fraction"), (0.1, -0.1, "test_fraction"), (0.5, 0.5, "validation_")],
)
def test_impossible_fractions_are_refused(validation: float, test: float, field: str) -> None:
    with pytest.raises(InputError, match=field) as caught:
        split("aabb", validation, test)
    assert caught.value.code == "invalid_value"


def test_rows_survive_a_file_and_equal_rows_give_equal_bytes(tmp_path: Path) -> None:
    rows = split("aab" * 20, 0.2, 0.1)
    write_rows(rows, tmp_path / "one.parquet")
    write_rows(split("aab" * 20, 0.2, 0.1), tmp_path / "two.parquet")
    again = read_rows(tmp_path / "one.parquet")
    for name in ("train", "validation", "test"):
        assert getattr(again, name).tolist() == getattr(rows, name).tolist()
        assert getattr(again, name).dtype == np.int64
    assert (tmp_path / "one.parquet").read_bytes() == (tmp_path / "two.parquet").read_bytes()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["one.parquet", "two.parquet"]


def test_splits_without_rows_survive_a_file(tmp_path: Path) -> None:
    write_rows(split("aabb", 0.0), tmp_path / "rows.parquet")
    again = read_rows(tmp_path / "rows.parquet")
    assert (again.train.tolist(), again.validation.tolist()) == ([0, 1, 2, 3], [])
