"""Reads the event log without gaps, and keeps it bounded.

Ids come from a sequence when a row is written, and rows become visible when their transactions
commit: on PostgreSQL a smaller id may appear after a larger one. So who reads by "id > last" must
stop below what is still being written, which `newest_id` and then `writers` tell.
"""

from datetime import datetime
from itertools import takewhile
from typing import Any, cast

from sqlalchemy import CursorResult, delete, func, select, text, update
from sqlalchemy.orm import Session

from service.store.event_filter import EventFilter, SeenEvent
from service.store.studies import labels_of
from service.store.tables import Event, EventLog, Study
from studies.wire.events import EventAnswer

MOST_EVENTS = 1_000_000
"""Of so many the oldest go, however young they are."""
REMOVED_AT_ONCE = 5_000
_WRITERS = text(
    "SELECT virtualtransaction FROM pg_locks WHERE locktype = 'relation' AND granted"
    " AND database = (SELECT oid FROM pg_database WHERE datname = current_database())"
    " AND relation = 'event'::regclass AND mode = 'RowExclusiveLock'"
)


def newest_id(session: Session, study_id: str | None = None) -> int:
    """The largest id that is visible, of a study or of all; 0 for none."""
    query = select(func.max(Event.id))
    if study_id is not None:
        query = query.where(Event.study_id == study_id)
    return session.scalar(query) or 0


def place_before_last(session: Session, chosen: EventFilter, last: int) -> int:
    """The id after which the newest ``last`` of these events come; 0 when there are no more."""
    newest_first = select(Event.id).where(*chosen.conditions()).order_by(Event.id.desc())
    return session.scalar(newest_first.offset(last).limit(1)) or 0


def writers(session: Session) -> frozenset[str]:
    """The open transactions that may have written events.

    Once all that were open after `newest_id` said n are over, no event up to n appears any more: a
    transaction takes its lock on the table before an id, and gives it up after its commit. On
    SQLite writers wait for each other, and ids appear in order.
    """
    if session.get_bind().dialect.name == "sqlite":
        return frozenset()
    return frozenset(session.scalars(_WRITERS))


def read_events(
    session: Session, chosen: EventFilter, *, after: int, up_to: int, limit: int
) -> list[SeenEvent]:
    """The first events in (``after``, ``up_to``] by id, with their studies."""
    query = (
        select(Event, Study.name)
        .outerjoin(Study, Study.id == Event.study_id)
        .where(Event.id > after, Event.id <= up_to, *chosen.conditions())
        .order_by(Event.id)
        .limit(limit)
    )
    rows = session.execute(query).all()
    labels = labels_of(session, list({row.Event.study_id for row in rows if row.Event.study_id}))
    return [
        SeenEvent(_answer(row.Event, row.name), labels.get(row.Event.study_id or "", {}))
        for row in rows
    ]


def _answer(event: Event, study_name: str | None) -> EventAnswer:
    return EventAnswer(
        id=event.id,
        type=event.type,
        study_id=event.study_id,
        study=study_name,
        trial=event.data.get("number") if event.trial_id is not None else None,
        data=event.data,
        created_at=event.created_at,
    )


def removed_to(session: Session) -> int:
    """Events up to this id were removed, by their age or number."""
    return session.scalars(select(EventLog.removed_to)).one()


def remove_old_events(
    session: Session, before: datetime, *, most: int = MOST_EVENTS, at_once: int = REMOVED_AT_ONCE
) -> int:
    """Remove some events made before a time, or over ``most``; 0 when none was left to remove."""
    crowded_to = newest_id(session) - most
    oldest = select(Event.id, Event.created_at).order_by(Event.id)
    old: list[int] = []
    for limit in (1, at_once):  # mostly a look at the very oldest is enough
        rows = session.execute(oldest.limit(limit)).all()
        old = [
            row.id
            for row in takewhile(lambda row: row.created_at < before or row.id <= crowded_to, rows)
        ]
        if not old:
            return 0
    session.execute(
        update(EventLog).where(EventLog.removed_to < old[-1]).values(removed_to=old[-1])
    )
    removed = session.execute(
        delete(Event)
        .where(Event.id.between(old[0], old[-1]))
        .execution_options(synchronize_session=False)
    )
    return cast("CursorResult[Any]", removed).rowcount
