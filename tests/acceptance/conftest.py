"""A real server process for tests that need one."""

import os
import re
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

START_S = 60
ADDRESS = re.compile(r"http://127\.0\.0\.1:\d+")


@pytest.fixture
def real_server(tmp_path: Path) -> Iterator[tuple[str, str]]:
    """``(url, admin key)`` of a server on a fresh home, whose leases last 5 s without renewal and
    whose models lie in ``tmp_path / "models"``."""
    home = tmp_path / "home"
    own = {
        "BERTUNE_LEASE_S": "5",
        "BERTUNE_RENEW_S": "0.5",
        "BERTUNE_RECONCILE_S": "1",
        "BERTUNE_MODEL_DIRS": str(tmp_path / "models"),
    }
    kept = {name: value for name, value in os.environ.items() if not name.startswith("BERTUNE_")}
    process = subprocess.Popen(
        [sys.executable, "-m", "service.cli", "serve", "--home", str(home), "--port", "0"],
        env={**kept, **own},
        stderr=subprocess.PIPE,
        text=True,
    )
    log = _Log(process)
    try:
        log.wait_for("Application startup complete")
        found = ADDRESS.search(log.text)
        assert found, log.text
        yield found.group(), (home / "admin.key").read_text(encoding="ascii").strip()
    finally:
        process.terminate()
        try:
            process.wait(20)
        finally:
            process.kill()
            log.close()
    assert process.returncode == 0, log.text
    assert "Traceback" not in log.text, log.text


class _Log:
    """A process's standard error, read by a thread."""

    def __init__(self, process: "subprocess.Popen[str]") -> None:
        self._process = process
        self._lines: list[str] = []
        self._came = threading.Condition()
        self._thread = threading.Thread(target=self._read)
        self._thread.start()

    @property
    def text(self) -> str:
        return "".join(self._lines)

    def wait_for(self, text: str) -> None:
        with self._came:
            assert self._came.wait_for(lambda: text in self.text, START_S), self.text

    def close(self) -> None:
        self._thread.join()
        assert self._process.stderr is not None
        self._process.stderr.close()

    def _read(self) -> None:
        assert self._process.stderr is not None
        for line in self._process.stderr:
            with self._came:
                self._lines.append(line)
                self._came.notify_all()
