"""A server with its local workers, as `bertune up` runs them, for as long as it is measured."""

import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from comparison.environment import child_environment

START_S = 120.0
STOP_S = 60.0
POLL_S = 0.05


@contextmanager
def running_server(
    home: Path, log: Path, *, workers: int = 1, slots: int = 1, settings: Mapping[str, str]
) -> Iterator[str]:
    """The address of a server on an empty ``home``; ``settings`` are environment variables."""
    command = [sys.executable, "-P", "-m", "service.cli", "up", "--home", str(home)]
    command += ["--workers", str(workers), "--slots", str(slots)]
    with log.open("wb") as output:
        process = subprocess.Popen(
            command,
            env={**child_environment(), "BERTUNE_PORT": "0", **settings},
            stdout=output,
            stderr=output,
        )
    try:
        yield _address(process, log)
    finally:
        process.send_signal(signal.SIGTERM)
        process.wait(STOP_S)


def admin_key(home: Path) -> str:
    return (home / "admin.key").read_text(encoding="ascii").strip()


def _address(process: "subprocess.Popen[bytes]", log: Path) -> str:
    deadline = time.monotonic() + START_S
    while time.monotonic() < deadline and process.poll() is None:
        found = re.search(r"Bertune runs at (\S+)", log.read_text(encoding="utf-8"))
        if found:
            return found.group(1)
        time.sleep(POLL_S)
    raise RuntimeError(f"The server did not start:\n{log.read_text(encoding='utf-8')}")
