"""Keeps the event log bounded: old events and deliveries go, a few thousand at a time."""

from datetime import timedelta

from service.context import ServerContext
from service.store.clock import moment
from service.store.deliveries import remove_old_deliveries
from service.store.event_log import remove_old_events

BATCHES_AT_ONCE = 20


def forget_old_events(context: ServerContext) -> int:
    """Remove events and deliveries older than `BERTUNE_EVENT_DAYS`, and the oldest of too many
    events; returns how many. What a long pause left to do is done over several calls."""
    removed = 0
    for _ in range(BATCHES_AT_ONCE):
        with context.database.transaction() as session:
            before = moment(session) - timedelta(days=context.settings.event_days)
            batch = remove_old_events(session, before)
            batch += remove_old_deliveries(session, before)
        removed += batch
        if not batch:
            break
    return removed
