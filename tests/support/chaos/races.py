"""Races between processes: all of them do the same thing at the same moment, round after round.

A race is itself a child of the zygote. It forks its runners, gives each its part of a round, holds
them at a barrier until all have it, and writes their answers to a file.
"""

import json
import multiprocessing
import os
from collections.abc import Callable, Mapping
from http.client import HTTPConnection
from multiprocessing.connection import Connection
from multiprocessing.synchronize import Barrier
from pathlib import Path
from typing import Any

from builders import claim_request, result_request
from queue_server import QueueServer
from sqlalchemy import select, update
from sqlalchemy.engine import make_url

from service.store.database import Database
from service.store.leases import sweep_study
from service.store.moves import lock_study
from service.store.tables import Study, Trial
from service.worker.lifetime import die_with_parent
from studies.search.adapter import OptunaAdapter

BARRIER_S = 60.0
_fork = multiprocessing.get_context("fork")


class Runner:
    """One process of a race; made before the fork, so whatever it opens it opens in `play`."""

    def __init__(self, index: int) -> None:
        self.index = index

    def play(self, part: Any) -> Any:
        """Do the round's work, as soon as every runner has its part."""
        raise NotImplementedError


class Team:
    """Runners in processes of their own."""

    def __init__(self, runners: list[Runner]) -> None:
        gate = _fork.Barrier(len(runners))
        pairs = [_fork.Pipe() for _ in runners]
        self._pipes = [ours for ours, _ in pairs]
        self._processes = [
            _fork.Process(target=_run, args=(runner, theirs, gate, os.getpid()))
            for runner, (_, theirs) in zip(runners, pairs, strict=True)
        ]
        for process in self._processes:
            process.start()

    def play(self, part: Any) -> list[Any]:
        """A round; the answers in the order of the runners."""
        for pipe in self._pipes:
            pipe.send({"part": part})
        return [pipe.recv() for pipe in self._pipes]

    def dismiss(self) -> None:
        for pipe, process in zip(self._pipes, self._processes, strict=True):
            pipe.send(None)
            process.join()


def _run(runner: Runner, pipe: Connection, gate: Barrier, parent: int) -> None:
    die_with_parent(parent)
    while (message := pipe.recv()) is not None:
        gate.wait(BARRIER_S)
        pipe.send(runner.play(message["part"]))


class ApiRunner(Runner):
    """Speaks to one of the servers: the first runner to the first, the second to the second …"""

    def __init__(self, index: int, ports: list[int], key: str) -> None:
        super().__init__(index)
        self._port = ports[index % len(ports)]
        self._headers = {"Authorization": f"Bearer {key}", "Content-Type": "application/json"}
        self._connection: HTTPConnection | None = None

    def post(self, path: str, body: str) -> tuple[int, Any]:
        """Status and document of the answer."""
        if self._connection is None:
            self._connection = HTTPConnection("127.0.0.1", self._port, timeout=BARRIER_S)
        self._connection.request("POST", path, body, self._headers)
        answer = self._connection.getresponse()
        content = answer.read()
        return answer.status, json.loads(content) if content else None


class Claimer(ApiRunner):
    """Claims until nothing is left. Every claim is of a slot of its own, so none is given up."""

    def play(self, part: Any) -> list[tuple[str, int]]:
        claimed: list[tuple[str, int]] = []
        while True:
            request = claim_request(f"claimer-{self.index}", slot=len(claimed))
            status, lease = self.post("/v1/leases", request.model_dump_json())
            if status == 204:
                return claimed
            assert status == 200, lease
            claimed.append((lease["trial_id"], lease["attempt"]))


class Finisher(ApiRunner):
    """Ends the attempt with a result that no other finisher sends."""

    def play(self, part: tuple[str, int]) -> tuple[int, float]:
        value = (self.index + 1) / 10
        path = f"/v1/leases/{part[0]}/{part[1]}/result"
        status, _ = self.post(path, result_request(value).model_dump_json())
        return status, value


class Sweeper(Runner):
    """Sweeps lapsed leases straight in the database, then asks for a trial."""

    def __init__(self, index: int, database_url: str, home: str) -> None:
        super().__init__(index)
        self._database_url = database_url
        self._home = Path(home)
        self._server: QueueServer | None = None

    def play(self, part: int) -> tuple[int, int | None]:
        """(leases it took back, the attempt it was given)"""
        if self._server is None:
            database = Database(make_url(self._database_url))
            optuna = OptunaAdapter(database.url, forbid=database.forbid_transaction)
            self._server = QueueServer(database, self._home, optuna, max_lost=1_000_000)
        lapsed = self._sweep(self._server.database)
        lease = self._server.dispatcher.claim(claim_request(f"sweeper-{part}-{self.index}"))
        return lapsed, None if lease is None else lease.attempt

    def _sweep(self, database: Database) -> int:
        # Not a whole step of the reconciler: on SQLite, where there is one server by design, that
        # would fail what another of these processes is asking Optuna for.
        with database.transaction() as session:
            study = lock_study(session, session.scalars(select(Study.id)).one())
            return sweep_study(session, database.now_s(), study, max_lost=1_000_000)


def claim_everything(processes: int, ports: list[int], key: str) -> list[Any]:
    """One round in which everything that waits is claimed; what each process got."""
    team = Team([Claimer(index, ports, key) for index in range(processes)])
    answers = team.play(None)
    team.dismiss()
    return answers


def finish_each_attempt(processes: int, rounds: int, ports: list[int], key: str) -> list[Any]:
    """In each round a trial is claimed and all processes end it at once."""
    claimer = ApiRunner(0, ports, key)
    team = Team([Finisher(index, ports, key) for index in range(processes)])
    answers = []
    for number in range(rounds):
        status, lease = claimer.post(
            "/v1/leases", claim_request(f"claimer-{number}").model_dump_json()
        )
        assert status == 200, lease
        ends = team.play((lease["trial_id"], lease["attempt"]))
        answers.append({"trial": lease["trial_id"], "ends": ends})
    team.dismiss()
    return answers


def sweep_a_lapsed_lease(processes: int, rounds: int, database_url: str, home: str) -> list[Any]:
    """In each round all processes sweep and claim at once, and only a lapsed lease is to be had;
    in the first it is a trial that nobody had yet."""
    team = Team([Sweeper(index, database_url, home) for index in range(processes)])
    answers = []
    for number in range(rounds):
        answers.append(team.play(number))
        database = Database(make_url(database_url))
        with database.transaction() as session:
            session.execute(update(Trial).values(lease_expires_at=database.now_s() - 1))
        database.dispose()
    team.dismiss()
    return answers


RACES: Mapping[str, Callable[..., list[Any]]] = {
    race.__name__: race for race in (claim_everything, finish_each_attempt, sweep_a_lapsed_lease)
}


def run_race(name: str, answers: Path, options: dict[str, Any]) -> int:
    """Run a race of `RACES` and write what its runners answered, as JSON, to ``answers``."""
    answers.write_text(json.dumps(RACES[name](**options)), encoding="utf-8")
    return 0
