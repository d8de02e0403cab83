"""Wires the server together: `create_app` is all that a process needs to serve Bertune."""

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from functools import partial
from importlib.metadata import PackageNotFoundError, version
from typing import Protocol

from anyio import to_thread
from fastapi import FastAPI
from fastapi.routing import APIRoute

from service.admin_key import ensure_admin_key
from service.auth import install_auth
from service.context import ServerContext
from service.events.follower import EventFollower
from service.folders import Folders
from service.intake.models import ModelCatalogue
from service.pages.api_docs import mount_api_docs
from service.pages.dashboard import mount_dashboard
from service.queue.dispatch import Dispatcher
from service.queue.heartbeat import Heartbeat, beat_every_s
from service.queue.reconciler import Reconciler
from service.routes import (
    datasets,
    events,
    health,
    leases,
    login,
    models,
    schedules,
    schemas,
    studies,
    trials,
    webhooks,
    workers,
)
from service.routes.documented import errors
from service.routes.error_answers import install_error_answers
from service.schedules.scheduler import Scheduler
from service.settings import Settings
from service.store.database import Database
from service.store.patience import outlast
from service.store.pulse import give_back_downtime
from service.store.schema import upgrade
from service.waking import Waker
from service.webhooks.sender import WebhookSender
from studies.search.adapter import OptunaAdapter

DESCRIPTION = (
    "Hyperparameter search for BERT models. Send a key as `Authorization: Bearer KEY`. "
    "Errors read `{error, detail, where}`; lists read `{items, next_cursor}`."
)

ROUTES = (
    login,
    datasets,
    models,
    studies,
    trials,
    events,
    webhooks,
    schedules,
    leases,
    workers,
)
"""In the order of the API's page."""

MISSED_BEATS = 3
"""So many in a row, and a server stood still."""


def _own_version() -> str:
    """A checkout that is run as it is, as benchmarks may, was never installed and has none."""
    try:
        return version("bertune")
    except PackageNotFoundError:
        return "0+checkout"


def create_app(settings: Settings) -> FastAPI:
    """Build the server. Its database is migrated, and its background work runs, between the
    start and the end of the application's lifespan."""
    context = build_context(settings)
    app = FastAPI(
        title="Bertune",
        version=_own_version(),
        description=DESCRIPTION,
        docs_url=None,  # `service.pages.api_docs` serves it without foreign scripts
        redoc_url=None,
        openapi_url="/v1/openapi.json",
        openapi_tags=[
            {"name": tag} for module in (health, schemas, *ROUTES) for tag in module.router.tags
        ],
        lifespan=_lifespan,
        generate_unique_id_function=_operation_id,
    )
    app.state.context = context
    app.include_router(health.router)
    app.include_router(schemas.router)
    # Routes are tried one by one: first those that workers ask for with every epoch.
    for module in sorted(ROUTES, key=lambda module: module is not leases):
        # Anything may answer these two, and the framework would document a 422 of its own.
        app.include_router(module.router, responses=errors(422))
    mount_api_docs(app)
    install_error_answers(app)
    mount_dashboard(app, context.optuna)
    install_auth(app, context.database)
    return app


def build_context(settings: Settings) -> ServerContext:
    """Open the database and everything that stands on it; makes the home folder."""
    settings.home.mkdir(parents=True, exist_ok=True)
    folders = Folders(settings.home.resolve())
    database = Database(settings.resolved_database_url)
    optuna = OptunaAdapter(database.url, forbid=database.forbid_transaction)
    waker = Waker()
    return ServerContext(
        settings=settings,
        database=database,
        folders=folders,
        models=ModelCatalogue(settings.model_dirs),
        optuna=optuna,
        dispatcher=Dispatcher(database, optuna, settings, folders, waker),
        waker=waker,
    )


def _operation_id(route: APIRoute) -> str:
    return route.name


class Background(Protocol):
    """A thread of the server's."""

    def start(self) -> None: ...

    def stop(self) -> None:
        """Return once what is under way is through."""


@asynccontextmanager
async def _lifespan(app: FastAPI) -> AsyncIterator[None]:
    context: ServerContext = app.state.context
    threads = await to_thread.run_sync(_start, context)
    try:
        yield
    finally:
        context.release_polls()
        await to_thread.run_sync(_stop, context, threads)


def _start(context: ServerContext) -> Sequence[Background]:
    database, settings = context.database, context.settings
    beat_s = beat_every_s(settings.lease_s)
    give_back = partial(give_back_downtime, beat_s=beat_s)

    def prepare() -> None:
        upgrade(database)
        ensure_admin_key(database, settings.admin_key_file)
        with database.transaction() as session:
            give_back(session)  # workers could not renew while no server ran

    outlast(prepare)
    # Nor while the database was away, or this process stood still and missed its beats.
    database.after_outage(give_back, longest_silence_s=MISSED_BEATS * beat_s)
    threads = (
        Scheduler(context),
        Reconciler(context),
        EventFollower(database, context.feed),
        WebhookSender(context),
        Heartbeat(database, settings.lease_s),
    )
    for thread in threads:
        thread.start()
    return threads


def _stop(context: ServerContext, threads: Sequence[Background]) -> None:
    for thread in threads:
        thread.stop()
    context.dispatcher.close()
    context.optuna.close()
    context.database.dispose()
