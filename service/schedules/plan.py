"""What is to become of one fire: read its data, check its study. Slow, and nothing is changed."""

from dataclasses import dataclass
from datetime import datetime

from sqlalchemy.orm import Session

from model.errors import InputError
from service.context import ServerContext
from service.errors import DatabaseUnavailableError, DiskFullError, ServiceError
from service.intake.sources import read_source
from service.intake.submission import PreparedStudy, prepare
from service.schedules.fire_times import time_zone
from service.schedules.naming import Naming
from service.schedules.template import fire_source, fire_study
from service.schedules.warm_start import best_configurations, with_previous
from service.store.schedules import last_submitted, open_studies
from service.store.tables import Schedule
from studies.wire.schedules import ScheduleSpec


@dataclass(frozen=True, slots=True)
class Skip:
    """Nothing is submitted; ``reason`` is for programs, ``detail`` for people."""

    reason: str
    detail: str
    dataset_id: str | None = None


@dataclass(frozen=True, slots=True)
class Submission:
    study: PreparedStudy
    detail: str | None


Plan = Skip | Submission


def plan_fire(
    context: ServerContext,
    schedule: Schedule,
    fire_time: datetime,
    *,
    also_unchanged: bool = False,
) -> Plan:
    """Raises `DiskFullError` and `DatabaseUnavailableError`, which may pass; whatever else is
    wrong makes a `Skip`. ``also_unchanged`` submits data that the last study had too."""
    spec = ScheduleSpec.model_validate(schedule.spec)
    with context.database.reading() as session:
        overlap = overlapping(session, spec, schedule.id)
    if overlap is not None:
        return overlap
    naming = Naming(fire_time, time_zone(spec), spec.name)
    try:
        source = fire_source(spec, naming)
        dataset_id = None if source is None else read_source(context, source)
    except (InputError, ServiceError) as error:
        return _skipped("data_unreadable", error)
    unchanged = _unchanged(context, spec, schedule.id, dataset_id)
    if unchanged is not None and not also_unchanged:
        return unchanged
    try:
        return _prepared(context, spec, schedule.id, naming, dataset_id)
    except (InputError, ServiceError) as error:
        return _skipped("invalid_study", error, dataset_id)


def overlapping(session: Session, spec: ScheduleSpec, schedule_id: str) -> Skip | None:
    """Why a fire is skipped while studies of earlier fires are open, if it is."""
    if spec.overlap != "forbid":
        return None
    still_open = open_studies(session, schedule_id)
    if not still_open:
        return None
    names = ", ".join(f"{study.name} ({study.id}) is {study.state}" for study in still_open[:3])
    return Skip("overlap", f"{names}.")


def _skipped(reason: str, error: InputError | ServiceError, dataset_id: str | None = None) -> Skip:
    """Raises the error again if it may pass by itself."""
    if isinstance(error, DatabaseUnavailableError | DiskFullError):
        raise error
    where = f" ({'.'.join(map(str, error.where))})" if error.where else ""
    return Skip(reason, f"{error.code}: {error.detail}{where}", dataset_id)


def _unchanged(
    context: ServerContext, spec: ScheduleSpec, schedule_id: str, dataset_id: str | None
) -> Skip | None:
    if not spec.skip_unchanged or dataset_id is None:
        return None
    with context.database.reading() as session:
        last = last_submitted(session, schedule_id)
    if last is None or last.dataset_id != dataset_id:
        return None
    detail = f"The data are those of the fire of {last.fire_time:%Y-%m-%d %H:%M} UTC."
    return Skip("unchanged", detail, dataset_id)


def _prepared(
    context: ServerContext,
    spec: ScheduleSpec,
    schedule_id: str,
    naming: Naming,
    dataset_id: str | None,
) -> Submission:
    study = fire_study(spec, naming, dataset_id)
    sentences: list[str] = []
    if spec.warm_start is not None:
        with context.database.reading() as session:
            previous = best_configurations(session, schedule_id, spec.warm_start.k)
        study, sentences = with_previous(context, study, previous)
    return Submission(prepare(context, study), " ".join(sentences) or None)
