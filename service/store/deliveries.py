"""Deliveries of webhooks in the store: queued with an event, claimed, recorded, sent anew.

Any server may claim what is due. A claim holds for `CLAIM_S`; if it was cut off, the delivery is
sent again under the same id.
"""

import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, cast

from sqlalchemy import ColumnElement, CursorResult, delete, select
from sqlalchemy.orm import Session

from service.errors import NotFoundError
from service.store.clock import now_s
from service.store.events import append_event
from service.store.identifiers import new_id
from service.store.tables import Webhook, WebhookAttempt, WebhookDelivery

CLAIM_S = 60.0
"""Longer than an attempt may take."""
MOST_FAILURES = 10
FACTOR = 4.0
LONGEST_DELAY_S = 6 * 3600.0
"""5 s, 20 s, 80 s, … up to this: ten attempts in about 20 hours."""
DISABLED_AFTER_S = 5 * 86400.0
GONE = 410
TEST_EVENT = "webhook.test"
REMOVED_AT_ONCE = 1_000


@dataclass(frozen=True, slots=True)
class Job:
    """An attempt that was claimed: all that sending it takes. Its repr tells no secret."""

    delivery_id: str
    webhook_id: str
    attempt: int
    event_type: str
    content_type: str
    body: str
    target: "Target"


@dataclass(frozen=True, slots=True, repr=False)
class Target:
    url: str
    secret: str


@dataclass(frozen=True, slots=True)
class Recorded:
    """What is to be written of an attempt; ``error`` is null when it was delivered."""

    status: int | None
    latency_ms: int
    error: str | None
    retry_after_s: float | None = None


def new_delivery(
    webhook: Webhook,
    event_type: str,
    event_id: int | None,
    *,
    content_type: str,
    body: str,
    due: float,
) -> WebhookDelivery:
    return WebhookDelivery(
        id=new_id(),
        webhook_id=webhook.id,
        event_id=event_id,
        event_type=event_type,
        content_type=content_type,
        body=body,
        state="pending",
        attempt=0,
        failures=0,
        next_attempt_at=due,
        created_at=datetime.now(UTC),
    )


def webhooks_due(session: Session, now: float) -> Sequence[str]:
    """The webhooks, of those that are switched on, that have something to be sent."""
    query = (
        select(WebhookDelivery.webhook_id)
        .join(Webhook, Webhook.id == WebhookDelivery.webhook_id)
        .where(*_due(now), Webhook.enabled)
        .distinct()
    )
    return session.scalars(query).all()


def _due(now: float) -> tuple[ColumnElement[bool], ColumnElement[bool]]:
    return WebhookDelivery.state == "pending", WebhookDelivery.next_attempt_at <= now


def claim_due(session: Session, under_way: Mapping[str, int], *, each: int, most: int) -> list[Job]:
    """Claim what is due: of a webhook no more than ``each``, those ``under_way`` counted."""
    now = now_s(session)
    jobs: list[Job] = []
    for webhook_id in webhooks_due(session, now):
        room = min(each - under_way.get(webhook_id, 0), most - len(jobs))
        if room <= 0:
            continue
        webhook = session.get_one(Webhook, webhook_id)
        rows = session.scalars(
            select(WebhookDelivery)
            .where(*_due(now), WebhookDelivery.webhook_id == webhook_id)
            .order_by(WebhookDelivery.event_id, WebhookDelivery.id)
            .limit(room)
            .with_for_update(skip_locked=True, key_share=True)
            .execution_options(populate_existing=True)
        )
        jobs += [begin_attempt(session, webhook, row, now) for row in rows]
    return jobs


def begin_attempt(session: Session, webhook: Webhook, delivery: WebhookDelivery, now: float) -> Job:
    """Note an attempt before it is made, so that one that was cut off shows."""
    delivery.attempt += 1
    delivery.next_attempt_at = now + CLAIM_S
    session.flush()
    session.add(
        WebhookAttempt(
            delivery_id=delivery.id, attempt=delivery.attempt, started_at=datetime.now(UTC)
        )
    )
    return Job(
        delivery.id,
        webhook.id,
        delivery.attempt,
        delivery.event_type,
        delivery.content_type,
        delivery.body,
        Target(webhook.url, webhook.secret),
    )


