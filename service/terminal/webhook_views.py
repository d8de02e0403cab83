"""What the command line draws of webhooks."""

from collections.abc import Sequence

from rich.table import Table

from service.terminal.views import plain, table_of
from studies.wire.webhooks import WebhookAnswer


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
