"""The database's clock: it alone decides about leases and time limits, since all others may differ.

Clocks of workers and of several servers may be wrong by an hour, and change nothing.
"""

from datetime import UTC, datetime
from functools import cache

from sqlalchemy import ColumnElement, Float, Select, func, literal_column, select
from sqlalchemy.orm import Session

Clock = ColumnElement[float]


@cache
def clock_of(dialect: str) -> Clock:
    """SQL for seconds since the epoch, moving within a transaction. One object per dialect, so
    that statements with a clock in them can be built once for each."""
    if dialect == "sqlite":
        return literal_column("((julianday('now') - 2440587.5) * 86400.0)", Float)
    return func.extract("epoch", func.clock_timestamp()).cast(Float(53))


def now_s(session: Session) -> float:
    """What the clock says now, in seconds since the epoch."""
    return session.scalars(_look(clock_of(session.get_bind().dialect.name))).one()


@cache
def _look(clock: Clock) -> Select[float]:
    return select(clock)


def moment(session: Session) -> datetime:
    """What the clock says now, for what servers whose own clocks differ compare."""
    return datetime.fromtimestamp(now_s(session), UTC)
