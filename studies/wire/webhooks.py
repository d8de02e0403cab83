"""Webhooks on the wire: where events are sent, which of them, and what became of each."""

from typing import Annotated, Literal
from urllib.parse import urlsplit

from pydantic import AfterValidator, Field, SecretStr

from studies.wire.base import Answer, Request, Utc
from studies.wire.events import EventPattern

Template = Literal["json", "slack", "text"]
"""The event as JSON; `{"text": …}`, which Slack and its like take; or a plain text."""
DeliveryState = Literal["pending", "delivered", "failed"]
DEFAULT_EVENTS = ("study.completed", "study.failed")


def _http(url: str) -> str:
    try:
        parts = urlsplit(url)
        _ = parts.port  # raises for one that is no number
    except ValueError as error:
        raise ValueError(f"not a web address: {error}") from error
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise ValueError("a webhook's address begins with https:// or http:// and names a host")
    if parts.username or parts.password:
        raise ValueError("leave user and password out of the address; the secret signs")
    if any(not "!" <= char <= "~" for char in url) or parts.fragment:
        raise ValueError("write it in ASCII, without blanks and without a #fragment")
    return url


Url = Annotated[str, Field(max_length=2000), AfterValidator(_http)]
Name = Annotated[str, Field(min_length=1, max_length=120, pattern=r"^[^\x00-\x1f/]+$")]
Patterns = Annotated[list[EventPattern], Field(min_length=1, max_length=50)]
Labels = dict[Annotated[str, Field(max_length=100)], Annotated[str, Field(max_length=300)]]
Secret = Annotated[SecretStr, Field(min_length=16, max_length=200)]


class WebhookSpec(Request):
    """A webhook as stated."""

    name: Name
    """Unique."""
    url: Url
    events: Patterns = list(DEFAULT_EVENTS)
    """Types, `study.*` and the like, or `*`. `trial.epoch` is sent only if it is named."""
    labels: Labels = {}
    """Labels that an event's study must have, all of them."""
    template: Template = "json"
    text: str | None = Field(None, max_length=2000)
    """Of `slack` (optional) and `text` (required): a text with fields in braces."""
    secret: Secret | None = None
    """Signs each delivery; made up and shown once when it is left out."""
    enabled: bool = True


class WebhookPatch(Request):
    """The fields to change; those left out stay."""

    name: Name | None = None
    url: Url | None = None
    events: Patterns | None = None
    labels: Labels | None = None
    template: Template | None = None
    text: str | None = Field(None, max_length=2000)
    secret: Secret | None = None
    enabled: bool | None = None


class WebhookAnswer(Answer):
    id: str
    name: str
    url: str
    events: list[str]
    labels: dict[str, str]
    template: Template
    text: str | None
    enabled: bool
    disabled_reason: str | None
    """Why the server switched it off; null when a person did."""
    created_at: Utc
    updated_at: Utc


class NewWebhook(WebhookAnswer):
    secret: str | None
    """The one that was made up: shown now and never again. null for one that was given."""


class AttemptAnswer(Answer):
    """One try; without status and error it is under way, or was cut off."""

    attempt: int
    status: int | None
    latency_ms: int | None
    error: str | None
    started_at: Utc


class DeliveryAnswer(Answer):
    """One event for one webhook."""

    id: str
    """As in the header `Bertune-Delivery`."""
    event_id: int | None
    """null for a test."""
    type: str
    state: DeliveryState
    attempts: list[AttemptAnswer]
    next_attempt_at: Utc | None
    created_at: Utc
