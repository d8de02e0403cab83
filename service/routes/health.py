"""Liveness, readiness and metrics."""

from fastapi import APIRouter
from fastapi.responses import PlainTextResponse
from sqlalchemy import text
from sqlalchemy.exc import SQLAlchemyError
from starlette.responses import JSONResponse, Response

from service.context import Context
from service.routes.documented import errors
from service.routes.prometheus import render_metrics
from studies.wire.base import ErrorAnswer

router = APIRouter(tags=["health"])


@router.get("/healthz", summary="Is the process alive", response_class=PlainTextResponse)
async def healthz() -> str:
    """Answers without a key, without a look at the database, and without one of the threads, which
    may all be waiting for it."""
    return "ok\n"


@router.get(
    "/readyz",
    summary="Is the server ready",
    responses={503: {"model": ErrorAnswer, "description": "The database does not answer"}},
)
def readyz(context: Context) -> JSONResponse:
    """Ready means that the database answers. Needs no key."""
    try:
        with context.database.reading() as session:
            session.execute(text("SELECT 1"))
    except SQLAlchemyError as error:
        reason = type(error).__name__
        body = ErrorAnswer(error="not_ready", detail=f"The database does not answer ({reason}).")
        return JSONResponse(body.model_dump(), status_code=503)
    return JSONResponse({"status": "ready"})


@router.get(
    "/metrics",
    summary="Gauges for Prometheus",
    response_class=Response,
    responses=errors() | {200: {"content": {"text/plain": {}}, "description": "Gauges"}},
)
def metrics(context: Context) -> Response:
    """Studies, trials and workers by state; bytes stored, and bytes free on the disk."""
    with context.database.reading() as session:
        body = render_metrics(session, context.folders.home)
    return Response(body, media_type="text/plain; version=0.0.4; charset=utf-8")
