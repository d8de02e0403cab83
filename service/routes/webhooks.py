"""Webhooks: save, list, read, change, remove; send a test, see deliveries and send one anew."""

from typing import Annotated, Any

from anyio import to_thread
from fastapi import APIRouter, Body, Path, Query

from service.context import Context
from service.routes.cursors import Cursor, Limit, cut_page, decode_cursor
from service.routes.documented import errors
from service.routes.webhook_answers import answer_deliveries, answer_new, answer_webhook
from service.store.deliveries import Job, Recorded, list_deliveries, record_attempt, send_anew
from service.store.tables import WebhookDelivery
from service.store.webhooks import get_webhook, list_webhooks, remove_webhook
from service.webhooks.addresses import AllowedPlaces
from service.webhooks.saving import add_webhook, begin_test, edit_webhook
from service.webhooks.sender import attempt
from studies.wire.base import Page
from studies.wire.webhooks import (
    DeliveryAnswer,
    DeliveryState,
    NewWebhook,
    WebhookAnswer,
    WebhookPatch,
    WebhookSpec,
)

router = APIRouter(prefix="/v1/webhooks", tags=["webhooks"])
WebhookId = Annotated[str, Path(pattern=r"^[^\x00]{1,100}$", description="A webhook's id")]
DeliveryId = Annotated[str, Path(pattern=r"^[^\x00]{1,100}$", description="A delivery's id")]
NameFilter = Annotated[
    str | None, Query(alias="name", pattern=r"^[^\x00]{1,120}$", description="Exactly this name")
]
_EXAMPLES: dict[str, Any] = {
    "json": {
        "summary": "Events as JSON",
        "value": {
            "name": "results",
            "url": "https://hooks.example/bertune",
            "events": ["study.*", "trial.failed"],
            "labels": {"team": "support"},
        },
    },
    "slack": {
        "summary": "A line in a channel",
        "value": {
            "name": "channel",
            "url": "https://hooks.example/services/T0/B0/x",
            "events": ["study.completed", "study.failed", "schedule.skipped"],
            "template": "slack",
            "text": "*{study}*: {sentence}",
        },
    },
}
_PATCHES: dict[str, Any] = {
    "off": {"summary": "Switch off", "value": {"enabled": False}},
    "secret": {"summary": "Make up a new secret", "value": {"secret": None}},
}
Spec = Annotated[WebhookSpec, Body(openapi_examples=_EXAMPLES)]
Patch = Annotated[WebhookPatch, Body(openapi_examples=_PATCHES)]


@router.post("", status_code=201, summary="Save a webhook", responses=errors(409, 422))
def save_webhook(spec: Spec, context: Context) -> NewWebhook:
    """Events from now on are sent there by POST, each at least once: an attempt that is not
    answered 2xx within 15 s is repeated, ten times in about 20 hours, with the same
    `Bertune-Delivery`. `Bertune-Signature` is `t=SECONDS,v1=HEX`, an HMAC-SHA256 with the secret
    over the seconds, a full stop and the body. A `secret` left out is made up and shown once.

    A `text` may hold `{sentence}`, `{type}`, `{study}`, `{study_id}`, `{trial}`, `{value}`,
    `{metric}`, `{reason}`, `{schedule}` and `{time}`. Hosts whose addresses are not public are
    refused, unless `BERTUNE_WEBHOOK_PRIVATE` allows them.
    """
    webhook_id, secret = add_webhook(context, spec)
    with context.database.reading() as session:
        return answer_new(get_webhook(session, webhook_id), secret)


@router.get("", summary="List webhooks", responses=errors(422))
def read_webhooks(
    context: Context, name: NameFilter = None, cursor: Cursor = None, limit: Limit = 50
) -> Page[WebhookAnswer]:
    """By name."""
    place = decode_cursor(cursor, str)
    after = None if place is None else str(place[0])
    with context.database.reading() as session:
        webhooks, next_cursor = cut_page(
            list_webhooks(session, limit=limit, after=after, name=name),
            limit,
            lambda webhook: (webhook.name,),
        )
    return Page(items=[answer_webhook(webhook) for webhook in webhooks], next_cursor=next_cursor)


