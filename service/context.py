"""What a running server holds: built once by `service.app`, reached by routes through `Depends`."""

from dataclasses import dataclass, field
from typing import Annotated, cast

from fastapi import Depends, Request

from service.events.feed import EventFeed
from service.folders import Folders
from service.intake.models import ModelCatalogue
from service.queue.dispatch import Dispatcher
from service.settings import Settings
from service.store.database import Database
from service.waking import Waker
from studies.search.adapter import OptunaAdapter


@dataclass(frozen=True, slots=True)
class ServerContext:
    settings: Settings
    database: Database
    folders: Folders
    models: ModelCatalogue
    optuna: OptunaAdapter
    dispatcher: Dispatcher
    waker: Waker
    feed: EventFeed = field(default_factory=EventFeed)

    def release_polls(self) -> None:
        """Let long polls and streams go: the server is shutting down."""
        self.waker.close()
        self.feed.close()


async def _context(request: Request) -> ServerContext:
    # Asynchronous although it waits for nothing: FastAPI calls others on a thread of their own.
    return cast(ServerContext, request.app.state.context)


Context = Annotated[ServerContext, Depends(_context)]
"""Annotation for a route's parameter: ``def route(context: Context)``."""
