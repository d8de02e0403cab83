"""Commands about webhooks."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from service.commands.answering import Output, answering
from service.commands.asking import agree, require_terminal_or
from service.commands.options import Server, Yes
from service.terminal.exit_codes import REFUSED

if TYPE_CHECKING:
    from studies.wire.webhooks import DeliveryAnswer

app = typer.Typer(no_args_is_help=True, help="Events that are sent to other programs.")

WebhookRef = Annotated[str, typer.Argument(metavar="WEBHOOK", help="Name, or id.")]


@app.command()
@answering
def add(
    output: Output,
    url: Annotated[str, typer.Argument(metavar="URL", help="Where events are sent.")],
    name: Annotated[str, typer.Option(help="Unique.")],
    event: Annotated[
        list[str] | None,
        typer.Option(help="Such as 'study.*'; else study.completed and study.failed."),
    ] = None,
    label: Annotated[
        list[str] | None, typer.Option(help="Only of studies with this label, key:value.")
    ] = None,
    template: Annotated[str | None, typer.Option(help="json, slack or text.")] = None,
    text: Annotated[
        str | None, typer.Option(help="Of slack and text, such as '{study}: {sentence}'.")
    ] = None,
    secret_file: Annotated[
        Path | None,
        typer.Option(
            exists=True, dir_okay=False, help="Its content signs; else a secret is made up."
        ),
    ] = None,
    server: Server = None,
) -> None:
    """Save a webhook. A secret that was made up is shown now and never again.

    With --quiet only that secret is said.
    """
    from studies.api import Api

    stated = {"events": event, "labels": _labels(label), "template": template, "text": text}
    spec: dict[str, Any] = {key: value for key, value in stated.items() if value is not None}
    if secret_file is not None:
        spec["secret"] = secret_file.read_text(encoding="utf-8").strip()
    with Api(server) as client:
        saved = client.add_webhook({"name": name, "url": url, **spec})
    lines = [f"Webhook {saved.name} ({saved.id}) is saved."]
    if saved.secret is not None:
        lines.append(f"It signs with {saved.secret}, which is not shown again.")
    lines.append(f"Try it: 'bertune webhook test {saved.id}'.")
    output.answer(saved, "\n".join(lines), saved.secret or ())


@app.command("list")
@answering
def list_webhooks(output: Output, server: Server = None) -> None:
    """List webhooks by name."""
    from service.terminal.webhook_views import webhooks_table
    from studies.api import Api

    with Api(server) as client:
        found = client.webhooks()
    none = "No webhooks. Save one with 'bertune webhook add URL --name NAME'."
    view = webhooks_table(found) if found else none
    output.answer(found, view, (webhook.name for webhook in found))


@app.command("test")
@answering
def send_test(output: Output, webhook: WebhookRef, server: Server = None) -> None:
    """Send a webhook an event, once, now, and say what came of it.

    With --quiet the delivery's state is said.
    """
    from service.commands.lookup import find_webhook
    from studies.api import Api

    with Api(server) as client:
        found = find_webhook(client, webhook)
        delivery = client.test_webhook(found.id)
    output.answer(delivery, f"{found.name}: {_outcome(delivery)}", delivery.state)
    if delivery.state != "delivered":
        raise typer.Exit(REFUSED)


@app.command()
@answering
def remove(output: Output, webhook: WebhookRef, yes: Yes = False, server: Server = None) -> None:
    """Remove a webhook and its deliveries; what was not sent by now never is.

    With --json the webhook is printed as it was.
    """
    from service.commands.lookup import find_webhook
    from studies.api import Api

    require_terminal_or(yes)
    with Api(server) as client:
        found = find_webhook(client, webhook)
        if not yes:
            agree(f"Remove the webhook {found.name}?", "Nothing was removed.")
        client.remove_webhook(found.id)
    output.answer(found, f"Webhook {found.name} is removed.")


def _outcome(delivery: "DeliveryAnswer") -> str:
    attempt = delivery.attempts[-1]
    if delivery.state == "delivered":
        return f"delivered, answered {attempt.status} after {attempt.latency_ms} ms."
    return f"not delivered. {attempt.error}"


def _labels(stated: list[str] | None) -> dict[str, str] | None:
    if stated is None:
        return None
    pairs = [label.partition(":") for label in stated]
    if any(not (key and colon) for key, colon, _ in pairs):
        raise typer.BadParameter("A label is key:value.", param_hint="--label")
    return {key: value for key, _, value in pairs}
