"""What `/metrics` tells: studies, trials and workers by state, and what the disk is used for.

The text format of Prometheus, version 0.0.4; it is short enough to write by hand.
"""

from collections.abc import Iterator, Mapping
from datetime import timedelta
from pathlib import Path
from typing import get_args

from sqlalchemy import func, select
from sqlalchemy.orm import InstrumentedAttribute, Session

from service.disk_space import free_bytes
from service.store.clock import moment
from service.store.tables import Artifact, DatasetFile, Study, Trial, Worker
from studies.states import StudyState, TrialState

RECENT = timedelta(minutes=2)


def render_metrics(session: Session, home: Path) -> str:
    """Every state has a line, also at zero, so that a graph starts with the server.

    ``home`` is the folder on whose disk the files lie. Deleted studies do not count.
    """
    studies = dict.fromkeys(get_args(StudyState), 0) | _count(session, Study)
    trials = dict.fromkeys(get_args(TrialState), 0) | _count(session, Trial)
    lines = [
        *_gauge("bertune_studies", "Studies by state", studies),
        *_gauge("bertune_trials", "Trials by state, evaluations included", trials),
        *_gauge("bertune_workers", "Workers heard of in the last 2 minutes", _workers(session)),
        *_bytes("bertune_artifact_bytes", "Files of trials", _sum(session, Artifact.bytes)),
        *_bytes("bertune_dataset_bytes", "Files of data sets", _sum(session, DatasetFile.bytes)),
        *_bytes("bertune_disk_free_bytes", "Room left on the disk of both", free_bytes(home)),
    ]
    return "\n".join(lines) + "\n"


def _count(session: Session, table: type[Study] | type[Trial]) -> dict[str, int]:
    query = select(table.state, func.count().label("number")).group_by(table.state)
    if table is Trial:
        query = query.join(Study, Study.id == Trial.study_id)
    query = query.where(Study.deleted_at.is_(None))
    return {row.state: row.number for row in session.execute(query)}


def _workers(session: Session) -> dict[str, int]:
    since = moment(session) - RECENT
    busy = select(Trial.worker_id).where(Trial.state == "running").distinct().subquery()
    query = (
        select(func.count(), func.count(busy.c.worker_id))
        .select_from(Worker)
        .outerjoin(busy, busy.c.worker_id == Worker.id)
        .where(Worker.last_seen_at >= since, Worker.stopped_at.is_(None))
    )
    all_, working = session.execute(query).one()
    return {"busy": working, "idle": all_ - working}


def _sum(session: Session, column: InstrumentedAttribute[int]) -> int:
    return int(session.scalar(select(func.sum(column))) or 0)


def _gauge(name: str, help_: str, values: Mapping[str, int]) -> Iterator[str]:
    yield f"# HELP {name} {help_}"
    yield f"# TYPE {name} gauge"
    for state, value in values.items():
        yield f'{name}{{state="{state}"}} {value}'


def _bytes(name: str, help_: str, value: int) -> Iterator[str]:
    yield f"# HELP {name} {help_}"
    yield f"# TYPE {name} gauge"
    yield f"{name} {value}"
