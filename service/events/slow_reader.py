"""An answer that goes on for hours, cut off when its reader stops reading."""

import asyncio
import logging
from collections.abc import Mapping

from starlette.responses import StreamingResponse
from starlette.types import Message, Receive, Scope, Send

logger = logging.getLogger(__name__)

_HEADERS = {"Cache-Control": "no-store", "X-Accel-Buffering": "no"}
"""No cache keeps it, and no proxy collects events before it passes them on."""
SEND_S = 30.0
"""A reader that takes nothing for so long is gone, or holds memory here for nothing."""


class EventStreamResponse(StreamingResponse):
    """Server-sent events. The reader that was cut off resumes by its Last-Event-ID."""

    media_type = "text/event-stream"

    def init_headers(self, headers: Mapping[str, str] | None = None) -> None:
        super().init_headers({**(headers or {}), **_HEADERS})

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        async def timed(message: Message) -> None:
            await asyncio.wait_for(send(message), SEND_S)

        try:
            await super().__call__(scope, receive, timed)
        except TimeoutError:
            logger.warning("a stream of events was cut off: its reader takes nothing")
