"""One server at a time reads the data of a due fire, which may take minutes.

The claim is a short one that is renewed while the server lives, so that another takes over soon
after a crash. A fire whose reading began in time is in time, however long it takes.
"""

import logging
import secrets
import threading
from collections.abc import Iterator
from contextlib import contextmanager

from sqlalchemy.exc import SQLAlchemyError

from service.store.clock import now_s
from service.store.database import Database
from service.store.schedules import lock_due
from service.store.tables import Schedule

logger = logging.getLogger(__name__)

CLAIM_S = 60.0
RENEW_S = 15.0


@contextmanager
def reading_claim(database: Database, seen: Schedule) -> Iterator[bool]:
    """Whether the due fire's data are this caller's to read, for as long as the block lasts."""
    reader = secrets.token_hex(16)
    if not _claim(database, seen, reader):
        yield False
        return
    left = threading.Event()
    renewal = threading.Thread(
        target=_renew, args=(database, seen, reader, left), name="reading", daemon=True
    )
    renewal.start()
    try:
        yield True
    finally:
        left.set()
        renewal.join()


def _claim(database: Database, seen: Schedule, reader: str) -> bool:
    with database.transaction() as session:
        schedule = lock_due(session, seen)
        if schedule is None:
            return False
        now = now_s(session)
        if schedule.reading_until is not None and schedule.reading_until > now:
            return False
        schedule.reader, schedule.reading_until = reader, now + CLAIM_S
    return True


def _renew(database: Database, seen: Schedule, reader: str, left: threading.Event) -> None:
    while not left.wait(RENEW_S):
        try:
            with database.transaction() as session:
                schedule = lock_due(session, seen)
                if schedule is None or schedule.reader != reader:
                    return
                schedule.reading_until = now_s(session) + CLAIM_S
        except SQLAlchemyError as error:
            logger.warning("schedule %s: its claim is not renewed: %s", seen.name, error)
