"""A server and its schedules, at a time that a test sets."""

from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from builders import make_dataset
from fake_clock import FakeClock
from queue_server import QueueServer, queue_server
from sqlalchemy import select

from service.schedules.fire_times import next_fire
from service.schedules.tick import tick
from service.store.database import Database
from service.store.moves import lock_study, move_study
from service.store.schedules import insert_schedule
from service.store.tables import ScheduleRun, Study
from studies.wire.schedules import ScheduleSpec

START = datetime(2026, 3, 2, 12, tzinfo=UTC)
"""A Monday, noon."""


class House:
    """A server and its schedules, at a time that a test sets."""

    def __init__(self, server: QueueServer, clock: FakeClock, folder: Path) -> None:
        self.server = server
        self.database = server.database
        self.folder = folder
        self._clock = clock
        self.now = START
        clock.make(START)

    def at(self, now: datetime) -> int:
        """Let it be ``now``, and tick."""
        self.pass_to(now)
        return tick(self.server.context)

    def pass_to(self, now: datetime) -> None:
        self.now = now
        self._clock.set(now)

    def schedule(self, **fields: Any) -> str:
        if "data" not in fields:
            study = {"dataset": make_dataset(self.database), "budget": {"n_trials": 1}}
            fields = {"study": study, **fields}
        document = {"name": "nightly", "cron": "*/5 * * * *", "study": {}, **fields}
        spec = ScheduleSpec.model_validate(document)
        with self.database.transaction() as session:
            return insert_schedule(session, spec, next_fire(spec, self.now)).id

    def runs(self) -> list[tuple[str, str | None]]:
        """Fire time and reason (None when submitted), in order."""
        return [(f"{run.fire_time:%H:%M}", run.reason) for run in self.rows()]

    def rows(self) -> list[ScheduleRun]:
        with self.database.reading() as session:
            return list(session.scalars(select(ScheduleRun).order_by(ScheduleRun.fire_time)))

    def studies(self) -> list[Study]:
        with self.database.reading() as session:
            return list(session.scalars(select(Study).order_by(Study.id)))

    def end_studies(self) -> None:
        with self.database.transaction() as session:
            for study_id in session.scalars(select(Study.id).order_by(Study.id)).all():
                study = lock_study(session, study_id)
                if study.state == "queued":
                    move_study(session, study, "completed")


def minutes(count: float) -> datetime:
    return START + timedelta(minutes=count)


@contextmanager
def schedule_house(database: Database, folder: Path) -> Iterator[House]:
    """Its home and its data lie in ``folder``; the process must use the fake clock."""
    data = folder / "data"
    data.mkdir()
    with queue_server(database, folder / "home", data_dirs=(data,)) as server:
        yield House(server, FakeClock(database), data)
