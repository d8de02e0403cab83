"""How we connect to PostgreSQL: in UTC, and never waiting without end for a server that is gone.

A server that refuses is heard of at once. One that was unplugged acknowledges nothing, which the
system notices; one that is frozen, or sits behind a frozen proxy, acknowledges everything and
answers nothing, which only a limit on the wait for an answer notices.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import psycopg
from psycopg.conninfo import make_conninfo
from psycopg.pq import PGconn, Ping, TransactionStatus
from sqlalchemy import Connection, Engine, event
from sqlalchemy.engine import URL

CONNECT_S = 5
STATEMENT_S = 15
"""How long the server lets a statement take, its wait for locks included."""
ANSWER_S = 20.0
"""How long we wait for an answer; longer than the server takes to give a statement up."""
IDLE_TRANSACTION_S = 10
"""A process that stops in the middle of a transaction keeps its locks for this long."""

_SOCKET = {
    "keepalives": 1,
    "keepalives_idle": 10,
    "keepalives_interval": 5,
    "keepalives_count": 2,
    "tcp_user_timeout": 15_000,
}
"""libpq's names: what is sent and not acknowledged for 15 s (given in ms), or a connection that
is silent for 20 s and does not answer probes, is dead."""


class BoundedConnection(psycopg.Connection[Any]):
    """A connection that closes itself when an answer takes longer than ``answer_s``.

    Raises `psycopg.OperationalError` then.
    """

    answer_s: float | None = None
    """None waits for ever."""

    def wait(self, gen: Any, interval: float = 0.1, timeout: float | None = None) -> Any:
        try:
            return super().wait(gen, interval, self.answer_s if timeout is None else timeout)
        except psycopg.OperationalError as error:
            # An error that the server said has a code; after it a pipeline is still busy.
            if error.sqlstate or self.pgconn.transaction_status != TransactionStatus.ACTIVE:
                raise
            self.close()
            raise psycopg.OperationalError("the database server did not answer in time") from error


def connect_args(
    url: URL, *, read_only: bool = False, settings: dict[str, str] | None = None
) -> dict[str, Any]:
    """libpq's arguments: what ``url`` states goes before ours, but for the time zone.

    ``settings`` are the server's, for these sessions.
    """
    session = {
        "statement_timeout": f"{STATEMENT_S}s",
        "idle_in_transaction_session_timeout": f"{IDLE_TRANSACTION_S}s",
        **(settings or {}),
    }
    stated = url.query.get("options", "")
    if not isinstance(stated, str):
        stated = " ".join(stated)
    words = [f"-c {name}={value}" for name, value in session.items()]
    # Of two that name one setting, the later counts.
    words = [*words, stated, "-c timezone=UTC"]
    if read_only:
        words.append("-c default_transaction_read_only=on")
    ours = {"connect_timeout": CONNECT_S, **_SOCKET}
    return {
        **{name: value for name, value in ours.items() if name not in url.query},
        "options": " ".join(filter(None, words)),
    }


def is_away(url: URL) -> bool:
    """Whether no server answers there, or one that is starting or stopping.

    Who asks does not matter: a server that refuses a password or knows no such database is there.
    """
    stated = url.get_dialect()().create_connect_args(url)[1]
    address = make_conninfo(**{"connect_timeout": CONNECT_S, **stated})
    return PGconn.ping(address.encode()) in (Ping.REJECT, Ping.NO_RESPONSE)


def bound_waiting(engine: Engine) -> None:
    """From now on the engine's connections are `BoundedConnection`; those it has are closed."""

    def connect(_dialect: Any, _record: Any, args: Any, arguments: Any) -> BoundedConnection:
        connection = BoundedConnection.connect(*args, **arguments)
        connection.answer_s = ANSWER_S
        _pin_to_utc(connection)
        return connection

    event.listen(engine, "do_connect", connect)
    engine.dispose()


def _pin_to_utc(connection: BoundedConnection) -> None:
    """The environment variable PGTZ goes before what a connection asks for."""
    if connection.info.parameter_status("TimeZone") != "UTC":
        connection.autocommit = True
        connection.execute("SET timezone TO 'UTC'")
        connection.autocommit = False


@contextmanager
def unhurried(connection: Connection) -> Iterator[None]:
    """Inside, the statements of the open transaction may take as long as they take."""
    driver = connection.connection.driver_connection
    assert isinstance(driver, BoundedConnection)
    connection.exec_driver_sql("SET LOCAL statement_timeout = 0")
    driver.answer_s = None
    try:
        yield
    finally:
        driver.answer_s = ANSWER_S
