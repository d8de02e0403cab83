"""Runs `bertune` as a script does: a process with an environment, and what it said."""

import atexit
import functools
import json
import os
import pty
import select
import socket
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from real_parts import SEARCHED

WAIT_S = 100
START_S = 60
ROOT = Path(__file__).parents[2]
_ONE_THREAD = {
    "OMP_NUM_THREADS": "1",
    "OPENBLAS_NUM_THREADS": "1",
    "JE_ARROW_MALLOC_CONF": "background_thread:false",
}
"""A process that forks must not have threads; libraries that start some at import are told so."""
Environment = dict[str, str]


@dataclass(frozen=True, slots=True)
class Said:
    stdout: str
    stderr: str


def clean_environment(**own: str) -> Environment:
    """This process's environment without settings of Bertune's, and with ``own``."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith("BERTUNE_")}
    return {**kept, "COLUMNS": "100", **own}


def bertune(
    environment: Environment, *arguments: object, code: int = 0, folder: Path | None = None
) -> Said:
    """Run a command to its end, in ``folder`` if given, without anybody at a terminal; it must end
    with ``code`` and without a traceback."""
    done, said = _zygote().run(environment, [*map(str, arguments)], folder or Path.cwd())
    assert done == code, f"{done}: {said.stdout}\n{said.stderr}"
    assert "Traceback" not in said.stderr, said.stderr
    return said


def answer(environment: Environment, *arguments: object, folder: Path | None = None) -> Any:
    """What a command answers in JSON."""
    return json.loads(bertune(environment, *arguments, "--json", folder=folder).stdout)


def bertune_asked(environment: Environment, *arguments: object, reply: str) -> tuple[int, str]:
    """The exit code and output of a command that asks at a terminal."""
    ours, theirs = pty.openpty()
    try:
        os.write(ours, f"{reply}\n".encode())
        done = subprocess.run(
            [sys.executable, "-m", "service.cli", *map(str, arguments)],
            env=environment,
            stdin=theirs,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=WAIT_S,
            check=False,
        )
    finally:
        os.close(ours)
        os.close(theirs)
    return done.returncode, done.stdout


def nowhere() -> str:
    """An address on which nothing listens."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return f"http://127.0.0.1:{free.getsockname()[1]}"


class _Zygote:
    """The process of `command_zygote`. Not for several threads at once."""

    def __init__(self) -> None:
        environment = {**os.environ, **_ONE_THREAD, "PYTHONPATH": SEARCHED}
        self._process = subprocess.Popen(
            [sys.executable, "-m", "command_zygote"],
            env=environment,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        self._hear(START_S)

    def run(self, environment: Environment, arguments: list[str], folder: Path) -> tuple[int, Said]:
        with TemporaryDirectory() as scratch:
            streams = [os.devnull, f"{scratch}/stdout", f"{scratch}/stderr"]
            request = {
                "environment": environment,
                "arguments": arguments,
                "folder": str(folder),
                "streams": streams,
            }
            assert self._process.stdin is not None
            self._process.stdin.write(json.dumps(request) + "\n")
            self._process.stdin.flush()
            code = self._hear(WAIT_S)["code"]
            return code, Said(*(Path(path).read_text(encoding="utf-8") for path in streams[1:]))

    def end(self) -> None:
        self._process.kill()
        self._process.communicate()

    def _hear(self, within_s: float) -> dict[str, Any]:
        assert self._process.stdout is not None
        if not select.select([self._process.stdout], [], [], within_s)[0]:
            self.end()
            _zygote.cache_clear()
            raise AssertionError(f"no command ended within {within_s} s")
        answer: dict[str, Any] = json.loads(self._process.stdout.readline())
        return answer


@functools.cache
def _zygote() -> _Zygote:
    """One for all tests of this process, started with the first command."""
    zygote = _Zygote()
    atexit.register(zygote.end)
    return zygote
