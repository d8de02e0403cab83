"""Streams of events: of one study, and of all."""

from typing import Annotated, Any

from anyio import to_thread
from fastapi import APIRouter, Header, Query
from fastapi.responses import Response

from service.context import Context
from service.errors import ServiceError
from service.events.slow_reader import EventStreamResponse
from service.events.stream import frames, open_stream
from service.routes.documented import errors
from service.routes.label_filters import LabelFilters, label_filter
from service.routes.studies import StudyId
from service.store.event_filter import EventFilter
from studies.wire.events import EventPattern

router = APIRouter(prefix="/v1", tags=["events"])
MOST_ID = 2**31 - 1
MOST_LAST = 10_000
After = Annotated[
    int | None,
    Query(ge=0, le=MOST_ID, description="Begin after this event; 0 for the oldest, absent for now"),
]
Last = Annotated[
    int | None,
    Query(ge=0, le=MOST_LAST, description="Begin with the newest so many; not beside `after`"),
]
LastEventId = Annotated[
    str | None,
    Header(max_length=100, description="As `after`, and goes before it: browsers send it"),
]
Types = Annotated[
    list[EventPattern],
    Query(alias="type", description="`study.completed`, `trial.*`, …; of several one must match"),
]
Follow = Annotated[
    bool, Query(description="false: end the stream once everything up to now was sent")
]
_STREAM: dict[int | str, dict[str, Any]] = {
    200: {"content": {"text/event-stream": {}}, "description": "The stream"},
    204: {"description": "Nothing more will come, such as of a study that has ended; ask no more"},
}


class EventIdError(ServiceError):
    status = 422
    code = "invalid_event_id"


@router.get(
    "/studies/{study_id}/events",
    summary="Follow a study",
    response_class=Response,
    responses={**errors(404, 422), **_STREAM},
)
async def follow_study(
    study_id: StudyId,
    context: Context,
    after: After = None,
    last: Last = None,
    last_event_id: LastEventId = None,
    type: Types = [],  # noqa: B006 - FastAPI copies it
    follow: Follow = True,
) -> Response:
    """Server-sent events of the study and its trials: `id`, `event` (the type) and `data` (JSON).

    A stream ends with its study, at the latest after an hour; a client that comes again with the
    last `id` misses nothing and hears nothing twice. Comments every 15 s keep it open.
    """
    chosen = EventFilter(study_id, type)
    return await _stream(context, chosen, after, last, last_event_id, follow=follow)


@router.get(
    "/events",
    summary="Follow everything",
    response_class=Response,
    responses={**errors(422), **_STREAM},
)
async def follow_everything(
    context: Context,
    after: After = None,
    last: Last = None,
    last_event_id: LastEventId = None,
    type: Types = [],  # noqa: B006
    label: LabelFilters = [],  # noqa: B006
    follow: Follow = True,
) -> Response:
    """Server-sent events of all studies and schedules, as for one study; it ends with the server,
    or after an hour. `label` looks at the labels of an event's study.

    Events are kept for `BERTUNE_EVENT_DAYS`. When some after the `id` that a client names may be
    gone, the first event is a `reset` that says so.
    """
    labels = [label_filter(text) for text in label]
    chosen = EventFilter(None, type, labels)
    return await _stream(context, chosen, after, last, last_event_id, follow=follow)


async def _stream(
    context: Context,
    chosen: EventFilter,
    after: int | None,
    last: int | None,
    last_event_id: str | None,
    *,
    follow: bool,
) -> Response:
    if after is not None and last is not None:
        detail = "Say `after` or `last`, not both: each says where the stream begins."
        raise EventIdError(detail, where=["query", "last"])
    if last_event_id:
        after = _event_id(last_event_id)
    opening = await to_thread.run_sync(
        lambda: open_stream(context, chosen, after, last=last, past_only=not follow)
    )
    if opening.is_over:
        return Response(status_code=204)
    return EventStreamResponse(frames(context, chosen, opening))


def _event_id(text: str) -> int:
    if not (text.isascii() and text.isdigit() and int(text) <= MOST_ID):
        detail = f"Last-Event-ID is the id of an event, a whole number; got {text[:40]!r}."
        raise EventIdError(detail, where=["header", "last-event-id"])
    return int(text)
