"""What a trial costs in SQL does not grow with the trials that its study has behind it."""

import shutil
import sqlite3
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from builders import make_study, renew_request, result_request
from queue_server import QueueServer, queue_server
from sqlalchemy import event, text

from service.store.database import Database

BEHIND = 2_000
STEP = 10
"""SQLite tells of every so many instructions of its virtual machine."""


class Instructions:
    """Counts what SQLite does on every connection of a database."""

    def __init__(self, database: Database) -> None:
        self.done = 0
        event.listen(database.engine, "connect", self._watch)

    def _watch(self, connection: sqlite3.Connection, _record: Any) -> None:
        connection.set_progress_handler(self._count, STEP)

    def _count(self) -> int:
        self.done += STEP
        return 0


@pytest.fixture
def database(migrated_sqlite: Path, tmp_path: Path) -> Iterator[Database]:
    database = Database(f"sqlite:///{shutil.copy(migrated_sqlite, tmp_path)}")
    yield database
    database.dispose()


def run_trial(server: QueueServer, value: float) -> int | None:
    """From the claim to the result, with a model that takes the place of the best one's."""
    lease = server.claim()
    server.dispatcher.renew(lease.trial_id, 1, renew_request(value, value, final=value))
    server.put_model(lease.trial_id)
    server.dispatcher.finish(lease.trial_id, 1, result_request(value))
    return lease.number


def test_no_step_of_a_trial_walks_over_its_study(database: Database, tmp_path: Path) -> None:
    instructions = Instructions(database)
    with queue_server(database, tmp_path) as server:
        study_id = make_study(database, n_trials=BEHIND + 10)
        costs = []
        for first in (1, BEHIND + 2):
            run_trial(server, first / 10_000)  # what is only done once in a process
            begun = instructions.done
            assert run_trial(server, (first + 1) / 10_000) == first
            server.dispatcher.pages.flush()
            costs.append(instructions.done - begun)
            if first == 1:
                with database.transaction() as session:
                    behind = text(
                        "UPDATE trial SET state = 'completed', told = 1, value = number / 10000.0"
                        " WHERE study_id = :study AND number BETWEEN 2 AND :last"
                    )
                    session.execute(behind, {"study": study_id, "last": BEHIND})
    assert costs[0] > 1_000
    assert costs[1] < 1.2 * costs[0]
