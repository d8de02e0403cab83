"""Webhooks and their deliveries as the API shows them: never with a secret that was saved."""

from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any

from sqlalchemy.orm import Session

from service.store.deliveries import attempts_of
from service.store.tables import Webhook, WebhookDelivery
from studies.wire.webhooks import AttemptAnswer, DeliveryAnswer, NewWebhook, WebhookAnswer


def answer_webhook(webhook: Webhook) -> WebhookAnswer:
    return WebhookAnswer.model_validate(_shown(webhook))


def answer_new(webhook: Webhook, secret: str | None) -> NewWebhook:
    """``secret`` is the one that was made up just now, if one was."""
    return NewWebhook.model_validate({**_shown(webhook), "secret": secret})


def answer_deliveries(
    session: Session, deliveries: Sequence[WebhookDelivery]
) -> list[DeliveryAnswer]:
    attempts = attempts_of(session, deliveries)
    return [
        DeliveryAnswer.model_validate(
            {
                "id": delivery.id,
                "event_id": delivery.event_id,
                "type": delivery.event_type,
                "state": delivery.state,
                "attempts": [
                    AttemptAnswer.model_validate(row, from_attributes=True)
                    for row in attempts[delivery.id]
                ],
                "next_attempt_at": _moment(delivery.next_attempt_at),
                "created_at": delivery.created_at,
            }
        )
        for delivery in deliveries
    ]


def _shown(webhook: Webhook) -> dict[str, Any]:
    return {name: getattr(webhook, name) for name in WebhookAnswer.model_fields}


def _moment(seconds: float | None) -> datetime | None:
    return None if seconds is None else datetime.fromtimestamp(seconds, UTC)