@router.get("/{webhook_id}", summary="Read a webhook", responses=errors(404, 422))
def read_webhook(webhook_id: WebhookId, context: Context) -> WebhookAnswer:
    """What was saved, but for its secret; and why the server switched it off, if it did: after 5
    days without a success, or when its receiver answered 410."""
    with context.database.reading() as session:
        return answer_webhook(get_webhook(session, webhook_id))


@router.patch("/{webhook_id}", summary="Change a webhook", responses=errors(404, 409, 422))
def change_webhook(webhook_id: WebhookId, patch: Patch, context: Context) -> NewWebhook:
    """Fields left out stay. `enabled: false` keeps what is queued; `true` sends it, and what
    happens from then on. `secret: null` makes up a new one, shown in this answer alone; what is
    queued is signed with it, too."""
    secret = edit_webhook(context, webhook_id, patch)
    with context.database.reading() as session:
        return answer_new(get_webhook(session, webhook_id), secret)


@router.delete(
    "/{webhook_id}", summary="Remove a webhook", status_code=204, responses=errors(404, 422)
)
def delete_webhook(webhook_id: WebhookId, context: Context) -> None:
    """With its deliveries; what was not sent by now never is."""
    with context.database.transaction() as session:
        remove_webhook(session, get_webhook(session, webhook_id, lock=True))


@router.post("/{webhook_id}/test", summary="Send a test", responses=errors(404, 422))
async def send_test(webhook_id: WebhookId, context: Context) -> DeliveryAnswer:
    """Sends an event `webhook.test` once, now, and answers what came of it; also for a webhook that
    is switched off."""
    job = await to_thread.run_sync(begin_test, context, webhook_id)
    outcome = await attempt(job, AllowedPlaces.parse(context.settings.webhook_private))
    return await to_thread.run_sync(_record_test, context, job, outcome)


def _record_test(context: Context, job: Job, outcome: Recorded) -> DeliveryAnswer:
    with context.database.transaction() as session:
        record_attempt(session, job, outcome, first_delay_s=context.settings.webhook_retry_s)
        get_webhook(session, job.webhook_id)
        delivery = session.get_one(WebhookDelivery, job.delivery_id)
        return answer_deliveries(session, [delivery])[0]


@router.get("/{webhook_id}/deliveries", summary="List deliveries", responses=errors(404, 422))
def read_deliveries(
    webhook_id: WebhookId,
    context: Context,
    state: DeliveryState | None = None,
    cursor: Cursor = None,
    limit: Limit = 50,
) -> Page[DeliveryAnswer]:
    """Newest first, each with all of its attempts; kept as long as events are."""
    place = decode_cursor(cursor, str)
    before = None if place is None else str(place[0])
    with context.database.reading() as session:
        get_webhook(session, webhook_id)
        deliveries, next_cursor = cut_page(
            list_deliveries(session, webhook_id, limit=limit, before=before, state=state),
            limit,
            lambda delivery: (delivery.id,),
        )
        items = answer_deliveries(session, deliveries)
    return Page(items=items, next_cursor=next_cursor)


@router.post(
    "/{webhook_id}/deliveries/{delivery_id}/redeliver",
    summary="Send a delivery anew",
    status_code=202,
    responses=errors(404, 422),
)
def redeliver(webhook_id: WebhookId, delivery_id: DeliveryId, context: Context) -> DeliveryAnswer:
    """Under its id and with its body, whatever became of it, with ten more attempts."""
    with context.database.transaction() as session:
        get_webhook(session, webhook_id)
        delivery = send_anew(session, webhook_id, delivery_id)
        return answer_deliveries(session, [delivery])[0]
