"""The database is away while workers train: it comes back, and no human and no trial was needed."""

import sqlite3
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, closing, contextmanager
from http.client import HTTPConnection
from pathlib import Path

import pytest
from chaos.audit import check_optuna, optuna_trials
from chaos.house import House, open_house
from chaos.nursery import Nursery
from real_parts import until
from sqlalchemy import func, select
from tcp_proxy import proxied

from service.store.database import Database
from service.store.tables import Attempt, Study, Trial

TRIALS = 12
ANSWER_S = 40.0
TakeAway = Callable[[], AbstractContextManager[None]]


@pytest.fixture
def away_s(is_long: bool) -> float:
    """Longer than a lease either way."""
    return 60.0 if is_long else 5.5


@contextmanager
def locked(database: Database) -> Iterator[None]:
    """Another process's exclusive lock, as far as SQLite can tell."""
    path = str(database.url.database)
    with closing(sqlite3.connect(path, isolation_level=None, timeout=30)) as other:
        other.execute("BEGIN EXCLUSIVE")
        yield
        other.execute("ROLLBACK")


@pytest.fixture
def exposed(
    kind: str, database: Database, processes: Nursery, tmp_path: Path
) -> Iterator[tuple[House, TakeAway]]:
    """A house whose database can be taken away, and the means to do so."""
    if kind == "sqlite":
        with open_house(processes, tmp_path, database) as house:
            yield house, lambda: locked(database)
        return
    with proxied(database.url) as (proxy, url):

        @contextmanager
        def refused() -> Iterator[None]:
            proxy.refuse()
            yield
            proxy.go_on()

        far = Database(url)
        with open_house(processes, tmp_path, far, servers=2) as house:
            yield house, refused
        far.dispose()


def ask(house: House, path: str) -> int:
    connection = HTTPConnection("127.0.0.1", house.ports[0], timeout=ANSWER_S)
    try:
        connection.request("GET", path, headers={"Authorization": f"Bearer {house.key}"})
        return connection.getresponse().status
    finally:
        connection.close()


@pytest.mark.timeout(400)
def test_results_arrive_after_an_outage_and_no_attempt_is_lost(
    exposed: tuple[House, TakeAway],
    kind: str,
    database: Database,
    away_s: float,
    print_figures: Callable[[str], None],
) -> None:
    house, take_away = exposed
    study_id = house.submit(
        training={"epochs": 2}, budget={"n_trials": TRIALS, "max_parallel": TRIALS}
    )
    workers = [house.hire() for _ in range(3)]

    def completed() -> int:
        with database.reading() as session:
            query = select(func.count()).where(Trial.state == "completed")
            return session.scalar(query) or 0

    until(lambda: completed() >= 2)
    with take_away():
        gone_at = time.monotonic()
        until(lambda: ask(house, "/readyz") == 503 or kind == "sqlite")
        assert ask(house, "/healthz") == 200
        assert ask(house, "/v1/studies") == (503 if kind == "postgresql" else 200)
        assert time.monotonic() - gone_at < 10
        threading.Event().wait(away_s)
    back_at = time.monotonic()

    def ended() -> bool:
        with database.reading() as session:
            return session.get_one(Study, study_id).finished_at is not None

    def is_told() -> bool:
        with database.reading() as session:
            return session.scalars(select(Trial).where(Trial.told.is_(False))).first() is None

    until(ended, lambda: str(house.logs("server")))
    until(is_told, lambda: str(house.logs("server")))
    with database.reading() as session:
        study = session.get_one(Study, study_id)
        # Beside ours Optuna may have failed ones, of asks that the outage cut off before our
        # commit: each worker has one under way at most.
        check_optuna(database, study, list(session.scalars(select(Trial))))
        assert len(optuna_trials(database, study)) <= TRIALS + len(workers)
        states = Counter(session.scalars(select(Trial.state)))
        outcomes = Counter(session.scalars(select(Attempt.outcome)))
    assert states == {"completed": TRIALS}
    assert outcomes == {"completed": TRIALS}, house.logs("")
    for child in [*workers, *house.servers.values()]:
        house.check_alive(child)
    until(lambda: ask(house, "/readyz") == 200)
    print_figures(
        f"database away, {kind}: {away_s:.0f} s away, {TRIALS} of {TRIALS} trials completed in "
        f"{outcomes.total()} attempts, the last {time.monotonic() - back_at:.0f} s after"
    )
