"""Workers of `bertune up`: one that dies costs its trial an attempt, and no wait for its lease."""

import os
import re
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path

import pytest
from real_databases import (
    database,
    kind,
    make_postgresql,
    migrated_postgresql,
    migrated_sqlite,
    postgresql_url,
)
from real_parts import SEARCHED, Worker, submit, tickets, until

from service.store.database import Database
from service.store.keys import create_key, revoke_key
from studies.api import Api

__all__ = [
    "database",
    "kind",
    "make_postgresql",
    "migrated_postgresql",
    "migrated_sqlite",
    "postgresql_url",
]

LEASE_S = 600
"""Longer than any wait of a test: what goes on before it lapses did not wait for it."""


class Up:
    """A `bertune up` with one worker, whose trainer is a fake one."""

    def __init__(self, folder: Path, name: str, port: int, database: Database) -> None:
        self._log = folder / f"{name}.log"
        self.home = folder / "home"
        command = [sys.executable, "-m", "service.cli", "up", "--home", str(self.home)]
        command += ["--port", str(port), "--trainer", "fake_trainer"]
        kept = {name: value for name, value in os.environ.items() if "BERTUNE_" not in name}
        url = database.url.render_as_string(hide_password=False)
        own = {"BERTUNE_LEASE_S": str(LEASE_S), "BERTUNE_RENEW_S": "0.5"}
        own["BERTUNE_DATABASE_URL"] = url
        environment = {**kept, **own, "PYTHONPATH": SEARCHED}
        with self._log.open("wb") as log:
            self.process = subprocess.Popen(command, env=environment, stdout=log, stderr=log)

    @property
    def log(self) -> str:
        return self._log.read_text(encoding="utf-8")

    @property
    def key(self) -> str:
        return (self.home / "admin.key").read_text(encoding="ascii").strip()

    def url(self) -> str:
        found = until(lambda: re.search(r"Bertune runs at (\S+)", self.log), lambda: self.log)
        return str(found[1])

    def client(self) -> Api:
        return Api(self.url(), self.key)

    def workers(self) -> list[int]:
        """The process ids of the workers."""
        tasks = Path(f"/proc/{self.process.pid}/task")
        lists = [(task / "children").read_text() for task in tasks.iterdir()]
        return [int(child) for text in lists for child in text.split()]


StartUp = Callable[..., Up]


@pytest.fixture
def start_up(database: Database, tmp_path: Path) -> Iterator[StartUp]:
    """``start_up(port=0)``: all of them on one home and one database; those that run are killed at
    the end."""
    started: list[Up] = []

    def start(port: int = 0) -> Up:
        started.append(Up(tmp_path, f"up-{len(started)}", port, database))
        return started[-1]

    yield start
    for up in started:
        up.process.kill()
        up.process.wait(20)


@pytest.fixture
def up(start_up: StartUp) -> Up:
    return start_up()


def trial_state(client: Api, study: str, number: int = 0) -> Callable[[], tuple[str, int]]:
    def state() -> tuple[str, int]:
        trial = client.trial(study, number)
        return trial.state, trial.attempt

    return state


def test_the_trial_of_a_killed_worker_goes_to_its_successor_at_once(up: Up, tmp_path: Path) -> None:
    with up.client() as client:
        study = submit(client, tickets(tmp_path, "wait"))
        state = trial_state(client, study)
        until(lambda: "trainer: waiting" in up.log, lambda: up.log)
        (worker,) = up.workers()

        os.kill(worker, signal.SIGKILL)

        until(lambda: state() == ("running", 2), lambda: up.log)
        assert client.trial(study, 0).attempts[0].outcome == "lost"
        shown = {worker.name: worker.state for worker in client.workers()}
        assert sorted(shown.values()) == ["busy", "stopped"]

        up.process.send_signal(signal.SIGINT)
        assert up.process.wait(30) == 0, up.log
    assert "Traceback" not in up.log, up.log


def test_a_worker_that_was_asked_to_end_leaves_its_trial_unharmed(up: Up, tmp_path: Path) -> None:
    with up.client() as client:
        study = submit(client, tickets(tmp_path, "wait"))
        state = trial_state(client, study)
        until(lambda: "trainer: waiting" in up.log, lambda: up.log)
        (worker,) = up.workers()
        os.kill(worker, signal.SIGTERM)
        until(lambda: state() == ("running", 2), lambda: up.log)
        assert client.trial(study, 0).attempts[0].outcome == "released"
        assert "Traceback" not in up.log, up.log


def test_workers_that_began_with_a_revoked_key_begin_anew_with_its_successor(
    start_up: StartUp, database: Database, tmp_path: Path
) -> None:
    """They start before the server, which is what finds the key to be revoked."""
    home = tmp_path / "home"
    home.mkdir()
    with database.transaction() as session:
        key = create_key(session, "admin", datetime.now(UTC))
        revoke_key(session, key.id, datetime.now(UTC))
    (home / "admin.key").write_text(key.secret, encoding="ascii")
    (home / "admin.key").chmod(0o600)

    up = start_up()

    with up.client() as client:
        until(client.workers, lambda: up.log)
    assert up.key != key.secret
    assert "ended with status 1; starting it again" in up.log
    assert "Traceback" not in up.log, up.log


def test_a_killed_up_loses_no_lease_of_time_and_remote_workers_lose_nothing(
    start_up: StartUp, tmp_path: Path
) -> None:
    first = start_up()
    url = first.url()
    with first.client() as client:
        study = submit(client, tickets(tmp_path, "wait"), budget={"n_trials": 2, "max_parallel": 2})
        until(lambda: trial_state(client, study)() == ("running", 1), lambda: first.log)
        remote = Worker(url, first.key, tmp_path, "remote", "fake_trainer")
        try:
            until(lambda: "trainer: waiting" in remote.log, lambda: remote.log)
            until(lambda: "trainer: waiting" in first.log, lambda: first.log)
            first.process.kill()
            first.process.wait(20)

            second = start_up(int(url.rpartition(":")[2]))
            second.url()
            until(lambda: trial_state(client, study)() == ("running", 2), lambda: second.log)
            until(lambda: "is back after" in remote.log, lambda: remote.log)
            assert trial_state(client, study, 1)() == ("running", 1)
            held = {worker.name: worker.state for worker in client.workers()}
            assert held.pop("remote") == "busy"
            assert sorted(held.values()) == ["busy", "stopped"]
        finally:
            remote.process.kill()
            remote.process.wait(20)
        second.process.send_signal(signal.SIGINT)
        assert second.process.wait(30) == 0, second.log
    assert "Traceback" not in second.log, second.log
    assert list((second.home / "local-workers").iterdir()) == []
