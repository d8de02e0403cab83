"""The thread that looks for due schedules; every server has one, and none depends on another."""

import logging
import threading
import time
from collections.abc import Callable
from functools import partial

from sqlalchemy.exc import SQLAlchemyError

from service.context import ServerContext
from service.schedules.champion import decide_champions
from service.schedules.tick import deal_with, reads_data, schedules_due

logger = logging.getLogger(__name__)

STOP_S = 5.0
"""How long a stop waits for files that are being read; the next server reads them anew."""


class Scheduler:
    """Ticks every ``settings.schedule_s`` seconds between `start` and `stop`. Data of due fires
    are read, and champions compared, in threads of their own, so that no schedule is late for
    another's."""

    def __init__(self, context: ServerContext) -> None:
        self._context = context
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._run, name="scheduler", daemon=True)
        self._lent: dict[str, threading.Thread] = {}

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        """Return once the tick under way, if any, is through."""
        self._stopping.set()
        if self._thread.is_alive():
            self._thread.join()
        until = time.monotonic() + STOP_S
        for thread in self._lent.values():
            thread.join(max(0.0, until - time.monotonic()))

    def _run(self) -> None:
        while not self._stopping.wait(self._context.settings.schedule_s):
            try:
                self._look()
            except SQLAlchemyError as error:
                logger.warning("due schedules are not known: %s", error)
            except Exception:  # the next look may go well
                logger.exception("looking for due schedules failed")

    def _look(self) -> None:
        self._lent = {what: thread for what, thread in self._lent.items() if thread.is_alive()}
        for schedule in schedules_due(self._context):
            if reads_data(schedule):
                self._lend(schedule.id, partial(deal_with, self._context, schedule))
            else:
                deal_with(self._context, schedule)
        self._lend("champions", self._decide)

    def _decide(self) -> None:
        try:
            decide_champions(self._context)
        except SQLAlchemyError as error:
            logger.warning("champions are not decided: %s", error)

    def _lend(self, what: str, work: Callable[[], object]) -> None:
        """Have ``work`` done in a thread of its own, unless that of an earlier look still is."""
        if what not in self._lent:
            thread = threading.Thread(target=work, name=f"schedule-{what}", daemon=True)
            self._lent[what] = thread
            thread.start()
