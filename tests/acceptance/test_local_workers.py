"""Workers of `bertune up`: one that dies costs its trial an attempt, and no wait for its lease."""

import os
import re
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from real_parts import SUPPORT, submit, tickets, until

from studies import Client

LEASE_S = 600
"""Longer than any wait of a test: what goes on before it lapses did not wait for it."""


class Up:
    """A `bertune up` with one worker, whose trainer is a fake one."""

    def __init__(self, folder: Path) -> None:
        self._log = folder / "up.log"
        self.home = folder / "home"
        command = [sys.executable, "-m", "service.cli", "up", "--home", str(self.home)]
        command += ["--port", "0", "--trainer", "fake_trainer"]
        kept = {name: value for name, value in os.environ.items() if "BERTUNE_" not in name}
        own = {"BERTUNE_LEASE_S": str(LEASE_S), "PYTHONPATH": str(SUPPORT)}
        with self._log.open("wb") as log:
            self.process = subprocess.Popen(command, env={**kept, **own}, stdout=log, stderr=log)

    @property
    def log(self) -> str:
        return self._log.read_text(encoding="utf-8")

    def client(self) -> Client:
        found = until(lambda: re.search(r"Bertune runs at (\S+)", self.log), lambda: self.log)
        return Client(found[1], (self.home / "admin.key").read_text(encoding="ascii").strip())

    def workers(self) -> list[int]:
        """The process ids of the workers."""
        tasks = Path(f"/proc/{self.process.pid}/task")
        lists = [(task / "children").read_text() for task in tasks.iterdir()]
        return [int(child) for text in lists for child in text.split()]


@pytest.fixture
def up(tmp_path: Path) -> Iterator[Up]:
    up = Up(tmp_path)
    yield up
    up.process.kill()
    up.process.wait(20)


def trial_state(client: Client, study: str) -> Callable[[], tuple[str, int]]:
    def state() -> tuple[str, int]:
        trial = client.trial(study, 0)
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
