"""What the command line draws of webhooks."""

from collections.abc import Sequence

from rich.table import Table

from service.terminal.views import plain, table_of
from studies.wire.base import iso_z
from studies.wire.webhooks import DeliveryAnswer, WebhookAnswer


def webhooks_table(webhooks: Sequence[WebhookAnswer]) -> Table:
    table = table_of("name", "sends", "as", "to", "state")
    for webhook in webhooks:
        reason = f"off: {webhook.disabled_reason}" if webhook.disabled_reason else "off"
        labels = [f"{key}:{value}" for key, value in webhook.labels.items()]
        table.add_row(
            plain(webhook.name),
            plain(", ".join([*webhook.events, *labels])),
            webhook.template,
            plain(webhook.url),
            plain("on" if webhook.enabled else reason),
        )
    return table


def deliveries_table(deliveries: Sequence[DeliveryAnswer]) -> Table:
    table = table_of("id", "event", "time", "state", "attempts", "last answer")
    for delivery in deliveries:
        table.add_row(
            plain(delivery.id),
            delivery.type,
            iso_z(delivery.created_at),
            delivery.state,
            str(len(delivery.attempts)),
            plain(_last_answer(delivery)),
        )
    return table


def _last_answer(delivery: DeliveryAnswer) -> str:
    if not delivery.attempts:
        return "not sent yet"
    attempt = delivery.attempts[-1]
    if delivery.state == "pending" and delivery.next_attempt_at is not None:
        return f"{attempt.error or 'under way'} Next try {iso_z(delivery.next_attempt_at)}."
    return attempt.error or f"{attempt.status} after {attempt.latency_ms} ms"
