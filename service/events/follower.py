"""The thread that reads new events from the database into the feed of this server."""

import logging
import threading
from dataclasses import dataclass

from sqlalchemy.exc import SQLAlchemyError

from service.events.feed import EventFeed, FeedEvent
from service.events.frames import event_frame
from service.store.database import Database
from service.store.event_filter import EventFilter
from service.store.event_log import newest_id, read_events, writers

logger = logging.getLogger(__name__)

LOOK_S = 0.25
SETTLE_S = 0.02
"""How soon to look again whether transactions that write events are over: most last that long."""
PAGE = 500
_ALL = EventFilter()


@dataclass(frozen=True, slots=True)
class _Unsettled:
    """Events up to ``newest`` have all appeared once these transactions are over."""

    newest: int
    writers: frozenset[str]


class EventFollower:
    """Follows the log between `start` and `stop`; every server has one."""

    def __init__(self, database: Database, feed: EventFeed) -> None:
        self._database = database
        self._feed = feed
        self._unsettled: _Unsettled | None = None
        self._failing = False
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._run, name="events", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        """Return once the step under way, if any, is through."""
        self._stopping.set()
        if self._thread.is_alive():
            self._thread.join()

    def step(self) -> bool:
        """Take in what is new; False while transactions are open that may add to it."""
        unsettled = self._unsettled or self._look()
        if unsettled is None:
            return True
        open_writers: frozenset[str] = frozenset()
        if unsettled.writers:
            with self._database.reading() as session:
                open_writers = writers(session) & unsettled.writers
        if open_writers:
            self._unsettled = _Unsettled(unsettled.newest, open_writers)
            return False
        self._take(unsettled.newest)
        self._unsettled = None
        return True

    def _look(self) -> _Unsettled | None:
        with self._database.reading() as session:
            newest = newest_id(session)
            if newest <= (-1 if self._feed.safe is None else self._feed.safe):
                return None
            return _Unsettled(newest, writers(session))

    def _take(self, newest: int) -> None:
        """Read up to ``newest``, a page at a time; the first time nothing before it matters."""
        place = self._feed.safe
        if place is None:
            self._feed.advance([], newest)
            return
        while place < newest:
            with self._database.reading() as session:
                page = read_events(session, _ALL, after=place, up_to=newest, limit=PAGE)
            place = page[-1].answer.id if len(page) == PAGE else newest
            self._feed.advance([FeedEvent(seen, event_frame(seen.answer)) for seen in page], place)

    def _run(self) -> None:
        wait_s = 0.0
        while not self._stopping.wait(wait_s):
            wait_s = LOOK_S
            try:
                if not self.step():
                    wait_s = SETTLE_S
                self._failing = False
            except SQLAlchemyError as error:
                if not self._failing:
                    logger.warning("events are not followed: %s", error)
                self._failing = True
            except Exception:  # the next look may go well
                logger.exception("following events failed")
