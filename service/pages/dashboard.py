"""Optuna's web pages inside our server, for looking only.

The pages have addresses of their own at the root (`/dashboard`, `/api`, …), no log-in and no
read-only mode. So exactly those addresses are routed to them, behind our own keys like everything
else, and requests that would change something are refused: our tables would not know.
"""

import json
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, cast

from a2wsgi import WSGIMiddleware
from a2wsgi.wsgi_typing import WSGIApp
from sqlalchemy.exc import SQLAlchemyError
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import RedirectResponse
from starlette.routing import Route

from service.errors import DatabaseUnavailableError
from service.store.outage import is_unavailable
from studies.search.adapter import OptunaAdapter

if TYPE_CHECKING:
    from wsgiref.types import StartResponse, WSGIApplication, WSGIEnvironment

PATHS = (
    "/dashboard",
    "/dashboard/{path:path}",
    "/api/{path:path}",
    "/static/{path:path}",
    "/csv/{path:path}",
    "/favicon.ico",
)
READING = ("/api/", "/csv/")
"""Those that read studies; the others are files."""
THREADS = 4


def mount_dashboard(app: Starlette, adapter: OptunaAdapter) -> None:
    """Serve the pages under their own addresses; the root leads to them.

    They are plain routes, not a mount at the root, so that an unknown address or a wrong method
    under `/v1` keeps its own answer.
    """
    guarded = while_available(read_only(adapter.wsgi_app()), adapter.check_storage)
    # The same protocol, typed twice.
    pages = WSGIMiddleware(cast(WSGIApp, guarded), workers=THREADS)
    app.router.routes.append(Route("/", _to_dashboard, include_in_schema=False))
    app.router.routes.extend(Route(path, pages, include_in_schema=False) for path in PATHS)


def read_only(app: "WSGIApplication") -> "WSGIApplication":
    """The pages without their writes: those are answered 403, in their JSON and in ours."""

    def guarded(environ: "WSGIEnvironment", start_response: "StartResponse") -> Iterable[bytes]:
        if environ["REQUEST_METHOD"] not in ("GET", "HEAD"):
            return _refuse(start_response)
        # The pages read this header without asking whether it came, and their compressed icon lacks
        # the one that says so.
        if environ["PATH_INFO"] == "/favicon.ico" or "HTTP_ACCEPT_ENCODING" not in environ:
            environ["HTTP_ACCEPT_ENCODING"] = "identity"
        return app(environ, start_response)

    return guarded


def while_available(app: "WSGIApplication", check: Callable[[], None]) -> "WSGIApplication":
    """The pages, answering 503 while the database is away; they would make 500 of it themselves."""

    def guarded(environ: "WSGIEnvironment", start_response: "StartResponse") -> Iterable[bytes]:
        try:
            if environ["PATH_INFO"].startswith(READING):
                check()
        except SQLAlchemyError as error:
            if not is_unavailable(error):
                raise
            away = DatabaseUnavailableError()
            return _answer(start_response, "503 Service Unavailable", away.code, away.detail)
        return app(environ, start_response)

    return guarded


def _refuse(start_response: "StartResponse") -> Iterable[bytes]:
    detail = "These pages only show studies; change them with the command line or under /v1."
    return _answer(start_response, "403 Forbidden", "read_only_pages", detail)


def _answer(
    start_response: "StartResponse", status: str, code: str, detail: str
) -> Iterable[bytes]:
    """An error in their JSON and in ours."""
    answer = {"error": code, "detail": detail, "where": [], "reason": detail}
    start_response(status, [("Content-Type", "application/json")])
    return [json.dumps(answer).encode()]


async def _to_dashboard(_request: Request) -> RedirectResponse:
    return RedirectResponse("/dashboard")
