"""Webhooks in the store: making, finding, changing and removing them."""

import secrets
from collections.abc import Sequence
from datetime import UTC, datetime

from sqlalchemy import delete, select
from sqlalchemy.exc import IntegrityError
from sqlalchemy.orm import Session

from service.errors import ConflictError, NotFoundError
from service.store.event_log import newest_id
from service.store.identifiers import new_id
from service.store.tables import Webhook, WebhookAttempt, WebhookDelivery
from studies.wire.webhooks import WebhookSpec

SECRET_PREFIX = "whsec_"


def new_secret() -> str:
    return SECRET_PREFIX + secrets.token_urlsafe(32)


def insert_webhook(session: Session, spec: WebhookSpec, secret: str) -> Webhook:
    """Raises `ConflictError` ``name_taken``."""
    now = datetime.now(UTC)
    webhook = Webhook(id=new_id(), created_at=now, after_event=newest_id(session), secret=secret)
    _set(webhook, spec, now)
    session.add(webhook)
    _flush_name(session, spec.name)
    return webhook


def get_webhook(session: Session, webhook_id: str, *, lock: bool = False) -> Webhook:
    """Raises `NotFoundError` ``unknown_webhook``."""
    webhook = session.get(
        Webhook, webhook_id, with_for_update={"key_share": True} if lock else None
    )
    if webhook is None:
        detail = f"There is no webhook {webhook_id}."
        raise NotFoundError(detail, code="unknown_webhook", where=["path", "webhook_id"])
    return webhook


def list_webhooks(
    session: Session, *, limit: int, after: str | None = None, name: str | None = None
) -> Sequence[Webhook]:
    """By name, one more than ``limit`` if there is more; ``after`` is the last name seen."""
    query = select(Webhook).order_by(Webhook.name)
    if after is not None:
        query = query.where(Webhook.name > after)
    if name is not None:
        query = query.where(Webhook.name == name)
    return session.scalars(query.limit(limit + 1)).all()


def change_webhook(
    session: Session, webhook: Webhook, spec: WebhookSpec, secret: str | None
) -> None:
    """One that is switched on again is sent what happens from now on. Raises `ConflictError`
    ``name_taken``."""
    if spec.enabled and not webhook.enabled:
        webhook.after_event = newest_id(session)
        webhook.failing_since = None
    _set(webhook, spec, datetime.now(UTC))
    webhook.disabled_reason = None
    if secret is not None:
        webhook.secret = secret
    _flush_name(session, spec.name)


def remove_webhook(session: Session, webhook: Webhook) -> None:
    """With its deliveries; one that is under way is not recorded any more."""
    session.flush()
    of_it = select(WebhookDelivery.id).where(WebhookDelivery.webhook_id == webhook.id)
    session.execute(delete(WebhookAttempt).where(WebhookAttempt.delivery_id.in_(of_it)))
    session.execute(delete(WebhookDelivery).where(WebhookDelivery.webhook_id == webhook.id))
    session.delete(webhook)


def _set(webhook: Webhook, spec: WebhookSpec, now: datetime) -> None:
    webhook.name, webhook.url = spec.name, spec.url
    webhook.events, webhook.labels = list(spec.events), dict(spec.labels)
    webhook.template, webhook.text = spec.template, spec.text
    webhook.enabled, webhook.updated_at = spec.enabled, now


def _flush_name(session: Session, name: str) -> None:
    try:
        session.flush()
    except IntegrityError as error:
        detail = f"There is a webhook {name!r} already; change that one, or take a new name."
        raise ConflictError(detail, code="name_taken", where=["body", "name"]) from error
