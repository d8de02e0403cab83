"""How long a study has run: from its first claim, without its pauses, by the database's clock.

The count is held against ``timeout_s``. It stands still from the moment of a pause, also while
running trials finish, and begins anew when the study is extended.
"""

from sqlalchemy.orm import Session

from service.store.clock import now_s
from service.store.tables import Study


def start_clock(session: Session, study: Study) -> None:
    """Count from now on; a clock that runs goes on."""
    if study.clock_started_at is None:
        study.clock_started_at = now_s(session)


def stop_clock(session: Session, study: Study) -> None:
    """Keep what was counted; a clock that stands stays as it is."""
    study.time_used_s = counted_s(session, study)
    study.clock_started_at = None


def restart_clock(session: Session, study: Study) -> None:
    """Count anew from nothing: from now on if the clock runs, else from its next start."""
    study.time_used_s = 0.0
    if study.clock_started_at is not None:
        study.clock_started_at = now_s(session)


def counted_s(session: Session, study: Study) -> float:
    """Seconds counted so far."""
    if study.clock_started_at is None:
        return study.time_used_s
    return counted_by(study, now_s(session))


def counted_by(study: Study, moment_s: float) -> float:
    """Seconds counted by a moment of the database's clock."""
    if study.clock_started_at is None:
        return study.time_used_s
    return study.time_used_s + max(0.0, moment_s - study.clock_started_at)
