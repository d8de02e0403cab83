"""Saving webhooks: everything is checked first as a delivery would be."""

import logging
from datetime import UTC, datetime
from urllib.parse import urlsplit

from fastapi.exceptions import RequestValidationError
from pydantic import ValidationError

from model.errors import InputError
from service.context import ServerContext
from service.store.clock import now_s
from service.store.deliveries import CLAIM_S, TEST_EVENT, Job, begin_attempt, new_delivery
from service.store.tables import Webhook
from service.store.webhooks import change_webhook, get_webhook, insert_webhook, new_secret
from service.webhooks.addresses import (
    AllowedPlaces,
    PrivateAddressError,
    UnknownHostError,
    checked_addresses,
)
from service.webhooks.rendering import render
from studies.wire.events import EventAnswer
from studies.wire.webhooks import WebhookPatch, WebhookSpec

logger = logging.getLogger(__name__)


def add_webhook(context: ServerContext, spec: WebhookSpec) -> tuple[str, str | None]:
    """Store a webhook; its id, and its secret if that was made up.

    Raises `InputError`, `ConflictError` ``name_taken``.
    """
    check_webhook(context, spec)
    secret = None if spec.secret is None else spec.secret.get_secret_value()
    made_up = new_secret() if secret is None else None
    with context.database.transaction() as session:
        webhook_id = insert_webhook(session, spec, secret or made_up or "").id
    logger.info("webhook %s (%s) sends to %s", spec.name, webhook_id, urlsplit(spec.url).hostname)
    return webhook_id, made_up


def edit_webhook(context: ServerContext, webhook_id: str, patch: WebhookPatch) -> str | None:
    """Change the fields that ``patch`` states; what comes of it is checked as a whole. Returns the
    secret that was made up for `secret: null`.

    Raises `NotFoundError`, `RequestValidationError`, `InputError`, `ConflictError`.
    """
    with context.database.reading() as session:
        spec = merged(get_webhook(session, webhook_id), patch)
    check_webhook(context, spec)
    secret = made_up = None
    if "secret" in patch.model_fields_set:
        secret = spec.secret.get_secret_value() if spec.secret else None
        made_up = new_secret() if secret is None else None
    with context.database.transaction() as session:
        webhook = get_webhook(session, webhook_id, lock=True)
        # Others may have edited it since: what they changed and this patch does not name stays.
        change_webhook(session, webhook, merged(webhook, patch), secret or made_up)
    return made_up


def merged(webhook: Webhook, patch: WebhookPatch) -> WebhookSpec:
    """What was saved with what the patch states. Raises `RequestValidationError`."""
    names = ("name", "url", "events", "labels", "template", "text", "enabled")
    saved = {name: getattr(webhook, name) for name in names}
    stated = {name: getattr(patch, name) for name in patch.model_fields_set}
    document = {**saved, **stated}
    try:
        return WebhookSpec.model_validate(document)
    except ValidationError as error:
        problems = [
            {**problem, "loc": ("body", *problem["loc"])}
            for problem in error.errors(include_url=False, include_input=False)
        ]
        raise RequestValidationError(problems, body=document) from error


def check_webhook(context: ServerContext, spec: WebhookSpec) -> None:
    """Raises `InputError`: for a text with unknown fields or where none belongs, and for a host
    that cannot be resolved or may not be reached."""
    if spec.template == "json" and spec.text is not None:
        detail = "The template json sends the event as it is; take slack or text to send a text."
        raise InputError("invalid_template", detail, ("text",))
    if spec.template == "text" and spec.text is None:
        raise InputError("invalid_template", "The template text needs a text.", ("text",))
    render(spec.template, spec.text, test_event(spec.name))
    parts = urlsplit(spec.url)
    port = parts.port or (443 if parts.scheme == "https" else 80)
    allowed = AllowedPlaces.parse(context.settings.webhook_private)
    try:
        checked_addresses(parts.hostname or "", port, allowed)
    except UnknownHostError as error:
        raise InputError("unknown_host", str(error), ("url",)) from error
    except PrivateAddressError as error:
        detail = f"{error} The server's BERTUNE_WEBHOOK_PRIVATE allows hosts and networks."
        raise InputError("private_address", detail, ("url",)) from error


def begin_test(context: ServerContext, webhook_id: str) -> Job:
    """Queue a delivery of a made-up event and claim it at once, also of a webhook that is switched
    off. Raises `NotFoundError`."""
    with context.database.transaction() as session:
        webhook = get_webhook(session, webhook_id)
        body = render(webhook.template, webhook.text, test_event(webhook.name))
        now = now_s(session)
        delivery = new_delivery(
            webhook,
            TEST_EVENT,
            None,
            content_type=body.content_type,
            body=body.text,
            due=now + CLAIM_S,
        )
        session.add(delivery)
        session.flush()
        return begin_attempt(session, webhook, delivery, now)


def test_event(name: str) -> EventAnswer:
    """An event of no study; its id is none of the log's."""
    return EventAnswer(
        id=0,
        type=TEST_EVENT,
        study_id=None,
        study=None,
        trial=None,
        data={"webhook": name},
        created_at=datetime.now(UTC),
    )
