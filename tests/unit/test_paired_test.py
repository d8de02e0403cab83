"""McNemar's exact test, by hand: of n differing rows each falls to either side like a coin."""

import pytest

from service.schedules.paired_test import paired_test


def answers(both: int, only_new: int, only_old: int, neither: int) -> tuple[dict[int, bool], ...]:
    pairs = [(True, True)] * both + [(True, False)] * only_new
    pairs += [(False, True)] * only_old + [(False, False)] * neither
    return ({row: new for row, (new, _) in enumerate(pairs)},
            {row: old for row, (_, old) in enumerate(pairs)})  # fmt: skip


@pytest.mark.parametrize(
    ("only_new", "only_old", "p_value"),
    [
        (0, 0, 1.0),
        (1, 1, 1.0),
        (6, 0, 2 / 2**6),
        (0, 6, 2 / 2**6),
        (8, 1, 2 * (1 + 9) / 2**9),
        (5, 2, 2 * (1 + 7 + 21) / 2**7),
    ],
)
def test_the_p_value_is_that_of_a_fair_coin(only_new: int, only_old: int, p_value: float) -> None:
    new, old = answers(20, only_new, only_old, 3)
    test = paired_test(new, old)
    assert test.rows == 23 + only_new + only_old
    assert (test.only_new_right, test.only_old_right) == (only_new, only_old)
    assert test.p_value == pytest.approx(p_value)


def test_only_rows_that_both_answered_count() -> None:
    new, old = {1: True, 2: True, 3: False}, {2: False, 3: True, 4: True}
    test = paired_test(new, old)
    assert (test.rows, test.only_new_right, test.only_old_right) == (2, 1, 1)


def test_better_is_more_often_right_at_the_level_and_not_only_different() -> None:
    better = paired_test(*answers(0, 6, 0, 0))
    assert better.is_better(2 / 2**6)
    assert not better.is_better(0.03)
    assert not paired_test(*answers(0, 0, 6, 0)).is_better(0.05)
    assert not paired_test(*answers(9, 0, 0, 0)).is_better(0.9999)
