"""Schedulers that race and die: whatever happens, a fire has one row, and at most one study.

On SQLite one server is the rule; here several processes tick on one file all the same, since it is
the transaction that is to be tried.
"""

import random
import threading
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from time import monotonic
from typing import Any

import pytest
from api_server import TICKETS
from builders import make_dataset
from chaos.nursery import Nursery
from fake_clock import FakeClock
from real_parts import until
from sqlalchemy import func, select

from service.schedules.fire_times import next_fire
from service.store.database import Database
from service.store.schedules import insert_schedule
from service.store.tables import Schedule, ScheduleRun, Study, Trial
from studies.wire.schedules import ScheduleSpec

START = datetime(2026, 3, 2, tzinfo=UTC)
EVERY = timedelta(minutes=10)
SCHEDULERS = 3
STUCK_S = 2.0
"""After this without a row, time passes: a reader that died holds its claim for a minute."""
CLAIM = timedelta(seconds=61)


class Hours:
    """Fires of one schedule, one or a few at a time, each time until all have a row."""

    def __init__(self, database: Database, fields: dict[str, Any]) -> None:
        self._database = database
        self._clock = FakeClock(database)
        self._clock.make(START)
        document = {"name": "often", "cron": "*/10 * * * *", "overlap": "allow", **fields}
        spec = ScheduleSpec.model_validate(document)
        with database.transaction() as session:
            insert_schedule(session, spec, next_fire(spec, START))
        self.fires = 0

    @property
    def last(self) -> datetime:
        return START + self.fires * EVERY

    def pass_to(self, fires: int) -> None:
        self.fires = fires
        self._clock.set(self.last)

    def wait(self) -> None:
        now, since = self.last, monotonic()

        def is_recorded() -> bool:
            nonlocal now, since
            if monotonic() - since > STUCK_S and now < self.last + 4 * CLAIM:
                now, since = now + CLAIM, monotonic()
                self._clock.set(now)
            return self.rows() == self.fires

        until(is_recorded, lambda: f"{self.rows()} rows of {self.fires} fires")

    def rows(self) -> int:
        with self._database.reading() as session:
            return session.scalar(select(func.count()).select_from(ScheduleRun)) or 0


def by_id(database: Database, data: Path) -> dict[str, Any]:
    return {"study": {"dataset": make_dataset(database), "budget": {"n_trials": 2}}}


def read_anew(database: Database, data: Path) -> dict[str, Any]:
    (data / "tickets.csv").write_text(TICKETS)
    return {"data": {"train": "tickets.csv"}, "study": {"budget": {"n_trials": 2}}}


@pytest.mark.timeout(900)
@pytest.mark.parametrize("source", [by_id, read_anew])
def test_schedulers_that_race_and_are_killed_deal_with_every_fire_once(
    source: Callable[[Database, Path], dict[str, Any]],
    kind: str,
    database: Database,
    processes: Nursery,
    tmp_path: Path,
    is_long: bool,
    seed: int,
    print_figures: Callable[[str], None],
) -> None:
    data = tmp_path / "data"
    data.mkdir()
    hours = Hours(database, source(database, data))
    options = {
        "home": str(tmp_path / "home"),
        "database_url": database.url.render_as_string(hide_password=False),
        "data": str(data),
    }
    log = tmp_path / "schedulers.log"
    running = [processes.start("scheduler", log, **options) for _ in range(SCHEDULERS)]
    draw, pause = random.Random(seed), threading.Event()
    fires = 1000 if is_long else 30
    kills, submitted, began = 0, set(), monotonic()
    while hours.fires < fires:
        hours.pass_to(min(fires, hours.fires + draw.choice((1, 1, 1, 3))))
        submitted.add(hours.last)
        if draw.random() < 0.3:
            pause.wait(draw.uniform(0, 0.05))
            unlucky = draw.randrange(SCHEDULERS)
            processes.kill(running[unlucky])
            running[unlucky] = processes.start("scheduler", log, **options)
            kills += 1
        hours.wait()
    seconds = monotonic() - began
    for scheduler in running:
        assert processes.status(scheduler) is None, log.read_text()  # none died by itself
    _audit(database, fires, submitted)
    print_figures(
        f"schedules, {kind}, {source.__name__}: {SCHEDULERS} schedulers, {kills} kills, {fires} "
        f"fires, {seconds:.1f} s: {fires} rows, {len(submitted)} studies, one per fire that was "
        f"not overtaken (seed {seed})"
    )


def _audit(database: Database, fires: int, submitted: set[datetime]) -> None:
    with database.reading() as session:
        runs = session.scalars(select(ScheduleRun).order_by(ScheduleRun.fire_time)).all()
        studies = session.scalars(select(Study.id)).all()
        trials = session.execute(select(Trial.study_id, Trial.number)).all()
        schedule = session.scalars(select(Schedule)).one()
    assert [run.fire_time for run in runs] == [START + n * EVERY for n in range(1, fires + 1)]
    assert {run.fire_time for run in runs if run.outcome == "submitted"} == submitted
    assert {run.reason for run in runs if run.outcome == "skipped"} <= {"missed"}
    assert sorted(run.study_id for run in runs if run.study_id) == sorted(studies)
    assert sorted(map(tuple, trials)) == sorted((id_, n) for id_ in studies for n in (0, 1))
    assert schedule.next_fire_at == (START + (fires + 1) * EVERY).timestamp()
