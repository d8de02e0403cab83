"""What a running server holds: built once by `service.app`, reached by routes through `Depends`."""

from dataclasses import dataclass
from typing import Annotated, cast

from fastapi import Depends, Request

from service.folders import Folders
from service.intake.models import ModelCatalogue
from service.queue.dispatch import Dispatcher
from service.settings import Settings
from service.store.database import Database
from service.waking import Waker
from studies.optuna_adapter import OptunaAdapter


@dataclass(frozen=True, slots=True)
class ServerContext:
    settings: Settings
    database: Database
    folders: Folders
    models: ModelCatalogue
    optuna: OptunaAdapter
    dispatcher: Dispatcher
    waker: Waker


def _context(request: Request) -> ServerContext:
    return cast(ServerContext, request.app.state.context)


Context = Annotated[ServerContext, Depends(_context)]
"""Annotation for a route's parameter: ``def route(context: Context)``."""
