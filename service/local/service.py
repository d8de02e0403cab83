"""Server and workers in one process tree, as `bertune up` and `bertune demo` run them.

Workers start first: they take as long to load torch as the server takes to load itself, and their
first claims wait at the socket until it is there.
"""

import socket
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING

from rich.text import Text

from service.admin_key import read_or_make_key
from service.local.database_claim import claim_database
from service.local.listening import address
from service.local.processes import WorkerProcesses, worker_command, worker_environment
from service.local.startup_error import StartupError
from service.local.worker_roll import WorkerRoll
from service.settings import Settings
from service.terminal.views import make_console
from studies.api import Api

if TYPE_CHECKING:
    from service.local.hosting import HostedServer

LOOK_S = 0.05


class LocalService:
    """A server of this process with workers as its children.

    The workers are stopped before the server, so that they can give their trials back. For one that
    dies the server hears a goodbye, so its trial need not wait for its lease to lapse; for those
    that die with this process, the next server on this home does.

    Raises `StartupError` when the SQLite file of ``settings`` has a server.
    """

    def __init__(
        self,
        settings: Settings,
        listener: socket.socket,
        *,
        workers: int,
        slots: int = 1,
        trainer: str | None = None,
        worker_log: Path | None = None,
        on_signal: Callable[[], None] | None = None,
    ) -> None:
        self.url = address(listener)
        self._settings = settings
        self._listener = listener
        self._claim = claim_database(settings.resolved_database_url)
        self._workers = workers
        self._slots = slots
        self._trainer = trainer
        self._worker_log = worker_log
        self._on_signal = on_signal
        self._server: HostedServer | None = None
        self._ended = threading.Event()
        self._stopped = threading.Event()
        self._processes: WorkerProcesses | None = None
        self._roll: WorkerRoll | None = None

    def host(self) -> None:
        """Serve in this thread until `stop`."""
        try:
            from service.local.hosting import HostedServer  # seconds, while workers load theirs

            self._server = HostedServer(
                self._settings, self._listener, self._claim, on_signal=self._on_signal
            )
            if self._stopped.is_set():
                self._server.stop()
            self._server.host()
        finally:
            self._ended.set()

    def client(self) -> Api:
        """A client with the admin key; only after `wait_until_ready`."""
        return Api(self.url, self._key())

    def wait_until_ready(self) -> None:
        """Return once the server takes requests. Raises `StartupError` when it never will."""
        while self._server is None or not self._server.started:
            if self._ended.wait(LOOK_S):
                raise StartupError("The server did not start; its log says why.")

    def start_workers(self) -> None:
        if not self._workers:
            return
        self._roll = WorkerRoll(self._settings.home)
        self._processes = WorkerProcesses(
            self._workers,
            worker_command(slots=self._slots, workers=self._workers, trainer=self._trainer),
            lambda: worker_environment(self.url, self._key(), self._settings.home.resolve()),
            on_start=self._roll.add,
            on_death=self._bury,
            log=self._worker_log,
        )
        self._processes.start()

    def stop(self) -> None:
        """Stop the workers, then the server. Blocks for the workers only."""
        if self._processes is not None:
            self._processes.stop()
        if self._roll is not None:
            self._roll.close()
        self._stopped.set()
        if self._server is not None:
            self._server.stop()

    def _bury(self, worker: str) -> None:
        """One that died before the server was there has claimed nothing."""
        if self._server is not None and self._server.started:
            self._server.bury(worker)

    def _key(self) -> str:
        return read_or_make_key(self._settings.admin_key_file)


def run_service(
    settings: Settings,
    listener: socket.socket,
    *,
    workers: int,
    slots: int,
    trainer: str | None = None,
) -> None:
    """Serve until SIGINT or SIGTERM, the server in this (the main) thread.

    Raises what went wrong in either thread.
    """
    stopping = threading.Event()
    service = LocalService(
        settings, listener, workers=workers, slots=slots, trainer=trainer, on_signal=stopping.set
    )
    with ThreadPoolExecutor(1, thread_name_prefix="companion") as pool:
        companion = pool.submit(_accompany, service, stopping, workers)
        try:
            service.host()
        finally:
            stopping.set()
        companion.result()


def _accompany(service: LocalService, stopping: threading.Event, workers: int) -> None:
    """Beside the server: start the workers, greet, and stop everything when asked to."""
    try:
        service.start_workers()
        service.wait_until_ready()
        _greet(service, workers)
        stopping.wait()
    finally:
        service.stop()


def _greet(service: LocalService, workers: int) -> None:
    with service.client() as client:
        link = client.login_link()
    console = make_console(stderr=True)
    console.print(Text.assemble(("Bertune runs at ", "bold"), service.url))
    console.print(f"Dashboard, logged in once within ten minutes:\n  {link}", soft_wrap=True)
    console.print(f"{workers} local {'worker' if workers == 1 else 'workers'}. Ctrl-C stops all.")
