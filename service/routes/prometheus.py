"""What `/metrics` tells: how many studies, trials and workers there are, by state.

The text format of Prometheus, version 0.0.4; it is short enough to write by hand.
"""

from collections.abc import Iterator, Mapping
from datetime import UTC, datetime, timedelta
from typing import get_args

from sqlalchemy import func, select
from sqlalchemy.orm import Session

from service.store.tables import Study, Trial, Worker
from studies.states import StudyState, TrialState

RECENT = timedelta(minutes=2)


def render_metrics(session: Session) -> str:
    """Every state has a line, also at zero, so that a graph starts with the server."""
    studies = dict.fromkeys(get_args(StudyState), 0) | _count(session, Study)
    trials = dict.fromkeys(get_args(TrialState), 0) | _count(session, Trial)
    lines = [
        *_gauge("bertune_studies", "Studies by state", studies),
        *_gauge("bertune_trials", "Trials by state, evaluations included", trials),
        *_gauge("bertune_workers", "Workers heard of in the last 2 minutes", _workers(session)),
    ]
    return "\n".join(lines) + "\n"


def _count(session: Session, table: type[Study] | type[Trial]) -> dict[str, int]:
    query = select(table.state, func.count().label("number")).group_by(table.state)
    if table is Study:
        query = query.where(Study.deleted_at.is_(None))
    return {row.state: row.number for row in session.execute(query)}


def _workers(session: Session) -> dict[str, int]:
    since = datetime.now(UTC) - RECENT
    busy = select(Trial.worker_id).where(Trial.state == "running").distinct().subquery()
    query = (
        select(func.count(), func.count(busy.c.worker_id))
        .select_from(Worker)
        .outerjoin(busy, busy.c.worker_id == Worker.id)
        .where(Worker.last_seen_at >= since)
    )
    all_, working = session.execute(query).one()
    return {"busy": working, "idle": all_ - working}


def _gauge(name: str, help_: str, values: Mapping[str, int]) -> Iterator[str]:
    yield f"# HELP {name} {help_}"
    yield f"# TYPE {name} gauge"
    for state, value in values.items():
        yield f'{name}{{state="{state}"}} {value}'
