"""Notes every few seconds that this server runs, for `service.store.pulse`."""

import logging
import threading

from sqlalchemy.exc import SQLAlchemyError

from service.store.database import Database
from service.store.pulse import beat

logger = logging.getLogger(__name__)

LONGEST_S = 5.0
SHARE_OF_LEASE = 0.1
"""Each start may cost leases one beat, so beats are short beside leases."""


def beat_every_s(lease_s: float) -> float:
    """How often a server beats whose leases last ``lease_s``."""
    return min(LONGEST_S, SHARE_OF_LEASE * lease_s)


class Heartbeat:
    """Beats from a thread of its own between `start` and `stop`, which beats a last time."""

    def __init__(self, database: Database, lease_s: float) -> None:
        self._database = database
        self._every_s = beat_every_s(lease_s)
        self._stopping = threading.Event()
        self._failing = False
        self._thread = threading.Thread(target=self._run, name="heartbeat", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        self._stopping.set()
        self._thread.join()

    def _run(self) -> None:
        while not self._stopping.wait(self._every_s):
            self._beat()
        self._beat()

    def _beat(self) -> None:
        """A beat that fails is as good as none: leases get its time back later."""
        try:
            with self._database.transaction() as session:
                beat(session)
        except SQLAlchemyError as error:
            if not self._failing:
                logger.warning("the server's heartbeat is not noted: %s", error)
            self._failing = True
        else:
            self._failing = False
