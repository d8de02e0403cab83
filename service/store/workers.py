"""Workers: who they are, when they were last heard of, and whether they are to take no more."""

from collections.abc import Sequence
from datetime import datetime
from typing import Any

from sqlalchemy import bindparam, exists, or_, select, update
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.orm import Session

from service.errors import NotFoundError
from service.store.clock import moment
from service.store.moves import ROW_LOCK
from service.store.tables import Attempt, Trial, Worker

_BARRED = select(Worker.id).where(
    Worker.id == bindparam("worker_id"), or_(Worker.draining, Worker.stopped_at.is_not(None))
)
_BARRED_ARRIVING = select(Worker.id).where(Worker.id == bindparam("worker_id"), Worker.draining)
_HOLDER = (
    select(Attempt.worker_id)
    .where(Attempt.trial_id == bindparam("trial_id"), Attempt.attempt == bindparam("attempt"))
    .scalar_subquery()
)
_TOUCH_HOLDER = (
    update(Worker)
    .where(Worker.id == _HOLDER)
    .values(last_seen_at=bindparam("now"))
    .execution_options(synchronize_session=False)
)


def meet_worker(
    session: Session, worker_id: str, device: dict[str, Any] | None, *, arrives: bool = False
) -> bool:
    """Note that a worker is there; returns whether it may be given a trial: it does not drain and
    has not said goodbye. One that ``arrives``, beginning to ask, takes an earlier goodbye back.

    Its row stays locked until the transaction ends, so claims of one worker follow one another.
    """
    insert = postgresql.insert if session.get_bind().dialect.name == "postgresql" else sqlite.insert
    now = moment(session)
    changes: dict[str, Any] = {"last_seen_at": now}
    if device is not None:
        changes["device"] = device
    if arrives:
        changes["stopped_at"] = None
    row = {"id": worker_id, "draining": False, "first_seen_at": now, **changes}
    statement = insert(Worker).values(**row)
    statement = statement.on_conflict_do_update(index_elements=[Worker.id], set_=changes)
    row_now = session.execute(statement.returning(Worker.draining, Worker.stopped_at)).one()
    return not row_now.draining and row_now.stopped_at is None


def may_claim(session: Session, worker_id: str, *, arrives: bool = False) -> bool:
    """Whether a worker may be given a trial, as `meet_worker` says; an unknown one may."""
    barred = _BARRED_ARRIVING if arrives else _BARRED
    return session.scalar(barred, {"worker_id": worker_id}) is None


def touch_holder(session: Session, trial_id: str, attempt: int) -> None:
    """Note that the worker of an attempt is there. Comes first: workers lock before trials."""
    values = {"trial_id": trial_id, "attempt": attempt, "now": moment(session)}
    session.execute(_TOUCH_HOLDER, values)


def list_workers(
    session: Session, *, limit: int, after: str | None, heard_since: datetime
) -> Sequence[Worker]:
    """Workers by name, one more than ``limit`` if there is more: those heard of since then, and
    silent ones that still hold a trial."""
    holds = exists().where(Trial.worker_id == Worker.id, Trial.state == "running")
    query = select(Worker).where(or_(Worker.last_seen_at >= heard_since, holds))
    query = query.order_by(Worker.id).limit(limit + 1)
    return session.scalars(query if after is None else query.where(Worker.id > after)).all()


def held_trials(session: Session, worker_ids: Sequence[str]) -> dict[str, list[str]]:
    """What each worker holds now, as ``study_id/number`` (or ``study_id/evaluate``)."""
    held: dict[str, list[str]] = {worker_id: [] for worker_id in worker_ids}
    rows = session.execute(
        select(Trial.worker_id, Trial.study_id, Trial.number)
        .where(Trial.state == "running", Trial.worker_id.in_(worker_ids))
        .order_by(Trial.study_id, Trial.number)
    )
    for worker_id, study_id, number in rows:
        held[worker_id or ""].append(f"{study_id}/{'evaluate' if number is None else number}")
    return held


def drain_worker(session: Session, worker_id: str) -> Worker:
    """The worker gets no more trials; what it holds it may finish. Raises `NotFoundError`."""
    worker = _lock_worker(session, worker_id)
    worker.draining = True
    return worker


def stop_worker(session: Session, worker_id: str) -> None:
    """The worker said goodbye, or was seen to be dead: it claims nothing until it arrives anew.
    Raises `NotFoundError`."""
    _lock_worker(session, worker_id).stopped_at = moment(session)


def _lock_worker(session: Session, worker_id: str) -> Worker:
    worker = session.get(Worker, worker_id, with_for_update=ROW_LOCK, populate_existing=True)
    if worker is None:
        raise NotFoundError(f"There is no worker {worker_id}.", code="unknown_worker")
    return worker
