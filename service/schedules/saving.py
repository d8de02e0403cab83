"""Saving a schedule: every check first, then one short transaction that decides when it fires.

A fire that was due when an edit came is never lost: it is dealt with under the new spec, or, when
the schedule is paused, recorded as skipped. A paused schedule has no fires, so that resuming one
makes nothing good.
"""

import logging
from datetime import UTC, datetime
from typing import Any

from fastapi.exceptions import RequestValidationError
from pydantic import ValidationError
from sqlalchemy.orm import Session

from model.errors import InputError
from service.context import ServerContext
from service.errors import ConflictError
from service.schedules.checking import CheckedSchedule, check_schedule
from service.schedules.due import due_fires
from service.schedules.fire_times import check_timing, next_fire, time_zone, upcoming
from service.schedules.plan import Skip
from service.schedules.record import record_skipped
from service.store.clock import moment
from service.store.database import Database
from service.store.schedules import get_schedule, insert_schedule, known_fires, replace_spec
from service.store.tables import Schedule
from studies.wire.schedules import ScheduleCheck, SchedulePatch, ScheduleSpec

logger = logging.getLogger(__name__)

TIMINGS = ("cron", "at", "every_s")
MAX_TRIES = 5
"""Of an edit that other edits come before."""
PAUSED = Skip("paused", "The schedule was paused before the fire was dealt with.")


def add_schedule(context: ServerContext, spec: ScheduleSpec) -> str:
    """Store a schedule and return its id. Raises `InputError`, `ConflictError` ``name_taken``."""
    _check(context, spec)
    with context.database.transaction() as session:
        fire = _coming(spec, moment(session)) if spec.enabled else None
        schedule_id = insert_schedule(session, spec, fire).id
    logger.info("schedule %s (%s): next fire %s", spec.name, schedule_id, fire)
    return schedule_id


def preview_schedule(context: ServerContext, spec: ScheduleSpec) -> ScheduleCheck:
    """What a schedule would do if it were saved now; nothing is stored. Raises `InputError`."""
    checked, now = _check(context, spec)
    _coming(spec, now)
    fires = upcoming(spec, now)
    zone = time_zone(spec)
    return ScheduleCheck(
        upcoming=fires,
        local_times=[fire.astimezone(zone).isoformat() for fire in fires],
        study=checked.study,
        warnings=checked.warnings,
    )


def edit_schedule(context: ServerContext, schedule_id: str, patch: SchedulePatch) -> None:
    """Change the fields that ``patch`` states; what comes of it is checked as a whole.

    Raises `NotFoundError`, `RequestValidationError`, `InputError`, and `ConflictError`
    ``name_taken``, or ``conflict`` when others edit it all the time.
    """
    for _ in range(MAX_TRIES):
        with context.database.reading() as session:
            seen = get_schedule(session, schedule_id)
        spec = merged(ScheduleSpec.model_validate(seen.spec), patch)
        _check(context, spec)
        if _replace(context.database, seen, spec):
            return
    raise ConflictError("Others edit this schedule at the same time; look at it and try again.")


def merged(spec: ScheduleSpec, patch: SchedulePatch) -> ScheduleSpec:
    """``spec`` with what the patch states. A stated `cron`, `at` or `every_s` takes the place of
    the one there was; null stands for the default of a field that may be left out so.

    Raises `RequestValidationError`.
    """
    changes = patch.model_dump(mode="json", exclude_unset=True)
    document: dict[str, Any] = {**spec.model_dump(mode="json"), **changes}
    if any(changes.get(name) is not None for name in TIMINGS):
        for name in TIMINGS:
            document[name] = changes.get(name)
    try:
        return ScheduleSpec.model_validate(document)
    except ValidationError as error:
        problems = [{**found, "loc": ("body", *found["loc"])} for found in error.errors()]
        raise RequestValidationError(problems, body=document) from error


def _check(context: ServerContext, spec: ScheduleSpec) -> tuple[CheckedSchedule, datetime]:
    """As the next fire would be checked, or as one now would when none is left; and when that
    was."""
    check_timing(spec)
    with context.database.reading() as session:
        now = moment(session)
    return check_schedule(context, spec, next_fire(spec, now) or now), now


def _replace(database: Database, seen: Schedule, spec: ScheduleSpec) -> bool:
    """Whether nobody else edited the schedule since it was ``seen``."""
    with database.transaction() as session:
        schedule = get_schedule(session, seen.id, lock=True)
        if schedule.updated_at != seen.updated_at:
            return False
        fire = _fire_after_edit(session, schedule, spec, moment(session))
        replace_spec(session, schedule, spec, fire)
    logger.info("schedule %s (%s) was changed: next fire %s", spec.name, seen.id, fire)
    return True


def _fire_after_edit(
    session: Session, schedule: Schedule, spec: ScheduleSpec, now: datetime
) -> datetime | None:
    is_due = schedule.next_fire_at is not None and schedule.next_fire_at <= now.timestamp()
    if not spec.enabled:
        if is_due:
            _skip_due(session, schedule, now)
        return None
    if is_due:
        return datetime.fromtimestamp(schedule.next_fire_at or 0, UTC)
    before = ScheduleSpec.model_validate(schedule.spec)
    if before.enabled and _timing(before) == _timing(spec):
        return next_fire(spec, now)  # perhaps none: a single fire that was
    return _coming(spec, now)


def _skip_due(session: Session, schedule: Schedule, now: datetime) -> None:
    fires = due_fires(schedule, now)
    known = known_fires(session, schedule.id, fires.oldest)
    newest = [] if fires.newest in known else [(fires.newest, 1)]
    record_skipped(session, schedule, [*fires.rows_missed(known), *newest], PAUSED)


def _timing(spec: ScheduleSpec) -> tuple[Any, ...]:
    return (spec.timezone, *(getattr(spec, name) for name in TIMINGS))


def _coming(spec: ScheduleSpec, now: datetime) -> datetime:
    """The next fire. Raises `InputError` ``invalid_timing`` when there is none: `at` is past."""
    fire = next_fire(spec, now)
    if fire is None:
        said = now.isoformat(timespec="seconds")
        detail = f"at: this time is past; the database's clock says {said}."
        raise InputError("invalid_timing", detail, ("at",))
    return fire
