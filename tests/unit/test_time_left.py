"""When a study will be done, by hand-computed cases."""

import pytest

from service.routes.time_left import RunningTrial, time_left_s


def at_work(
    share: float = 0.0, elapsed_s: float = 0.0, left_s: float | None = None
) -> RunningTrial:
    return RunningTrial(share, elapsed_s, left_s)


@pytest.mark.parametrize(
    ("running", "queued", "left_s"),
    [
        ([], 0, 0),
        ([], 3, 30),  # nobody is at work for the moment: one after the other
        ([at_work(left_s=4)], 0, 4),
        ([at_work(left_s=4)], 2, 24),
        ([at_work(left_s=4), at_work(left_s=9)], 0, 9),
        # The first slot is free at 4 and ends its next at 14; the second takes the last one at 9.
        ([at_work(left_s=4), at_work(left_s=9)], 2, 19),
        # At 4, 9, 14, 19 the trials begin: the last of them ends at 29.
        ([at_work(left_s=4), at_work(left_s=9)], 4, 29),
        # Three slots free at 0, 5 and 6 take 301 trials: 100 each, and one more at 1000.
        ([at_work(left_s=0), at_work(left_s=5), at_work(left_s=6)], 301, 1010),
    ],
)
def test_the_trials_left_are_shared_among_as_many_as_run_now(
    running: list[RunningTrial], queued: int, left_s: float
) -> None:
    assert time_left_s(running, queued, mean_s=10) == left_s


def test_a_running_trial_without_a_pace_takes_as_long_as_the_others_did() -> None:
    assert time_left_s([at_work(share=0.75, elapsed_s=500)], 0, mean_s=10) == 2.5
    assert time_left_s([at_work(elapsed_s=3)], 0, mean_s=10) == 7
    assert time_left_s([at_work(elapsed_s=30)], 1, mean_s=10) == 10  # it may end any moment


def test_before_a_trial_has_ended_the_running_ones_say_how_long_one_takes() -> None:
    paced = at_work(elapsed_s=20, left_s=60)
    assert time_left_s([paced], 2, mean_s=None) == 60 + 2 * 80
    # 80 s and 100 s: a trial takes 90 s, of which the third has a half left.
    slower, unknown = at_work(elapsed_s=20, left_s=80), at_work(share=0.5)
    assert time_left_s([paced, slower, unknown], 0, mean_s=None) == 80
    assert time_left_s([paced, slower, unknown], 1, mean_s=None) == 45 + 90
    assert time_left_s([unknown], 1, mean_s=None) is None
    assert time_left_s([], 5, mean_s=None) is None


def test_no_trial_is_counted_that_the_time_limit_lets_not_begin() -> None:
    running = [at_work(left_s=4)]
    # One begins at 4 and one at 14; at 24 the study's 20 s are over.
    assert time_left_s(running, 50, mean_s=10, begins_within_s=20) == 24
    assert time_left_s(running, 50, mean_s=10, begins_within_s=0) == 4
    assert time_left_s(running, 1, mean_s=10, begins_within_s=1000) == 14
    two = [at_work(left_s=4), at_work(left_s=9)]
    assert time_left_s(two, 100_000, mean_s=10, begins_within_s=500) == 509


def test_trials_that_took_no_time_at_all_are_no_error() -> None:
    assert time_left_s([at_work(left_s=0)], 100_000, mean_s=0, begins_within_s=10) == 0
