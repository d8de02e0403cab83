"""Queues deliveries: one per new event and webhook that wants it, exactly once over all servers."""

from collections.abc import Sequence
from typing import Any

from sqlalchemy import Select, select
from sqlalchemy.orm import Session

from service.context import ServerContext
from service.store.clock import now_s
from service.store.deliveries import new_delivery
from service.store.event_filter import EventFilter, SeenEvent
from service.store.event_log import read_events
from service.store.tables import EventLog, Webhook
from service.webhooks.rendering import render

PAGE = 500
_ALL = EventFilter()
_CHATTY = "trial.epoch"
"""An event for every epoch: sent to who names it, not to who asks for `trial.*`."""


class FanOut:
    """`step` brings the deliveries up to what the server's feed has seen."""

    def __init__(self, context: ServerContext) -> None:
        self._context = context
        self._done = 0

    def step(self) -> int:
        """Returns how many deliveries were queued; without new events it asks nothing."""
        queued = 0
        while (safe := self._context.feed.safe) is not None and safe > self._done:
            with self._context.database.reading() as session:
                if not session.scalars(_enabled().limit(1)).all():
                    self._done = safe
                    break
            with self._context.database.transaction() as session:
                reached = self._page(session, safe)
                if reached is None:
                    break  # another server is at it
                place, count = reached
            self._done = place
            queued += count
        return queued

    def _page(self, session: Session, safe: int) -> tuple[int, int] | None:
        """Deal with the next events; where that led to, and how many deliveries there were."""
        log = session.scalars(select(EventLog).with_for_update(skip_locked=True)).one_or_none()
        if log is None:
            return None
        # Locked against removal, not against changes.
        webhooks = session.scalars(_enabled().with_for_update(read=True, key_share=True)).all()
        begins = min((webhook.after_event for webhook in webhooks), default=safe)
        place = max(log.webhooks_to, begins)
        if place >= safe:
            return safe, 0
        events = read_events(session, _ALL, after=place, up_to=safe, limit=PAGE)
        log.webhooks_to = events[-1].answer.id if len(events) == PAGE else safe
        return log.webhooks_to, _queue(session, webhooks, events)


def wants(webhook: Webhook, event: SeenEvent) -> bool:
    """Whether an event is sent to a webhook."""
    kind = event.answer.type
    if event.answer.id <= webhook.after_event:
        return False
    if kind == _CHATTY and kind not in webhook.events:
        return False
    if kind == "webhook.disabled" and event.answer.data.get("webhook_id") == webhook.id:
        return False
    chosen = EventFilter(None, webhook.events, tuple(webhook.labels.items()))
    return chosen.admits(event)


def _enabled() -> Select[Any]:
    return select(Webhook).where(Webhook.enabled).order_by(Webhook.id)


def _queue(session: Session, webhooks: Sequence[Webhook], events: Sequence[SeenEvent]) -> int:
    due = now_s(session)
    count = 0
    for event in events:
        for webhook in webhooks:
            if wants(webhook, event):
                body = render(webhook.template, webhook.text, event.answer)
                session.add(
                    new_delivery(
                        webhook,
                        event.answer.type,
                        event.answer.id,
                        content_type=body.content_type,
                        body=body.text,
                        due=due,
                    )
                )
                count += 1
    return count
