"""Servers and workers on one home and one database; any of them may be killed and started again."""

import json
import socket
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from functools import partial
from http.client import HTTPConnection, HTTPException
from pathlib import Path
from signal import Signals
from typing import Any

from real_parts import WAIT_S, tickets, until

from chaos.nursery import Child, Nursery
from service.store.database import Database
from studies.api import Api
from studies.spec import StudySpec

LEASE_S = 5.0
"""The shortest that a server grants."""
READY_LOOK_S = 1.0
STOP_S = 40.0
"""Workers end within 10 s of a signal, on a machine that has time for them."""
RACE_S = 270.0
"""How long a race may take in its long form."""


class House:
    """One server, or several on a PostgreSQL database; workers are shared out among them."""

    def __init__(
        self,
        nursery: Nursery,
        folder: Path,
        database: Database,
        sockets: list[socket.socket],
        *,
        lease_s: float,
    ) -> None:
        self.nursery = nursery
        self.lease_s = lease_s
        self.home = folder / "home"
        self.database_url = database.url.render_as_string(hide_password=False)
        self.ports = [int(held.getsockname()[1]) for held in sockets]
        self._logs = folder / "logs"
        self._logs.mkdir()
        self.home.mkdir()
        self.servers: dict[int, Child] = {}
        """By port; one that was killed is missing."""
        self.clock_errors_s: dict[int, float] = {}
        """By port: how far ahead the server's machine is."""
        self.workers: list[Child] = []
        """Those at work now."""
        self.hired = 0

    @property
    def key(self) -> str:
        return (self.home / "admin.key").read_text(encoding="ascii").strip()

    def start_server(self, port: int, **options: Any) -> None:
        """``options`` are those of `chaos.roles.serve`."""
        self.servers[port] = self.nursery.start(
            "server",
            self._logs / f"server-{port}.log",
            home=str(self.home),
            database_url=self.database_url,
            port=port,
            lease_s=self.lease_s,
            **options,
        )

    def kill_server(self, port: int) -> None:
        self.nursery.kill(self.servers.pop(port))

    def has_crashed(self, port: int) -> bool:
        """Whether the server on ``port`` has killed itself; it must not have ended otherwise."""
        status = self.nursery.status(self.servers[port])
        if status is None:
            return False
        assert status == -Signals.SIGKILL, self.servers[port].log.read_text()
        del self.servers[port]
        return True

    def check_alive(self, child: Child) -> None:
        """Assert that a process has not ended on its own."""
        assert self.nursery.status(child) is None, child.log.read_text()

    def is_ready(self, port: int) -> bool:
        """Whether the server on ``port``, which must be alive, takes requests."""
        self.check_alive(self.servers[port])
        connection = HTTPConnection("127.0.0.1", port, timeout=READY_LOOK_S)
        try:
            connection.request("GET", "/readyz")
            return connection.getresponse().status == 200
        except (OSError, HTTPException):
            return False
        finally:
            connection.close()

    def open(self) -> None:
        """Start every server that does not run; returns once all take requests."""
        for port in self.ports:
            if port not in self.servers:
                self.start_server(port, clock_error_s=self.clock_errors_s.get(port, 0.0))
        for port in self.ports:
            until(partial(self.is_ready, port), self.servers[port].log.read_text)

    def close(self) -> None:
        """Stop the servers in order; each must end well."""
        for server in self.servers.values():
            self.nursery.signal(server, Signals.SIGTERM)
        for server in self.servers.values():
            self._await_end(server)
        self.servers.clear()

    def hire(self, **options: Any) -> Child:
        """Start a worker of one of the servers; ``options`` are those of `chaos.roles.work`."""
        name = f"worker-{self.hired}"
        port = self.ports[self.hired % len(self.ports)]
        self.hired += 1
        worker = self.nursery.start(
            "worker",
            self._logs / f"{name}.log",
            server=f"http://127.0.0.1:{port}",
            key=self.key,
            name=name,
            **{"cache": str(self.home.parent / "cache"), **options},
        )
        self.workers.append(worker)
        return worker

    def kill_worker(self, worker: Child) -> None:
        self.workers.remove(worker)
        self.nursery.kill(worker)

    def dismiss_workers(self) -> None:
        """Stop all workers in order; each must end well, whatever was done to it."""
        for worker in self.workers:
            # Once it starts a trainer, it hears signals.
            until(partial(_says, worker, "trainer"), worker.log.read_text)
            self.nursery.signal(worker, Signals.SIGTERM)
        self.await_workers()

    def await_workers(self) -> None:
        """Return once every worker has ended, each with status 0."""
        for worker in self.workers:
            self._await_end(worker, within_s=STOP_S)
        self.workers.clear()

    def logs(self, what: str) -> dict[str, str]:
        """What the processes whose name begins with ``what`` have logged, by name."""
        return {path.stem: path.read_text() for path in sorted(self._logs.glob(f"{what}*.log"))}

    def client(self) -> Api:
        """A client of the first server."""
        return Api(f"http://127.0.0.1:{self.ports[0]}", self.key)

    def submit(self, *, test_fraction: float = 0.0, **spec: Any) -> str:
        """Submit a study over the API; returns its id."""
        with self.client() as client:
            dataset = client.upload_dataset(
                tickets(self.home.parent), options={"test_fraction": test_fraction}
            )
            document = {"name": "storm", "dataset": dataset.id, "pruner": "none", **spec}
            return client.submit(StudySpec.model_validate(document)).id

    def race(self, name: str, **options: Any) -> Any:
        """Run a race of `chaos.races` to its end; what its runners answered."""
        answers = self.home.parent / f"{name}.json"
        child = self.nursery.start(
            "race", self._logs / f"{name}.log", name=name, answers=str(answers), **options
        )
        self._await_end(child, within_s=RACE_S)
        return json.loads(answers.read_text(encoding="utf-8"))

    def _await_end(self, child: Child, within_s: float = WAIT_S) -> None:
        """Wait until a child has ended with status 0."""
        found: list[int] = []

        def ended() -> bool:
            status = self.nursery.status(child)
            if status is not None:
                found.append(status)
            return bool(found)

        until(ended, child.log.read_text, within_s=within_s)
        assert found == [0], child.log.read_text()


@contextmanager
def open_house(
    nursery: Nursery,
    folder: Path,
    database: Database,
    *,
    servers: int = 1,
    lease_s: float = LEASE_S,
    clock_errors_s: Sequence[float] = (),
) -> Iterator[House]:
    """A house with its servers running, on ports that stay its own while no server holds them.

    ``clock_errors_s``, one per server, are how far ahead their machines are.
    """
    with ExitStack() as stack:
        # Bound and never listening: connections to a dead server are refused, and nobody else
        # gets its port.
        sockets = [stack.enter_context(_bound_socket()) for _ in range(servers)]
        house = House(nursery, folder, database, sockets, lease_s=lease_s)
        house.clock_errors_s = dict(zip(house.ports, clock_errors_s, strict=False))
        house.open()
        yield house
        nursery.kill_all()


def _says(child: Child, text: str) -> bool:
    return text in child.log.read_text()


def _bound_socket() -> socket.socket:
    bound = socket.socket()
    bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    bound.bind(("127.0.0.1", 0))
    return bound
