"""When a server last ran, so that a lease counts only the time in which it could be renewed.

A server that starts gives every lease the time back that it surely was away for, and no more: each
keeps its age among the others. Full leases instead, or time in which a server may still have run,
would keep a dead worker's trial from ever being taken back by servers that restart often.
"""

from sqlalchemy import case, select, update
from sqlalchemy.orm import Session

from service.store.clock import clock_of, now_s
from service.store.moves import ROW_LOCK
from service.store.tables import Attempt, ServerPulse, Trial

ONLY = 1
"""The key of the one row."""


def beat(session: Session) -> None:
    """Note that a server runs now."""
    clock = clock_of(session.get_bind().dialect.name)
    session.execute(update(ServerPulse).values(beaten_at=clock))


def give_back_downtime(session: Session, *, beat_s: float) -> None:
    """Lengthen every lease by the time that no server ran, to a whole one at most, and beat.

    For up to ``beat_s`` after its last beat a server may have run; that time is not given back.
    """
    pulse = session.get_one(ServerPulse, ONLY, with_for_update=ROW_LOCK)
    now = now_s(session)
    later = Trial.lease_expires_at + max(0.0, now - pulse.beaten_at - beat_s)
    whole = now + (
        select(Attempt.lease_s)
        .where(Attempt.trial_id == Trial.id, Attempt.attempt == Trial.attempt)
        .scalar_subquery()
    )
    # Trials are locked in the order of their ids, as everywhere, so that this start and the work of
    # another server do not wait for each other for ever.
    held = (
        select(Trial.id)
        .where(Trial.state == "running")
        .order_by(Trial.id)
        .with_for_update(key_share=True)
    )
    session.execute(
        update(Trial)
        .where(Trial.id.in_(held))
        .values(lease_expires_at=case((later < whole, later), else_=whole))
        .execution_options(synchronize_session=False)
    )
    beat(session)
