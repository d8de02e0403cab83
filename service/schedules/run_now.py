"""A fire that a person asks for, beside the schedule's own."""

from datetime import timedelta

from sqlalchemy.exc import IntegrityError

from service.context import ServerContext
from service.schedules.plan import Plan, plan_fire
from service.schedules.record import record_fire
from service.store.clock import moment
from service.store.schedules import get_schedule, known_fires, run_of_key
from service.store.tables import ScheduleRun


def run_now(context: ServerContext, schedule_id: str, key: str | None = None) -> ScheduleRun:
    """Fire once, now, also when the schedule is paused or its data are unchanged; its own times
    stay as they are, and its overlap policy holds. The same ``key`` fires once, however often it
    is asked, and gives the same run.

    Raises `NotFoundError`, `DiskFullError`.
    """
    with context.database.reading() as session:
        schedule = get_schedule(session, schedule_id)
        now = moment(session)
        done = run_of_key(session, schedule_id, key) if key else None
    if done is not None:
        return done
    plan = plan_fire(context, schedule, now, also_unchanged=True)
    try:
        run = _record(context, schedule_id, plan, key)
    except IntegrityError:
        # Its data set's indices were recorded by another submission since we looked.
        run = _record(context, schedule_id, plan, key)
    context.waker.wake()
    return run


def _record(context: ServerContext, schedule_id: str, plan: Plan, key: str | None) -> ScheduleRun:
    with context.database.transaction() as session:
        schedule = get_schedule(session, schedule_id, lock=True)
        done = run_of_key(session, schedule_id, key) if key else None
        if done is not None:  # asked for twice at the same moment
            return done
        fire_time = moment(session)
        taken = known_fires(session, schedule_id, fire_time)
        while fire_time in taken:
            fire_time += timedelta(microseconds=1)
        run = record_fire(session, schedule, fire_time, plan, "manual")
        run.request_key = key
        return run
