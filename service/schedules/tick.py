"""What a server does about due fires: each is submitted or skipped once, whatever dies meanwhile.

Slow work (data, checks) comes first and changes nothing. Then one transaction moves the schedule
on to its next fire, if no other server did, and holds the study and a row for every fire.
"""

import logging
from collections.abc import Sequence
from datetime import datetime

from sqlalchemy.exc import IntegrityError, SQLAlchemyError

from service.context import ServerContext
from service.errors import ServiceError
from service.schedules.due import OVERTAKEN, DueFires, due_fires, too_late
from service.schedules.plan import Plan, plan_fire
from service.schedules.reading import reading_claim
from service.schedules.record import record_fire, record_skipped
from service.store.clock import moment
from service.store.schedules import due_schedules, known_fires, lock_due
from service.store.tables import Schedule

logger = logging.getLogger(__name__)


def tick(context: ServerContext) -> int:
    """Deal with every fire that is due by the database's clock; returns how many rows were
    written."""
    return sum(deal_with(context, schedule) for schedule in schedules_due(context))


def schedules_due(context: ServerContext) -> Sequence[Schedule]:
    with context.database.reading() as session:
        return due_schedules(session, moment(session).timestamp())


def reads_data(schedule: Schedule) -> bool:
    """Whether dealing with a fire may take minutes."""
    return schedule.spec.get("data") is not None


def deal_with(context: ServerContext, schedule: Schedule) -> int:
    """Deal with the due fires of one schedule; returns how many rows were written. One that
    cannot be dealt with now is logged and stays due, and holds up no other."""
    try:
        with context.database.reading() as session:
            now = moment(session)
        return _deal_with(context, schedule, now)
    except (ServiceError, SQLAlchemyError, OSError) as error:
        # Full disks and databases that are away: the fire stays due, and is tried again.
        logger.warning("schedule %s waits: %s", schedule.name, error)
    except Exception:  # the other schedules must go on
        logger.exception("schedule %s cannot be dealt with", schedule.name)
    return 0


def _deal_with(context: ServerContext, schedule: Schedule, now: datetime) -> int:
    if schedule.next_fire_at is None or schedule.next_fire_at > now.timestamp():
        return 0
    fires = due_fires(schedule, now)
    late = too_late(schedule, fires)
    if late is not None or not reads_data(schedule):
        return _commit(context, schedule, fires, late or plan_fire(context, schedule, fires.newest))
    with reading_claim(context.database, schedule) as is_ours:
        if not is_ours:
            return 0
        return _commit(context, schedule, fires, plan_fire(context, schedule, fires.newest))


def _commit(context: ServerContext, seen: Schedule, fires: DueFires, plan: Plan) -> int:
    """Record the fires and move on to the following one; 0 if that was done elsewhere."""
    try:
        written = _try_commit(context, seen, fires, plan)
    except IntegrityError:
        # Its data set's indices were recorded by another submission since we looked.
        written = _try_commit(context, seen, fires, plan)
    if written:
        context.waker.wake()
    return written


def _try_commit(context: ServerContext, seen: Schedule, fires: DueFires, plan: Plan) -> int:
    with context.database.transaction() as session:
        schedule = lock_due(session, seen)
        if schedule is None:
            return 0
        schedule.next_fire_at = None if fires.following is None else fires.following.timestamp()
        schedule.reader = schedule.reading_until = None
        known = known_fires(session, schedule.id, fires.oldest)
        written = record_skipped(session, schedule, fires.rows_missed(known), OVERTAKEN)
        if fires.newest in known:
            return written
        record_fire(session, schedule, fires.newest, plan, "schedule")
        return written + 1
