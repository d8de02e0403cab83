"""Wires the server together: `create_app` is all that a process needs to serve Bertune."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from importlib.metadata import version

from anyio import to_thread
from fastapi import FastAPI, Request
from starlette.exceptions import HTTPException
from starlette.routing import Match

from service.auth import install_auth
from service.context import ServerContext
from service.dashboard import mount_dashboard
from service.dispatch import Dispatcher
from service.error_answers import install_error_answers
from service.folders import Folders
from service.models import ModelCatalogue
from service.reconciler import Reconciler
from service.routes import datasets, health, leases, login, models, studies, trials, workers
from service.settings import Settings
from service.store.database import Database
from service.store.leases import extend_all_leases
from service.store.schema import upgrade
from service.waking import Waker
from studies.optuna_adapter import OptunaAdapter

ROUTERS = (
    health.router,
    login.router,
    datasets.router,
    models.router,
    studies.router,
    trials.router,
    leases.router,
    workers.router,
)
