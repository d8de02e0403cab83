"""Schedules in the store: making, finding and changing them, and what became of their fires."""

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta

from sqlalchemy import func, select, tuple_
from sqlalchemy.exc import IntegrityError
from sqlalchemy.orm import Session, aliased

from service.errors import ConflictError, NotFoundError
from service.store.identifiers import new_id
from service.store.tables import Schedule, ScheduleRun, Study
from studies.states import STUDY_ENDED
from studies.wire.schedules import ScheduleSpec


def insert_schedule(
    session: Session, spec: ScheduleSpec, next_fire_at: datetime | None
) -> Schedule:
    """Raises `ConflictError` ``name_taken``."""
    now = datetime.now(UTC)
    schedule = Schedule(id=new_id(), created_at=now, updated_at=now)
    _set(schedule, spec, next_fire_at)
    session.add(schedule)
    _flush_name(session, spec)
    return schedule


def get_schedule(session: Session, schedule_id: str, *, lock: bool = False) -> Schedule:
    """Raises `NotFoundError` ``unknown_schedule``, also for one that was removed."""
    query = select(Schedule).where(Schedule.id == schedule_id, Schedule.deleted_at.is_(None))
    if lock:
        query = query.with_for_update(key_share=True).execution_options(populate_existing=True)
    schedule = session.scalars(query).one_or_none()
    if schedule is None:
        detail = f"There is no schedule {schedule_id}."
        raise NotFoundError(detail, code="unknown_schedule", where=["path", "schedule_id"])
    return schedule


def list_schedules(
    session: Session, *, limit: int, after: str | None = None, name: str | None = None
) -> Sequence[Schedule]:
    """By name, one more than ``limit`` if there is more; ``after`` is the last name seen."""
    query = select(Schedule).where(Schedule.deleted_at.is_(None)).order_by(Schedule.name)
    if after is not None:
        query = query.where(Schedule.name > after)
    if name is not None:
        query = query.where(Schedule.name == name)
    return session.scalars(query.limit(limit + 1)).all()


def replace_spec(
    session: Session, schedule: Schedule, spec: ScheduleSpec, next_fire_at: datetime | None
) -> None:
    """Raises `ConflictError` ``name_taken``. Whoever dealt with a due fire begins anew."""
    _set(schedule, spec, next_fire_at)
    schedule.reader = schedule.reading_until = None
    if spec.champion is None:
        _free_champion(schedule)
    # It tells one edit from the next, also where servers' clocks differ.
    schedule.updated_at = max(datetime.now(UTC), schedule.updated_at + timedelta(microseconds=1))
    _flush_name(session, spec)


def set_champion(schedule: Schedule, study_id: str, number: int, since: datetime) -> None:
    """Let the schedule stand by the model of a study's trial."""
    schedule.champion_study_id, schedule.champion_number = study_id, number
    schedule.champion_since = since


def _free_champion(schedule: Schedule) -> None:
    schedule.champion_study_id = schedule.champion_number = schedule.champion_since = None


def remove_schedule(schedule: Schedule) -> None:
    """It fires no more, its name is free and so is its champion; its runs and their studies
    stay."""
    schedule.deleted_at = schedule.updated_at = datetime.now(UTC)
    schedule.enabled, schedule.next_fire_at = False, None
    _free_champion(schedule)


def list_runs(
    session: Session,
    schedule_id: str,
    *,
    limit: int,
    before: tuple[datetime, str] | None = None,
) -> Sequence[ScheduleRun]:
    """Latest fire first, one more than ``limit`` if there is more; ``before`` is a (fire, id)."""
    query = (
        select(ScheduleRun)
        .where(ScheduleRun.schedule_id == schedule_id)
        .order_by(ScheduleRun.fire_time.desc(), ScheduleRun.id.desc())
    )
    if before is not None:
        query = query.where(tuple_(ScheduleRun.fire_time, ScheduleRun.id) < before)
    return session.scalars(query.limit(limit + 1)).all()


def last_runs(session: Session, schedule_ids: Sequence[str]) -> dict[str, ScheduleRun]:
    """The run of the latest fire of each schedule that has any, in one query."""
    other = aliased(ScheduleRun)
    latest = (
        select(func.max(other.fire_time))
        .where(other.schedule_id == ScheduleRun.schedule_id)
        .scalar_subquery()
    )
    query = select(ScheduleRun).where(
        ScheduleRun.schedule_id.in_(schedule_ids), ScheduleRun.fire_time == latest
    )
    return {run.schedule_id: run for run in session.scalars(query)}


def last_submitted(session: Session, schedule_id: str) -> ScheduleRun | None:
    """The run that submitted the schedule's latest study."""
    query = (
        select(ScheduleRun)
        .where(ScheduleRun.schedule_id == schedule_id, ScheduleRun.outcome == "submitted")
        .order_by(ScheduleRun.fire_time.desc())
    )
    return session.scalars(query.limit(1)).first()


def open_studies(session: Session, schedule_id: str) -> Sequence[Study]:
    """Studies of the schedule that have not ended, by their ids, which is how they are locked."""
    query = (
        select(Study)
        .join(ScheduleRun, ScheduleRun.study_id == Study.id)
        .where(
            ScheduleRun.schedule_id == schedule_id,
            Study.state.not_in(STUDY_ENDED),
            Study.deleted_at.is_(None),
        )
        .order_by(Study.id)
    )
    return session.scalars(query).all()


def due_schedules(session: Session, now: float) -> Sequence[Schedule]:
    """Those whose fire is due and whose data no server reads now, longest due first."""
    free = Schedule.reading_until.is_(None) | (Schedule.reading_until <= now)
    query = select(Schedule).where(Schedule.next_fire_at <= now, free)
    return session.scalars(query.order_by(Schedule.next_fire_at)).all()


def lock_due(session: Session, seen: Schedule) -> Schedule | None:
    """The schedule, locked, if its fire is still to be dealt with and nobody edited it since it
    was ``seen``."""
    query = (
        select(Schedule)
        .where(Schedule.id == seen.id)
        .where(Schedule.next_fire_at == seen.next_fire_at, Schedule.updated_at == seen.updated_at)
        .with_for_update(key_share=True)
        .execution_options(populate_existing=True)
    )
    return session.scalars(query).one_or_none()


def known_fires(session: Session, schedule_id: str, since: datetime) -> set[datetime]:
    """Fire times that have a row already, as after the database's clock was put back."""
    query = select(ScheduleRun.fire_time).where(
        ScheduleRun.schedule_id == schedule_id, ScheduleRun.fire_time >= since
    )
    return set(session.scalars(query))


def run_of_key(session: Session, schedule_id: str, key: str) -> ScheduleRun | None:
    """The run that was asked for under this Idempotency-Key."""
    return session.scalars(
        select(ScheduleRun).where(
            ScheduleRun.schedule_id == schedule_id, ScheduleRun.request_key == key
        )
    ).first()


def _set(schedule: Schedule, spec: ScheduleSpec, next_fire_at: datetime | None) -> None:
    schedule.name, schedule.enabled = spec.name, spec.enabled
    schedule.spec = spec.model_dump(mode="json")
    schedule.next_fire_at = None if next_fire_at is None else next_fire_at.timestamp()


def _flush_name(session: Session, spec: ScheduleSpec) -> None:
    try:
        session.flush()
    except IntegrityError as error:
        detail = f"There is a schedule {spec.name!r} already; change that one, or take a new name."
        raise ConflictError(detail, code="name_taken", where=["body", "name"]) from error
