"""The log of one trial, kept beside it as `train.log`: epochs, and what the trainer wrote."""

import logging
import threading
from datetime import UTC, datetime
from pathlib import Path

log = logging.getLogger(__name__)


class JobLog:
    """Lines with the time in UTC, from any thread; each is on disk when `write` returns.

    A disk that takes no more lines costs the lines, and not the trial.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._lock = threading.Lock()
        self._broken = False

    def write(self, line: str) -> None:
        moment = datetime.now(UTC).isoformat(timespec="milliseconds")
        with self._lock:
            try:
                with self.path.open("a", encoding="utf-8") as file:
                    file.write(f"{moment} {line}\n")
            except OSError as error:
                if not self._broken:
                    log.warning("lines of %s are lost: %s", self.path.name, error)
                self._broken = True