def record_attempt(session: Session, job: Job, outcome: Recorded, *, first_delay_s: float) -> None:
    """Write what came of an attempt, and when the next one is. A test has no next one."""
    # The webhook first, as its removal does.
    webhook = session.get(Webhook, job.webhook_id, with_for_update={"key_share": True})
    delivery = session.get(WebhookDelivery, job.delivery_id, with_for_update=True)
    tried = session.get(WebhookAttempt, (job.delivery_id, job.attempt))
    if webhook is None or delivery is None or tried is None:
        return  # the webhook was removed meanwhile
    tried.status, tried.latency_ms = outcome.status, outcome.latency_ms
    tried.error = outcome.error
    if delivery.attempt != job.attempt or delivery.state != "pending":
        return  # this one took too long, and another attempt decides
    if outcome.error is None:
        delivery.state, delivery.next_attempt_at = "delivered", None
        delivery.failures, webhook.failing_since = 0, None
        return
    now = now_s(session)
    delivery.failures += 1
    if delivery.failures >= MOST_FAILURES or delivery.event_type == TEST_EVENT:
        delivery.state, delivery.next_attempt_at = "failed", None
    else:
        wait_s = max(delay_s(delivery.failures, first_delay_s), outcome.retry_after_s or 0.0)
        delivery.next_attempt_at = now + wait_s
    if delivery.event_type != TEST_EVENT:
        _heed_failure(session, webhook, outcome, now)


def delay_s(failures: int, first_delay_s: float) -> float:
    """How long to wait after so many failures; a fifth more or less, so that what failed together
    does not come again together."""
    delay = min(first_delay_s * FACTOR ** (failures - 1), LONGEST_DELAY_S)
    return delay * random.uniform(0.8, 1.2)


def _heed_failure(session: Session, webhook: Webhook, outcome: Recorded, now: float) -> None:
    """Switch a webhook off that says it is gone, or that failed for days without one success."""
    if webhook.failing_since is None:
        webhook.failing_since = now
    reason = None
    if outcome.status == GONE:
        reason = "Its receiver answered 410 Gone."
    elif now - webhook.failing_since >= DISABLED_AFTER_S:
        days = DISABLED_AFTER_S / 86400
        reason = f"Nothing was delivered for {days:g} days; the last error: {outcome.error}"
    if reason is None or not webhook.enabled:
        return
    webhook.enabled, webhook.disabled_reason = False, reason
    data = {"webhook": webhook.name, "webhook_id": webhook.id, "reason": reason}
    append_event(session, "webhook.disabled", data=data)


def send_anew(session: Session, webhook_id: str, delivery_id: str) -> WebhookDelivery:
    """Queue a delivery once more, under its id. Raises `NotFoundError` ``unknown_delivery``."""
    delivery = session.get(WebhookDelivery, delivery_id, with_for_update=True)
    if delivery is None or delivery.webhook_id != webhook_id:
        detail = f"The webhook has no delivery {delivery_id}."
        raise NotFoundError(detail, code="unknown_delivery", where=["path", "delivery_id"])
    if delivery.state != "pending":
        delivery.state, delivery.failures = "pending", 0
    delivery.next_attempt_at = now_s(session)
    return delivery


def list_deliveries(
    session: Session, webhook_id: str, *, limit: int, before: str | None, state: str | None
) -> Sequence[WebhookDelivery]:
    """Newest first, one more than ``limit`` if there is more."""
    query = (
        select(WebhookDelivery)
        .where(WebhookDelivery.webhook_id == webhook_id)
        .order_by(WebhookDelivery.id.desc())
    )
    if before is not None:
        query = query.where(WebhookDelivery.id < before)
    if state is not None:
        query = query.where(WebhookDelivery.state == state)
    return session.scalars(query.limit(limit + 1)).all()


def attempts_of(
    session: Session, deliveries: Sequence[WebhookDelivery]
) -> dict[str, list[WebhookAttempt]]:
    """Every try at these, in order, in one query."""
    found: dict[str, list[WebhookAttempt]] = {delivery.id: [] for delivery in deliveries}
    query = select(WebhookAttempt).where(WebhookAttempt.delivery_id.in_(found))
    for row in session.scalars(query.order_by(WebhookAttempt.attempt)):
        found[row.delivery_id].append(row)
    return found


def remove_old_deliveries(session: Session, before: datetime) -> int:
    """Remove some deliveries made before a time; 0 when none was left."""
    by_age = select(WebhookDelivery).order_by(WebhookDelivery.id)  # ids sort by time
    first = session.scalars(by_age.limit(1)).first()
    if first is None or first.created_at >= before:
        return 0
    chosen = by_age.with_only_columns(WebhookDelivery.id)
    old = session.scalars(
        chosen.where(WebhookDelivery.created_at < before).limit(REMOVED_AT_ONCE)
    ).all()
    session.execute(delete(WebhookAttempt).where(WebhookAttempt.delivery_id.in_(old)))
    removed = session.execute(delete(WebhookDelivery).where(WebhookDelivery.id.in_(old)))
    return cast("CursorResult[Any]", removed).rowcount
