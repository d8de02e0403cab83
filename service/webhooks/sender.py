"""The thread that sends webhooks: many at a time, few to one receiver, so that none waits for
another's slow one."""

import asyncio
import logging
import threading
import time
from collections import Counter
from contextlib import suppress

from sqlalchemy.exc import SQLAlchemyError

from service.context import ServerContext
from service.store.clock import now_s
from service.store.deliveries import Job, Recorded, claim_due, record_attempt, webhooks_due
from service.webhooks.addresses import AllowedPlaces
from service.webhooks.fan_out import FanOut
from service.webhooks.posting import post
from studies.webhooks import (
    ATTEMPT_HEADER,
    DELIVERY_HEADER,
    EVENT_HEADER,
    SIGNATURE_HEADER,
    sign,
)

logger = logging.getLogger(__name__)

LOOK_S = 0.5
EACH = 4
"""So many attempts at a time to one webhook, from each server."""
MOST = 100


async def attempt(job: Job, allowed: AllowedPlaces) -> Recorded:
    """Send one delivery once. Raises nothing."""
    body = job.body.encode()
    headers = {
        "Content-Type": job.content_type,
        EVENT_HEADER: job.event_type,
        DELIVERY_HEADER: job.delivery_id,
        ATTEMPT_HEADER: str(job.attempt),
        SIGNATURE_HEADER: sign(body, job.target.secret, int(time.time())),
    }
    outcome = await post(job.target.url, headers, body, allowed)
    return Recorded(outcome.status, outcome.latency_ms, outcome.error, outcome.retry_after_s)


class WebhookSender:
    """Sends what is due between `start` and `stop`; every server has one. What `stop` cuts off is
    sent again, under the same id, by whatever server looks next."""

    def __init__(self, context: ServerContext) -> None:
        self._context = context
        self._fan_out = FanOut(context)
        self._allowed = AllowedPlaces.parse(context.settings.webhook_private)
        self._under_way: dict[asyncio.Task[None], str] = {}
        self._failing = False
        self._stopping = threading.Event()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._wake = asyncio.Event()
        self._thread = threading.Thread(target=self._run, name="webhooks", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        self._stopping.set()
        if self._loop is not None:
            with suppress(RuntimeError):  # it was over already
                self._loop.call_soon_threadsafe(self._wake.set)
        if self._thread.is_alive():
            self._thread.join()

    def _run(self) -> None:
        asyncio.run(self._main())

    async def _main(self) -> None:
        self._loop = asyncio.get_running_loop()
        while not self._stopping.is_set():
            self._wake.clear()
            for job in await asyncio.to_thread(self._look, self._counts()):
                task = asyncio.create_task(self._deliver(job))
                self._under_way[task] = job.webhook_id
                task.add_done_callback(self._done)
            try:
                await asyncio.wait_for(self._wake.wait(), LOOK_S)
            except TimeoutError:
                continue
        for task in list(self._under_way):
            task.cancel()
        await asyncio.gather(*self._under_way, return_exceptions=True)

    def _counts(self) -> Counter[str]:
        return Counter(self._under_way.values())

    def _done(self, task: asyncio.Task[None]) -> None:
        del self._under_way[task]
        self._wake.set()  # its webhook may have more

    def _look(self, under_way: Counter[str]) -> list[Job]:
        """Queue what is new and claim what is due."""
        try:
            self._fan_out.step()
            with self._context.database.reading() as session:
                is_due = bool(webhooks_due(session, now_s(session)))
            if not is_due:
                self._failing = False
                return []
            with self._context.database.transaction() as session:
                jobs = claim_due(session, under_way, each=EACH, most=MOST - under_way.total())
            self._failing = False
        except SQLAlchemyError as error:
            if not self._failing:
                logger.warning("webhooks wait: %s", error)
            self._failing = True
        except Exception:  # the next look may go well
            logger.exception("looking for webhooks failed")
        else:
            return jobs
        return []

    async def _deliver(self, job: Job) -> None:
        outcome = await attempt(job, self._allowed)
        try:
            await asyncio.to_thread(self._record, job, outcome)
        except Exception:  # it is sent again, under the same id
            logger.exception("delivery %s was sent and not recorded", job.delivery_id)

    def _record(self, job: Job, outcome: Recorded) -> None:
        first_delay_s = self._context.settings.webhook_retry_s
        with self._context.database.transaction() as session:
            record_attempt(session, job, outcome, first_delay_s=first_delay_s)
        if outcome.error is not None:
            logger.info("delivery %s, attempt %d: %s", job.delivery_id, job.attempt, outcome.error)
