"""Runs the server inside this process, on a socket that listens already, and stops it without
waiting for open polls."""

import logging
import socket
from collections.abc import Callable
from types import FrameType
from typing import IO

import uvicorn
from anyio import to_thread

from service.app import create_app
from service.context import ServerContext
from service.errors import NotFoundError
from service.local.startup_error import StartupError
from service.local.worker_roll import abandoned_workers
from service.settings import Settings

logger = logging.getLogger(__name__)

GRACE_S = 3
"""How long requests under way may take when the server stops."""


class HostedServer(uvicorn.Server):
    """The server on a socket of ours and a database that `claim_database` holds for it.

    The first SIGINT or SIGTERM calls ``on_signal``, which ends the server by `stop` when it has
    put the rest of the process in order; the second one stops it at once.
    """

    def __init__(
        self,
        settings: Settings,
        listener: socket.socket,
        claim: IO[bytes] | None,
        *,
        on_signal: Callable[[], None] | None = None,
        access_log: bool = False,
    ) -> None:
        self._claim = claim
        app = create_app(settings)
        super().__init__(
            uvicorn.Config(
                app,
                log_config=None,
                access_log=access_log,
                timeout_graceful_shutdown=GRACE_S,
                timeout_keep_alive=30,
            )
        )
        self.context: ServerContext = app.state.context
        self._listener = listener
        self._on_signal = on_signal
        self._signals = 0

    def host(self) -> None:
        """Serve until `stop`. In the main thread it takes SIGINT and SIGTERM meanwhile.

        Raises `StartupError`; the log says what was wrong.
        """
        try:
            self.run(sockets=[self._listener])
        except SystemExit as error:
            raise StartupError("The server did not start; its log above says why.") from error
        finally:
            if self._claim is not None:
                self._claim.close()

    def stop(self) -> None:
        self.should_exit = True

    def bury(self, worker: str) -> None:
        """Say goodbye for a worker of this machine that is dead: its trials need not wait for their
        leases to lapse."""
        try:
            self.context.dispatcher.say_goodbye(worker)
        except NotFoundError:
            logger.debug("worker %s died before it asked for work", worker)
        except Exception:
            logger.exception("worker %s is dead; its leases have to lapse", worker)

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        # Not recorded by uvicorn's own handler: it would raise the signal anew at the end, and
        # kill this process before its workers are seen off.
        del sig, frame
        self._signals += 1
        if self._signals == 1 and self._on_signal is not None:
            self._on_signal()
        else:
            self.force_exit = self._signals > 1
            self.stop()

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        if self.started:
            await to_thread.run_sync(self._bury_abandoned)

    def _bury_abandoned(self) -> None:
        """Those of a process on this home that was killed, and they with it."""
        try:
            with abandoned_workers(self.context.settings.home) as workers:
                for worker in workers:
                    self.bury(worker)
        except OSError as error:
            logger.warning("leases of killed local workers have to lapse: %s", error)

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        # Long polls and streams end now; each would hold the server up for its whole wait.
        self.context.release_polls()
        await super().shutdown(sockets)
