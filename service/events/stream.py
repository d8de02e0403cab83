"""One stream of events: from where its client stopped, through the database, to what is new."""

import asyncio
import logging
from collections.abc import AsyncIterator
from dataclasses import dataclass

from anyio import to_thread
from sqlalchemy.exc import SQLAlchemyError

from service.context import ServerContext
from service.errors import NotFoundError
from service.events.feed import FeedEvent
from service.events.frames import RETRY, beat_frame, event_frame, reset_frame
from service.store.event_filter import EventFilter
from service.store.event_log import newest_id, place_before_last, read_events, removed_to
from service.store.studies import get_study
from studies.states import STUDY_ENDED
from studies.wire.events import STUDY_END_EVENTS

logger = logging.getLogger(__name__)

BEAT_S = 15.0
LONGEST_S = 3600.0
"""Then the client comes again, and its key is checked again."""
PAGE = 500


@dataclass(frozen=True, slots=True)
class Opening:
    """Where a stream begins. ``reset`` says why events before may be missing."""

    place: int
    newest: int
    """The newest event of all at that moment."""
    reset: str | None = None
    ends_at: int | None = None
    """The last event of a study that has ended."""
    past_only: bool = False
    """Whether the stream ends where it would begin to wait."""

    @property
    def is_over(self) -> bool:
        """Whether nothing will come."""
        ends = [self.ends_at, self.newest if self.past_only else None]
        return self.reset is None and any(end is not None and end <= self.place for end in ends)


def open_stream(
    context: ServerContext,
    chosen: EventFilter,
    after: int | None,
    *,
    last: int | None = None,
    past_only: bool = False,
) -> Opening:
    """Find where to begin: after an event, with ``after`` 0 at the oldest; else so that the newest
    ``last`` come; else now.

    Raises `NotFoundError` ``unknown_study``.
    """
    study_id = chosen.study_id
    with context.database.reading() as session:
        if study_id is not None:
            get_study(session, study_id)
        newest, removed = newest_id(session), removed_to(session)
        place, reset = (newest if after is None else after), None
        if after is None and last is not None:
            place = max(place_before_last(session, chosen, last), removed)
        if 0 < place < removed:
            reset = f"Events up to {removed} were removed by their age; some may be missing here."
            place = removed
        elif place > newest:
            reset = f"There is no event {place}: this is another database, or an older copy of it."
            place = newest
    return Opening(place, newest, reset, _end_of(context, study_id), past_only)


def _end_of(context: ServerContext, study_id: str | None) -> int | None:
    if study_id is None:
        return None
    with context.database.reading() as session:
        try:
            study = get_study(session, study_id)
        except NotFoundError:  # deleted since the stream began
            return newest_id(session, study_id)
        return newest_id(session, study_id) if study.state in STUDY_ENDED else None


async def frames(
    context: ServerContext, chosen: EventFilter, opening: Opening
) -> AsyncIterator[bytes]:
    """The stream's bytes. It ends with its study, with the server, or after `LONGEST_S`."""
    stream = _Stream(context, chosen, opening)
    # The place, so that a client that hears no event before it is cut off misses none either.
    yield RETRY + beat_frame(opening.place)
    if opening.reset is not None:
        yield reset_frame(opening.place, opening.reset)
    loop = asyncio.get_running_loop()
    sent_at = loop.time()
    until = sent_at + LONGEST_S
    while not context.feed.closed and loop.time() < until:
        try:
            chunk = await stream.next_chunk()
        except SQLAlchemyError as error:  # the client comes again, and is told
            logger.warning("a stream of events ends: %s", error)
            return
        if not chunk and loop.time() >= sent_at + BEAT_S:
            chunk = beat_frame(stream.place)
        if chunk:
            sent_at = loop.time()
            yield chunk
        if stream.is_over:
            return
        if not stream.is_behind:
            await context.feed.wait_beyond(stream.place, sent_at + BEAT_S - loop.time())


class _Stream:
    """Where a stream stands."""

    def __init__(self, context: ServerContext, chosen: EventFilter, opening: Opening) -> None:
        self._context = context
        self._chosen = chosen
        self._known_to = opening.newest
        self._past_only = opening.past_only
        self._ends_at = opening.ends_at
        self.place = opening.place
        self.is_behind = False
        self._ended = False

    @property
    def is_over(self) -> bool:
        """Whether its study is, and everything of it was sent; or all that had happened was."""
        if self._past_only and self.place >= self._known_to:
            return True
        return self._ended or (self._ends_at is not None and self._ends_at <= self.place)

    async def next_chunk(self) -> bytes:
        """The frames of the next events, empty for none; moves on."""
        safe = self._context.feed.safe
        events = self._context.feed.since(self.place)
        if events is None:
            return await self._from_database()
        self.is_behind = False
        if not events:  # the newest may have been removed with its study
            self.place = max(self.place, safe or 0)
            return b""
        self.place = events[-1].id
        return self._join(events, live=True)

    async def _from_database(self) -> bytes:
        safe = self._context.feed.safe
        if safe is None:  # a moment after the server's start
            self.is_behind = False
            return b""
        page = await to_thread.run_sync(self._read, self.place, safe)
        self.is_behind = True
        self.place = page[-1].id if len(page) == PAGE else safe
        if len(page) < PAGE:
            self._ends_at = await to_thread.run_sync(_end_of, self._context, self._chosen.study_id)
        return self._join(page, live=False)

    def _read(self, after: int, up_to: int) -> list[FeedEvent]:
        with self._context.database.reading() as session:
            page = read_events(session, self._chosen, after=after, up_to=up_to, limit=PAGE)
        return [FeedEvent(seen, event_frame(seen.answer)) for seen in page]

    def _join(self, events: list[FeedEvent], *, live: bool) -> bytes:
        chosen = [event for event in events if self._chosen.admits(event.seen)]
        if live and self._chosen.study_id is not None:
            for event in events:
                # An end that the study had behind it at the beginning was followed by an `extend`.
                if (
                    event.id > self._known_to
                    and event.seen.answer.study_id == self._chosen.study_id
                ):
                    self._heed(event.seen.answer.type)
        return b"".join(event.frame for event in chosen)

    def _heed(self, kind: str) -> None:
        if kind == "study.queued":
            self._ended, self._ends_at = False, None
        elif kind in STUDY_END_EVENTS or kind == "study.deleted":
            self._ended = True
