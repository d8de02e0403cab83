"""Starts, signals and reaps the children of a zygote: real processes that cost milliseconds."""

import json
import os
import select
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

SUPPORT = Path(__file__).parents[1]
ANSWER_S = 60.0
_ONE_THREAD = {
    "OMP_NUM_THREADS": "1",
    "OPENBLAS_NUM_THREADS": "1",
    "JE_ARROW_MALLOC_CONF": "background_thread:false",
}
"""A process that forks must not have threads; libraries that start some at import are told so."""


@dataclass(frozen=True, slots=True)
class Child:
    """A process of the nursery and where it logs."""

    pid: int
    log: Path


class Nursery:
    """Not for several threads at once."""

    def __init__(self, zygote: "subprocess.Popen[str]") -> None:
        self._zygote = zygote
        self._alive: set[int] = set()

    def start(self, role: str, log: Path, **options: Any) -> Child:
        """A child that runs ``chaos.roles.ROLES[role](**options)``."""
        answer = self._ask(do="start", role=role, log=str(log), options=options)
        self._alive.add(answer["pid"])
        return Child(answer["pid"], log)

    def signal(self, child: Child, number: signal.Signals) -> None:
        """Send a signal to a child that was not reaped yet."""
        assert child.pid in self._alive
        self._ask(do="signal", pid=child.pid, number=int(number))

    def kill(self, child: Child) -> None:
        """SIGKILL; returns once the process is gone, and every lock and port of its with it."""
        self.signal(child, signal.SIGKILL)
        self._ask(do="reap", pid=child.pid, wait=True)
        self._alive.remove(child.pid)

    def status(self, child: Child) -> int | None:
        """How the child ended, as `subprocess` gives it; None while it runs. Asked once after."""
        status: int | None = self._ask(do="reap", pid=child.pid, wait=False)["status"]
        if status is not None:
            self._alive.remove(child.pid)
        return status

    def kill_all(self) -> None:
        for pid in tuple(self._alive):
            self.kill(Child(pid, Path()))

    def _ask(self, **request: Any) -> dict[str, Any]:
        assert self._zygote.stdin is not None
        self._zygote.stdin.write(json.dumps(request) + "\n")
        self._zygote.stdin.flush()
        return self.hear()

    def hear(self) -> dict[str, Any]:
        """The zygote's next answer."""
        assert self._zygote.stdout is not None
        readable, _, _ = select.select([self._zygote.stdout], [], [], ANSWER_S)
        assert readable, "the zygote does not answer"
        line = self._zygote.stdout.readline()
        assert line, "the zygote ended; it said why on standard error"
        answer: dict[str, Any] = json.loads(line)
        return answer


@contextmanager
def nursery() -> Iterator[Nursery]:
    """A nursery whose children, if any are left, are killed at the end."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith("BERTUNE_")}
    path = os.pathsep.join([str(SUPPORT), *os.environ.get("PYTHONPATH", "").split(os.pathsep)])
    zygote = subprocess.Popen(
        [sys.executable, "-m", "chaos.zygote", str(os.getpid())],
        env={**kept, **_ONE_THREAD, "PYTHONPATH": path.rstrip(os.pathsep)},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    made = Nursery(zygote)
    try:
        assert made.hear() == {"ready": True}
        yield made
        made.kill_all()
    finally:
        zygote.kill()  # what is left of its children dies with it
        zygote.wait()
        for pipe in (zygote.stdin, zygote.stdout):
            assert pipe is not None
            pipe.close()
