"""A real server process for tests that need one."""

import signal
from collections.abc import Iterator
from pathlib import Path

import pytest
from real_parts import serving


@pytest.fixture(scope="session", autouse=True)
def interruptible() -> None:
    """Let the processes that tests start hear SIGINT, even when these tests run in the background
    of a shell, whose children inherit that it is ignored."""
    signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture
def real_server(tmp_path: Path) -> Iterator[tuple[str, str]]:
    """``(url, admin key)`` of a server on a fresh home, with ``tmp_path / "models"``."""
    with serving(tmp_path / "home", tmp_path / "models") as server:
        yield server
