"""The event log: what happened to studies and trials, in order, for people and for streams."""

from datetime import UTC, datetime
from typing import Any

from sqlalchemy.orm import Session

from service.store.tables import Event


def append_event(
    session: Session,
    kind: str,
    *,
    study_id: str | None = None,
    trial_id: str | None = None,
    data: dict[str, Any] | None = None,
) -> None:
    """Record that ``kind`` happened (``study.submitted``, ``trial.completed``, …)."""
    session.add(
        Event(
            study_id=study_id,
            trial_id=trial_id,
            type=kind,
            data=data or {},
            created_at=datetime.now(UTC),
        )
    )
