"""A server that starts waits for a PostgreSQL that is away: what restarts both needs no human."""

import logging
import time
from collections.abc import Callable

from sqlalchemy.engine import Engine
from sqlalchemy.exc import OperationalError
from sqlalchemy.pool import NullPool

from service.settings import Settings
from service.store.database import Database, postgresql_engine

logger = logging.getLogger(__name__)

FIRST_PAUSE_S = 1.0
LONGEST_PAUSE_S = 30.0


def await_database(settings: Settings, *, sleep: Callable[[float], None] = time.sleep) -> None:
    """Return once the database takes connections, however long that takes; makes the home folder.

    Raises `OperationalError` for what time does not mend: a refused password, a database that is
    not there, an SQLite file that cannot be opened. Raises `OSError` for the home folder.
    """
    settings.home.mkdir(parents=True, exist_ok=True)
    database = Database(settings.resolved_database_url)
    if database.is_sqlite:
        _connect(database.engine)
        return
    # The engine of a `Database` would log the same outage in its own words.
    engine = postgresql_engine(database.url, poolclass=NullPool)
    pause_s = FIRST_PAUSE_S
    while (reason := _absence(engine)) is not None:
        logger.warning(
            "%s is away: %s. The server starts once it answers; trying again in %.0f s.",
            database.url.render_as_string(hide_password=True),
            reason,
            pause_s,
        )
        sleep(pause_s)
        pause_s = min(2 * pause_s, LONGEST_PAUSE_S)


def _absence(engine: Engine) -> str | None:
    """Why PostgreSQL takes no connection now, None if it does."""
    from studies import postgresql  # its driver is an extra that SQLite needs not

    try:
        _connect(engine)
    except OperationalError as error:
        if not postgresql.is_away(engine.url):
            raise
        return " ".join(str(error.orig).split())
    return None


def _connect(engine: Engine) -> None:
    try:
        with engine.connect():
            pass
    finally:
        engine.dispose()
