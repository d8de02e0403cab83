"""Writes down what became of fires, under the lock of their schedule: a row for each, the study
of one that is submitted, and the event that tells of it."""

import logging
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any

from sqlalchemy.orm import Session

from service.intake.submission import insert_prepared
from service.schedules.plan import Plan, Skip, Submission, overlapping
from service.store.completion import cancel_study
from service.store.events import append_event
from service.store.identifiers import new_id
from service.store.moves import lock_study
from service.store.schedules import open_studies
from service.store.tables import Schedule, ScheduleRun
from studies.states import STUDY_ENDED
from studies.wire.base import iso_z
from studies.wire.schedules import ScheduleSpec, Trigger

logger = logging.getLogger(__name__)


def record_fire(
    session: Session, schedule: Schedule, fire: datetime, plan: Plan, trigger: Trigger
) -> ScheduleRun:
    """Insert the study that was planned, or say why there is none. Whether one of an earlier fire
    is open is asked again here, where no other fire of the schedule can come between."""
    spec = ScheduleSpec.model_validate(schedule.spec)
    if isinstance(plan, Submission):
        plan = overlapping(session, spec, schedule.id) or plan
    row = _row(schedule, fire, trigger, plan)
    if isinstance(plan, Submission):
        if spec.overlap == "replace":
            _cancel_open(session, schedule)
        row.study_id = insert_prepared(session, plan.study)
        row.dataset_id = plan.study.new.dataset_id
        row.verdict = None if spec.champion is None else "pending"
    session.add(row)
    data = _about(schedule, fire, row.reason)
    append_event(session, f"schedule.{row.outcome}", study_id=row.study_id, data=data)
    logger.info(
        "schedule %s: fire of %s %s%s",
        *(schedule.name, fire.isoformat(), row.outcome, f" ({row.reason})" if row.reason else ""),
    )
    return row


def record_skipped(
    session: Session, schedule: Schedule, fires: Sequence[tuple[datetime, int]], skip: Skip
) -> int:
    """A row for each of ``fires``, which are (fire time, how many fires it stands for), and one
    event for them all; returns how many rows."""
    rows = [_row(schedule, fire, "schedule", skip, fires=count) for fire, count in fires]
    session.add_all(rows)
    if rows:
        data = _about(schedule, rows[0].fire_time, skip.reason)
        data["fires"] = sum(row.fires for row in rows)
        append_event(session, "schedule.skipped", data=data)
    return len(rows)


def _cancel_open(session: Session, schedule: Schedule) -> None:
    for study in open_studies(session, schedule.id):
        if lock_study(session, study.id).state not in STUDY_ENDED:
            cancel_study(session, study)


def _about(schedule: Schedule, fire: datetime, reason: str | None) -> dict[str, Any]:
    """What an event tells of a fire."""
    return {
        "schedule_id": schedule.id,
        "schedule": schedule.name,
        "fire_time": iso_z(fire),
        "reason": reason,
    }


def _row(
    schedule: Schedule, fire: datetime, trigger: Trigger, plan: Plan, *, fires: int = 1
) -> ScheduleRun:
    skip = plan if isinstance(plan, Skip) else None
    return ScheduleRun(
        id=new_id(),
        schedule_id=schedule.id,
        fire_time=fire,
        outcome="submitted" if skip is None else "skipped",
        trigger=trigger,
        fires=fires,
        dataset_id=None if skip is None else skip.dataset_id,
        reason=None if skip is None else skip.reason,
        detail=plan.detail,
        created_at=datetime.now(UTC),
    )
