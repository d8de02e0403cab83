"""Every move of the state machines is allowed or refused as the tables say."""

from itertools import product
from typing import get_args

import pytest

from studies.states import (
    STUDY_ENDED,
    STUDY_MOVES,
    TRIAL_ENDED,
    TRIAL_MOVES,
    IllegalMoveError,
    StudyState,
    TrialState,
    check_study_move,
    check_trial_move,
)

STUDY_STATES: tuple[StudyState, ...] = get_args(StudyState)
TRIAL_STATES: tuple[TrialState, ...] = get_args(TrialState)

LEGAL_STUDY_MOVES = {
    *product(["queued", "running"], ["paused", "completed", "cancelled", "failed"]),
    *product(["paused"], ["running", "completed", "cancelled", "failed"]),
    ("queued", "running"),
    ("completed", "queued"),
}
LEGAL_TRIAL_MOVES = {
    ("queued", "running"),
    ("queued", "cancelled"),
    *product(["running"], ["queued", "completed", "pruned", "failed", "cancelled"]),
}


def test_the_tables_name_every_state() -> None:
    assert set(STUDY_MOVES) == set(STUDY_STATES)
    assert set(TRIAL_MOVES) == set(TRIAL_STATES)


@pytest.mark.parametrize(("old", "new"), list(product(STUDY_STATES, STUDY_STATES)))
def test_a_study_moves_only_where_it_may(old: StudyState, new: StudyState) -> None:
    if (old, new) in LEGAL_STUDY_MOVES:
        check_study_move(old, new)
        return
    with pytest.raises(IllegalMoveError, match=f"a {old} study cannot become {new}"):
        check_study_move(old, new)


@pytest.mark.parametrize(("old", "new"), list(product(TRIAL_STATES, TRIAL_STATES)))
def test_a_trial_moves_only_where_it_may(old: TrialState, new: TrialState) -> None:
    if (old, new) in LEGAL_TRIAL_MOVES:
        check_trial_move(old, new)
        return
    with pytest.raises(IllegalMoveError, match=f"a {old} trial cannot become {new}"):
        check_trial_move(old, new)


def test_a_trial_that_ended_stays_as_it_is() -> None:
    assert {state for state, moves in TRIAL_MOVES.items() if not moves} == TRIAL_ENDED


def test_an_ended_study_opens_again_only_by_extending_a_completed_one() -> None:
    assert {(old, new) for old in STUDY_ENDED for new in STUDY_MOVES[old]} == {
        ("completed", "queued")
    }
