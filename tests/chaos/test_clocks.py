"""Wrong clocks of workers and servers change nothing: the database's alone decides about leases."""

import time
from pathlib import Path

from chaos.house import LEASE_S, House, open_house
from chaos.nursery import Nursery
from chaos.takeover import attempt_of, has_ended, takeover_s
from real_databases import MakeDatabase
from real_parts import until
from sqlalchemy import select

from service.store.database import Database
from service.store.tables import Trial
from studies.api import Api

HOUR_S = 3600.0
SLACK_S = 5.0
LONG = {"epochs": 300}
"""A training of twenty seconds at least."""


def test_workers_whose_clocks_are_an_hour_wrong_change_nothing(
    database: Database, processes: Nursery, tmp_path: Path
) -> None:
    with open_house(processes, tmp_path, database) as house:
        study_id = house.submit(training={"epochs": 2}, budget={"n_trials": 8, "max_parallel": 8})
        for error_s in (HOUR_S, -HOUR_S):
            house.hire(clock_error_s=error_s)
        until(lambda: has_ended(database, study_id), lambda: str(house.logs("")))
    with database.reading() as session:
        trials = session.scalars(select(Trial)).all()
    assert [(trial.state, trial.attempt) for trial in trials] == [("completed", 1)] * 8
    assert {trial.worker_id for trial in trials} == {"worker-0", "worker-1"}


def test_two_servers_an_hour_apart_take_no_lease_early_and_none_late(
    make_postgresql: MakeDatabase, migrated_postgresql: str, processes: Nursery, tmp_path: Path
) -> None:
    with make_postgresql(migrated_postgresql) as url:
        database = Database(url)
        errors_s = (-HOUR_S / 2, HOUR_S / 2)
        with open_house(processes, tmp_path, database, servers=2, clock_errors_s=errors_s) as house:
            check_servers(house, database)
        database.dispose()


def check_servers(house: House, database: Database) -> None:
    study_id = house.submit(training=LONG, budget={"n_trials": 1})
    holder = house.hire()  # of the server that is late
    until(lambda: attempt_of(database, study_id) == 1)
    house.hire()  # of the one that is ahead
    later = time.monotonic() + LEASE_S + 1
    until(lambda: time.monotonic() > later)
    assert attempt_of(database, study_id) == 1
    assert [states_of_workers(house, port) for port in house.ports] == [
        {"worker-0": "busy", "worker-1": "idle"}
    ] * 2
    assert 0 <= takeover_s(house, database, holder, study_id) <= SLACK_S


def states_of_workers(house: House, port: int) -> dict[str, str]:
    with Api(f"http://127.0.0.1:{port}", house.key) as client:
        return {worker.name: worker.state for worker in client.workers()}
