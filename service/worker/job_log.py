"""The log of one trial, kept beside it as `train.log`: epochs, and what the trainer wrote."""

import threading
from datetime import UTC, datetime
from pathlib import Path


class JobLog:
    """Lines with the time in UTC, from any thread; each is on disk when `write` returns."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._lock = threading.Lock()

    def write(self, line: str) -> None:
        moment = datetime.now(UTC).isoformat(timespec="milliseconds")
        with self._lock, self.path.open("a", encoding="utf-8") as file:
            file.write(f"{moment} {line}\n")
