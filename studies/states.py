"""The states of studies and trials and every move that is allowed between them.

Nothing else in the code decides whether a move is legal: the store calls `check_move` before it
writes a state.
"""

from typing import Literal

StudyState = Literal["queued", "running", "paused", "completed", "cancelled", "failed"]
TrialState = Literal["queued", "running", "completed", "pruned", "failed", "cancelled"]

STUDY_MOVES: dict[StudyState, frozenset[StudyState]] = {
    "queued": frozenset({"running", "paused", "completed", "cancelled", "failed"}),
    "running": frozenset({"paused", "completed", "cancelled", "failed"}),
    "paused": frozenset({"running", "completed", "cancelled", "failed"}),
    "completed": frozenset({"queued"}),  # extend
    "cancelled": frozenset(),
    "failed": frozenset(),
}

TRIAL_MOVES: dict[TrialState, frozenset[TrialState]] = {
    "queued": frozenset({"running", "cancelled"}),
    # back to queued: the lease was lost or released
    "running": frozenset({"queued", "completed", "pruned", "failed", "cancelled"}),
    "completed": frozenset(),
    "pruned": frozenset(),
    "failed": frozenset(),
    "cancelled": frozenset(),
}

STUDY_ENDED: frozenset[StudyState] = frozenset({"completed", "cancelled", "failed"})
TRIAL_ENDED: frozenset[TrialState] = frozenset({"completed", "pruned", "failed", "cancelled"})


class IllegalMoveError(RuntimeError):
    """A state change that the tables above do not allow."""


def check_study_move(old: StudyState, new: StudyState) -> None:
    """Raise `IllegalMoveError` unless a study may go from ``old`` to ``new``."""
    if new not in STUDY_MOVES[old]:
        raise IllegalMoveError(f"a {old} study cannot become {new}")


def check_trial_move(old: TrialState, new: TrialState) -> None:
    """Raise `IllegalMoveError` unless a trial may go from ``old`` to ``new``."""
    if new not in TRIAL_MOVES[old]:
        raise IllegalMoveError(f"a {old} trial cannot become {new}")
