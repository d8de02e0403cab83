"""When a study will be done: from how long its trials took, and how far those that run are."""

import heapq
from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class RunningTrial:
    """A trial at work."""

    share: float
    """Of it that is done."""
    elapsed_s: float
    left_s: float | None
    """By its own pace, None as long as that is not known."""


def time_left_s(
    running: Sequence[RunningTrial],
    queued: int,
    *,
    mean_s: float | None,
    begins_within_s: float | None = None,
) -> float | None:
    """Seconds until the last trial has ended, if as many go on running as now.

    ``mean_s`` is how long the trials took that have ended, pruned and failed ones with them: so
    will those to come, as far as anybody knows. Before one has ended, the running ones say how
    long a whole trial takes. No trial begins later than in ``begins_within_s``. None when neither
    is known.
    """
    whole_s = mean_s if mean_s is not None else _whole_s(running)
    if whole_s is None:
        return None
    free_at = [_left_s(trial, whole_s) for trial in running] or [0.0]
    # Whole rounds need no simulation: each slot takes one trial in each of them.
    rounds = max(0, queued // len(free_at) - 1)
    if begins_within_s is not None and whole_s > 0:
        rounds = min(rounds, max(0, int((begins_within_s - max(free_at)) // whole_s)))
    free_at = [moment + rounds * whole_s for moment in free_at]
    queued -= rounds * len(free_at)
    heapq.heapify(free_at)
    for _ in range(queued):
        if begins_within_s is not None and free_at[0] > begins_within_s:
            break
        heapq.heapreplace(free_at, free_at[0] + whole_s)
    return max(free_at)


def _whole_s(running: Sequence[RunningTrial]) -> float | None:
    """How long a trial takes, by the paces of those that run; None when none is known."""
    known = [trial.elapsed_s + trial.left_s for trial in running if trial.left_s is not None]
    return sum(known) / len(known) if known else None


def _left_s(trial: RunningTrial, whole_s: float) -> float:
    if trial.left_s is not None:
        return trial.left_s
    if trial.share > 0:
        return (1 - trial.share) * whole_s
    return max(0.0, whole_s - trial.elapsed_s)
