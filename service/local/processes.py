"""Workers on this machine as child processes: started, restarted when they die, and stopped."""

import logging
import os
import secrets
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from service.worker.cores import usable_cores

logger = logging.getLogger(__name__)

FIRST_RESTART_S = 1.0
LONGEST_RESTART_S = 60.0
STEADY_S = 60.0
"""A worker that lived this long begins anew with the shortest wait."""
STOP_S = 10.0
TEND_S = 0.5


def worker_command(*, slots: int, workers: int, trainer: str | None = None) -> list[str]:
    """A worker, but for its name: it dies with this process and takes its share of the cores among
    ``workers``.

    Its server and key come by the environment, where other users of the machine cannot read them;
    ``-P`` keeps files of the current folder out.
    """
    threads = max(1, usable_cores() // (workers * slots)) if workers else 1
    base = [sys.executable, "-P", "-m", "service.cli", "worker", "--parent", str(os.getpid())]
    command = [*base, "--slots", str(slots), "--threads", str(threads)]
    return command if trainer is None else [*command, "--trainer", trainer]


def worker_environment(server: str, key: str, home: Path) -> dict[str, str]:
    own = {"BERTUNE_SERVER": server, "BERTUNE_KEY": key, "BERTUNE_HOME": str(home)}
    return {**os.environ, **own}


class ChildProcess:
    """One worker: its process and, while it is dead, when to start it again.

    ``environment`` is asked at each start: a key may have been replaced since the last one.
    ``on_start`` hears the name of each process before it is started, ``on_death`` that of each that
    died before its time.
    """

    def __init__(
        self,
        command: Sequence[str],
        environment: Callable[[], Mapping[str, str]],
        log: Path | None,
        on_start: Callable[[str], None],
        on_death: Callable[[str], None],
        *,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._command = list(command)
        self._environment = environment
        self._log = log
        self._on_start = on_start
        self._on_death = on_death
        self._clock = clock
        self._restart_s = FIRST_RESTART_S
        self._restart_at: float | None = None
        self._start()

    def tend(self) -> None:
        """Start the process again when it has died and its wait is over."""
        status = self._process.poll()
        if status is None:
            return
        now = self._clock()
        if self._restart_at is None:
            if now - self._started_at >= STEADY_S:
                self._restart_s = FIRST_RESTART_S
            logger.error(
                "worker %d ended with status %d; starting it again in %.0f s",
                self._process.pid,
                status,
                self._restart_s,
            )
            self._restart_at = now + self._restart_s
            self._restart_s = min(2 * self._restart_s, LONGEST_RESTART_S)
            self._on_death(self._name)
        elif now >= self._restart_at:
            self._start()

    def ask_to_stop(self) -> None:
        if self._process.poll() is None:
            self._process.send_signal(signal.SIGTERM)

    def wait_or_kill(self, deadline: float) -> None:
        """Reap the process, by force once the clock passes ``deadline``."""
        try:
            self._process.wait(max(0.0, deadline - self._clock()))
        except subprocess.TimeoutExpired:
            logger.warning("worker %d does not stop; killing it", self._process.pid)
            self._process.kill()
            self._process.wait()
        if self._process.returncode != 0:
            self._on_death(self._name)

    def _start(self) -> None:
        self._restart_at = None
        self._started_at = self._clock()
        # Its own for each start, so that a goodbye for the dead one never meets its successor.
        self._name = f"{socket.gethostname()}-{secrets.token_hex(4)}"
        self._on_start(self._name)
        output = self._log.open("ab") if self._log else None
        try:
            self._process = subprocess.Popen(
                [*self._command, "--name", self._name],
                env=self._environment(),
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT if output else None,
                # Ctrl-C in the terminal goes to this process alone, which stops them in order.
                start_new_session=True,
            )
        finally:
            if output:
                output.close()


class WorkerProcesses:
    """Local workers, tended by one thread, which starts them and so must outlive them: they ask
    the kernel to die with the thread that started them."""

    def __init__(
        self,
        count: int,
        command: Sequence[str],
        environment: Callable[[], Mapping[str, str]],
        *,
        on_start: Callable[[str], None],
        on_death: Callable[[str], None],
        log: Path | None = None,
    ) -> None:
        self._count = count
        self._command = command
        self._environment = environment
        self._on_start = on_start
        self._on_death = on_death
        self._log = log
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._tend, name="workers")

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        """SIGTERM to all, so that they give their trials back; SIGKILL after `STOP_S`. Blocks."""
        self._stopping.set()
        if self._thread.is_alive():
            self._thread.join()

    def _tend(self) -> None:
        children = [
            ChildProcess(
                self._command, self._environment, self._log, self._on_start, self._on_death
            )
            for _ in range(self._count)
        ]
        while not self._stopping.wait(TEND_S):
            for child in children:
                child.tend()
        for child in children:
            child.ask_to_stop()
        deadline = time.monotonic() + STOP_S
        for child in children:
            child.wait_or_kill(deadline)
