"""A real server process for tests that need one."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from real_parts import serving


@pytest.fixture
def real_server(tmp_path: Path) -> Iterator[tuple[str, str]]:
    """``(url, admin key)`` of a server on a fresh home, with ``tmp_path / "models"``."""
    with serving(tmp_path / "home", tmp_path / "models") as server:
        yield server
