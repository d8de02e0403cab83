"""Following a study in a terminal: real processes, a real server, and a pseudo-terminal."""

import fcntl
import os
import pty
import re
import signal
import struct
import subprocess
import sys
import termios
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from real_parts import Worker, serving, submit, tickets, until

from studies.api import Api

COLUMNS = {"phone": 40, "desk": 120}


class Screen:
    """A command in a terminal of its own, and all that it has drawn there."""

    def __init__(self, process: "subprocess.Popen[bytes]", ours: int) -> None:
        self.process = process
        self._ours = ours
        self._drawn = b""
        self._reader = threading.Thread(target=self._read)
        self._reader.start()

    @property
    def text(self) -> str:
        """Without colours and moves of the cursor."""
        return re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", self._drawn.decode(errors="replace"))

    def interrupt(self) -> None:
        """Press Ctrl-C."""
        os.write(self._ours, b"\x03")

    def close(self) -> None:
        self.process.kill()
        self.process.wait(20)
        self._reader.join(20)
        os.close(self._ours)

    def _read(self) -> None:
        while True:
            try:
                block = os.read(self._ours, 1 << 16)
            except OSError:  # the other side is closed
                return
            if not block:
                return
            self._drawn += block


def _take_terminal() -> None:
    """In the new process: make its input the terminal whose Ctrl-C it hears."""
    fcntl.ioctl(0, termios.TIOCSCTTY, 0)


@contextmanager
def in_terminal(url: str, key: str, *arguments: str, columns: int) -> Iterator[Screen]:
    ours, theirs = pty.openpty()
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 24, columns, 0, 0))
    kept = {k: v for k, v in os.environ.items() if k not in ("COLUMNS", "LINES", "NO_COLOR")}
    process = subprocess.Popen(
        [sys.executable, "-m", "service.cli", *arguments],
        env={**kept, "BERTUNE_SERVER": url, "BERTUNE_KEY": key, "TERM": "xterm"},
        stdin=theirs,
        stdout=theirs,
        stderr=theirs,
        start_new_session=True,
        preexec_fn=_take_terminal,
    )
    os.close(theirs)
    screen = Screen(process, ours)
    try:
        yield screen
    finally:
        screen.close()


@pytest.fixture
def server(tmp_path: Path) -> Iterator[tuple[str, str]]:
    with serving(tmp_path / "home", tmp_path) as found:
        yield found


@pytest.mark.parametrize("kind", COLUMNS)
def test_a_terminal_shows_what_a_trial_is_at_and_ctrl_c_leaves_it_running(
    server: tuple[str, str], tmp_path: Path, kind: str
) -> None:
    url, key = server
    worker = Worker(url, key, tmp_path, "w1", "fake_trainer")
    try:
        with Api(url, key) as client:
            # The fake trainer waits in its second epoch of three.
            study_id = submit(client, tickets(tmp_path / "data", "wait"))
            with in_terminal(url, key, "watch", study_id, columns=COLUMNS[kind]) as screen:
                until(lambda: "33%" in screen.text, lambda: f"{screen.text}\n{worker.log}")
                assert "training" in screen.text
                if kind == "desk":
                    assert re.search(r"\d+/30 steps", screen.text)
                    assert re.search(r"2/3\s", screen.text)
                screen.interrupt()
                status = screen.process.wait(30)
            assert status == 130, screen.text
            assert "the study goes on" in " ".join(screen.text.split())
            assert "Traceback" not in screen.text
            study = client.study(study_id)
            assert (study.state, study.trials.running) == ("running", 1)
            assert client.trials(study_id)[0].progress is not None
    finally:
        worker.process.send_signal(signal.SIGTERM)
        worker.process.wait(30)
        worker.end()
