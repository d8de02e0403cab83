"""Commands about webhooks."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from service.commands.answering import Output, answering
from service.commands.asking import agree, require_terminal_or
from service.commands.options import Server, Yes
from service.terminal.exit_codes import REFUSED

if TYPE_CHECKING:
    from studies.wire.webhooks import DeliveryAnswer, NewWebhook

app = typer.Typer(no_args_is_help=True, help="Events that are sent to other programs.")

WebhookRef = Annotated[str, typer.Argument(metavar="WEBHOOK", help="Name, or id.")]
Events = Annotated[
    list[str] | None,
    typer.Option("--event", help="Such as 'study.*'; else study.completed and study.failed."),
]
Labels = Annotated[
    list[str] | None, typer.Option("--label", help="Only of studies with this label, key:value.")
]
Template = Annotated[str | None, typer.Option(help="json, slack or text.")]
Text = Annotated[str | None, typer.Option(help="Of slack and text, such as '{study}: {sentence}'.")]
SecretFile = Annotated[
    Path | None,
    typer.Option(exists=True, dir_okay=False, help="Its content signs; else a secret is made up."),
]
State = Literal["pending", "delivered", "failed"]


@app.command()
@answering
def add(
    output: Output,
    url: Annotated[str, typer.Argument(metavar="URL", help="Where events are sent.")],
    name: Annotated[str, typer.Option(help="Unique.")],
    event: Events = None,
    label: Labels = None,
    template: Template = None,
    text: Text = None,
    secret_file: SecretFile = None,
    server: Server = None,
) -> None:
    """Save a webhook. A secret that was made up is shown now and never again.

    With --quiet only that secret is said.
    """
    from studies.api import Api

    spec = _stated(event, label, template, text, secret_file)
    with Api(server) as client:
        saved = client.add_webhook({"name": name, "url": url, **spec})
    _tell_saved(output, saved, "is saved")


@app.command()
@answering
def edit(
    output: Output,
    webhook: WebhookRef,
    url: Annotated[str | None, typer.Option(help="Where events are sent.")] = None,
    name: Annotated[str | None, typer.Option(help="Unique.")] = None,
    event: Events = None,
    label: Labels = None,
    template: Template = None,
    text: Text = None,
    secret_file: SecretFile = None,
    new_secret: Annotated[
        bool, typer.Option("--new-secret", help="Make up a new secret, shown now and never again.")
    ] = False,
    enable: Annotated[
        bool | None,
        typer.Option("--enable/--disable", help="Switch it on, and send what waits; or off."),
    ] = None,
    server: Server = None,
) -> None:
    """Change what is said of a webhook; what is not said stays.

    With --quiet only a secret that was made up is said.
    """
    from service.commands.lookup import find_webhook
    from studies.api import Api

    if new_secret and secret_file is not None:
        raise typer.BadParameter("Give --secret-file or --new-secret, not both.")
    changes = _stated(event, label, template, text, secret_file)
    changes |= {"secret": None} if new_secret else {}
    stated = {"url": url, "name": name, "enabled": enable}
    changes |= {field: value for field, value in stated.items() if value is not None}
    if not changes:
        raise typer.BadParameter("Say what to change, such as --disable; --help lists it.")
    with Api(server) as client:
        saved = client.change_webhook(find_webhook(client, webhook).id, **changes)
    _tell_saved(output, saved, "is changed")


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
def deliveries(
    output: Output,
    webhook: WebhookRef,
    state: Annotated[State | None, typer.Option(help="Only these.")] = None,
    limit: Annotated[int, typer.Option(min=1, help="The newest this many.")] = 20,
    server: Server = None,
) -> None:
    """List what was sent to a webhook and what came of it, newest first.

    With --quiet ids are said.
    """
    from service.commands.lookup import find_webhook
    from service.terminal.webhook_views import deliveries_table
    from studies.api import Api

    with Api(server) as client:
        found = find_webhook(client, webhook)
        sent = client.webhook_deliveries(found.id, state, limit)
    view = deliveries_table(sent) if sent else f"{found.name} was sent no such events."
    output.answer(sent, view, (delivery.id for delivery in sent))


@app.command()
@answering
def redeliver(
    output: Output,
    webhook: WebhookRef,
    delivery: Annotated[str, typer.Argument(metavar="DELIVERY", help="Its id.")],
    server: Server = None,
) -> None:
    """Send a delivery anew, under its id, whatever became of it."""
    from service.commands.lookup import find_webhook
    from studies.api import Api

    with Api(server) as client:
        found = find_webhook(client, webhook)
        queued = client.redeliver(found.id, delivery)
    said = f"{queued.type} is queued anew.\nSee 'bertune webhook deliveries {found.id}'."
    output.answer(queued, said, queued.id)


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


def _stated(
    event: list[str] | None,
    label: list[str] | None,
    template: str | None,
    text: str | None,
    secret_file: Path | None,
) -> dict[str, Any]:
    """The fields that were said."""
    fields = {"events": event, "labels": _labels(label), "template": template, "text": text}
    stated: dict[str, Any] = {key: value for key, value in fields.items() if value is not None}
    if secret_file is not None:
        stated["secret"] = secret_file.read_text(encoding="utf-8").strip()
    return stated


def _tell_saved(output: Output, saved: "NewWebhook", done: str) -> None:
    lines = [f"Webhook {saved.name} ({saved.id}) {done}."]
    if saved.secret is not None:
        lines.append(f"It signs with {saved.secret}, which is not shown again.")
    lines.append(f"Try it: 'bertune webhook test {saved.id}'.")
    output.answer(saved, "\n".join(lines), saved.secret or ())


def _labels(stated: list[str] | None) -> dict[str, str] | None:
    if stated is None:
        return None
    pairs = [label.partition(":") for label in stated]
    if any(not (key and colon) for key, colon, _ in pairs):
        raise typer.BadParameter("A label is key:value.", param_hint="--label")
    return {key: value for key, _, value in pairs}
