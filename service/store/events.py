"""The event log: what happened to studies and trials, in order, for people and for streams."""

from datetime import UTC, datetime
from typing import Any

from sqlalchemy import insert
from sqlalchemy.orm import Session

from service.store.tables import Event, table_of

_EVENT = insert(table_of(Event))


def append_event(
    session: Session,
    kind: str,
    *,
    study_id: str | None = None,
    trial_id: str | None = None,
    data: dict[str, Any] | None = None,
) -> None:
    """Record that ``kind`` happened (``study.submitted``, ``trial.completed``, …)."""
    session.flush()  # what the event refers to may have been made just now
    values = {
        "study_id": study_id,
        "trial_id": trial_id,
        "type": kind,
        "data": data or {},
        "created_at": datetime.now(UTC),
    }
    session.execute(_EVENT, values)
