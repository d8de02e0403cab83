"""Logging of processes that run for long: one line per record."""

import logging
from pathlib import Path

FORMAT = "%(asctime)s %(levelname)-7s %(name)s: %(message)s"
QUIET = ("httpx", "alembic")
"""Loggers that name every request or step at INFO."""


def set_up_logging(level: str = "info", file: Path | None = None) -> None:
    """Send log records to standard error, or to the end of ``file``."""
    logging.basicConfig(level=level.upper(), format=FORMAT, filename=file)
    for name in QUIET:
        logging.getLogger(name).setLevel(logging.WARNING)
