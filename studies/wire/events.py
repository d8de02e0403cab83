"""Events on the wire: what happened, as streams and webhooks tell it."""

from typing import Annotated, Any

from pydantic import AfterValidator

from studies.wire.base import Answer, Utc

EVENT_TYPES = {
    "study.submitted": "a study was queued",
    "study.running": "its first trial began, or it was resumed",
    "study.paused": "paused, or its mode changed: `mode`",
    "study.extended": "trials were added: `add_trials`, `n_trials`",
    "study.queued": "a completed study was opened again by `extend`",
    "study.trials_cancelled": "queued trials were cancelled: `count`, `reason`",
    "study.best": "a trial is the best so far: `number`, `value`, `metric`, `previous`",
    "study.evaluating": "all trials are over, the test split is to be opened: `best`",
    "study.test_opened": "the best model is being scored on the test split: `opened` times so far",
    "study.completed": "over: `best`, `value`",
    "study.failed": "over without a completed trial: `code`",
    "study.cancelled": "cancelled for good",
    "study.deleted": "deleted; its events go with it",
    "trial.running": "an attempt began: `worker`",
    "trial.epoch": "an epoch was reported: `epoch`, `metrics`",
    "trial.queued": "an attempt ended without a result, the trial is tried again: `reason`",
    "trial.completed": "a result: `value`",
    "trial.pruned": "stopped early: `value`",
    "trial.failed": "over without a result: `code`",
    "trial.cancelled": "cancelled",
    "schedule.submitted": "a fire submitted a study: `schedule`, `fire_time`",
    "schedule.skipped": "a fire was skipped: `schedule`, `fire_time`, `reason`",
    "schedule.champion_first": "a schedule has its first champion: `number`, `reason`",
    "schedule.champion_promoted": "a better model took its place: `number`, `reason`",
    "schedule.champion_kept": "the champion stays: `reason`",
    "webhook.disabled": "a webhook failed for too long: `webhook`, `reason`",
}
"""Every type, and what it says besides the study and the trial. The data of a trial's events hold
its `number`, `attempt` and `kind` (`train`, or `evaluate` for the look at the test split)."""

STUDY_END_EVENTS = frozenset({"study.completed", "study.failed", "study.cancelled"})
"""After one of these, or `study.deleted`, a study's stream ends."""


def matches(pattern: str, kind: str) -> bool:
    """Whether an event's type is one of a pattern's: the type itself, `study.*`, or `*`."""
    if pattern == "*" or pattern.endswith(".*"):
        return kind.startswith(pattern[:-1])
    return kind == pattern


def _known(pattern: str) -> str:
    if not any(matches(pattern, kind) for kind in EVENT_TYPES):
        kinds = ", ".join(EVENT_TYPES)
        raise ValueError(f"no event is of the type {pattern!r}; take study.*, *, or of: {kinds}")
    return pattern


EventPattern = Annotated[str, AfterValidator(_known)]
"""A type, `study.*` and the like, or `*`."""


class EventAnswer(Answer):
    """One event; ids ascend in the order in which events become visible."""

    id: int
    type: str
    study_id: str | None
    study: str | None
    """The study's name."""
    trial: int | None
    """The trial's number; null for other events and for the evaluation."""
    data: dict[str, Any]
    created_at: Utc
