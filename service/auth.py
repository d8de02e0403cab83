"""Keys on every route: pure ASGI middleware around the API, the docs and the mounted dashboard.

FastAPI dependencies do not reach a mounted application, so the check stands outside of routing.
There is no keyless mode. A browser carries a session cookie instead of a key.
"""

import json
import threading
import time
from collections.abc import Callable
from urllib.parse import quote, urlsplit

from anyio import to_thread
from fastapi import FastAPI
from sqlalchemy.exc import SQLAlchemyError
from starlette.datastructures import Headers
from starlette.requests import cookie_parser
from starlette.types import ASGIApp, Receive, Scope, Send

from service.errors import DatabaseUnavailableError, ServiceError, UnauthorizedError
from service.store.clock import moment
from service.store.database import Database
from service.store.keys import Identity, hash_secret, identify_key, identify_session
from service.store.outage import is_unavailable

SESSION_COOKIE = "bertune_session"
OPEN_PATHS = frozenset(
    # Editors that fetch a schema send no key, and it tells nothing that the project does not.
    {"/healthz", "/readyz", "/login", "/v1/schemas/study.json", "/v1/schemas/schedule.json"}
)
SAFE_METHODS = frozenset({"GET", "HEAD", "OPTIONS"})
CACHE_S = 3.0
"""How long an identity is trusted without a look at the database: revoking takes this long."""
MAX_CACHED = 10_000


class ForbiddenError(ServiceError):
    status = 403
    code = "cross_origin"


class Keyring:
    """Tells whose a secret is. Known ones are remembered for a moment; unknown ones never are, so
    that a new key works at once."""

    def __init__(self, database: Database, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._database = database
        self._clock = clock
        self._lock = threading.Lock()
        self._known: dict[tuple[str, str], tuple[float, Identity]] = {}

    async def identify(self, kind: str, secret: str) -> Identity | None:
        """``kind`` is ``key`` or ``session``."""
        entry = (kind, hash_secret(secret))
        with self._lock:
            expires_at, identity = self._known.get(entry, (0.0, None))
        if identity is not None and self._clock() < expires_at:
            return identity
        return await to_thread.run_sync(self._look_up, entry)

    def _look_up(self, entry: tuple[str, str]) -> Identity | None:
        kind, sha256 = entry
        with self._database.reading() as session:
            if kind == "key":
                identity = identify_key(session, sha256)
            else:
                identity = identify_session(session, sha256, moment(session))
        with self._lock:
            if identity is None:
                self._known.pop(entry, None)
                return None
            if len(self._known) >= MAX_CACHED:
                self._known.clear()
            self._known[entry] = (self._clock() + CACHE_S, identity)
        return identity


class KeyMiddleware:
    """Lets a request through when it carries a valid key or session; see `install_auth`."""

    def __init__(self, app: ASGIApp, keyring: Keyring) -> None:
        self.app = app
        self._keyring = keyring

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan" or scope["path"] in OPEN_PATHS:
            await self.app(scope, receive, send)
            return
        try:
            identity = await self._check(scope)
        except ServiceError as error:
            await _refuse(scope, send, error)
            return
        except SQLAlchemyError as error:
            # The application's own answers to errors lie inside of this.
            if not is_unavailable(error):
                raise
            await _refuse(scope, send, DatabaseUnavailableError())
            return
        scope.setdefault("state", {})["identity"] = identity
        await self.app(scope, receive, send)

    async def _check(self, scope: Scope) -> Identity:
        headers = Headers(scope=scope)
        scheme, _, secret = headers.get("authorization", "").partition(" ")
        if scheme.lower() == "bearer" and secret.strip():
            identity = await self._keyring.identify("key", secret.strip())
            if identity is None:
                raise UnauthorizedError("This key is unknown or revoked.")
            return identity
        cookie = cookie_parser(headers.get("cookie", "")).get(SESSION_COOKIE)
        identity = await self._keyring.identify("session", cookie) if cookie else None
        if identity is None:
            raise UnauthorizedError(
                "Send a key as 'Authorization: Bearer KEY' or log in at /login."
            )
        # A browser sends its cookie along with requests that other sites make it send.
        unsafe = scope["type"] == "websocket" or scope["method"] not in SAFE_METHODS
        if unsafe and not is_same_origin(headers):
            raise ForbiddenError("A logged-in browser may only write from this server's own pages.")
        return identity


def is_same_origin(headers: Headers, *, unknown: bool = False) -> bool:
    """Whether a page of this server made the request, by `Sec-Fetch-Site`, else by `Origin`.

    ``unknown`` is the answer when the client sent neither. Same-site is not enough: another port
    of the same host is another server.
    """
    site = headers.get("sec-fetch-site")
    if site is not None:
        return site in ("same-origin", "none")
    origin = headers.get("origin")
    if origin is None:
        return unknown
    return urlsplit(origin).netloc == headers.get("host")


def install_auth(app: FastAPI, database: Database) -> None:
    """Put the key check around everything ``app`` serves. Call it last: outermost runs first.

    Behind it, ``request.state.identity`` is the caller's `Identity`.
    """
    app.add_middleware(KeyMiddleware, keyring=Keyring(database))


async def _refuse(scope: Scope, send: Send, error: ServiceError) -> None:
    if scope["type"] == "websocket":
        await send({"type": "websocket.close", "code": 1008, "reason": error.code})
    elif error.status == UnauthorizedError.status and _is_browser_page(scope):
        await _answer(send, 303, b"", {"location": _login_address(scope)})
    else:
        body = {"error": error.code, "detail": error.detail, "where": error.where}
        headers = {"content-type": "application/json"}
        if error.status == UnauthorizedError.status:
            headers["www-authenticate"] = "Bearer"
        if isinstance(error, DatabaseUnavailableError):
            headers["retry-after"] = str(error.retry_after_s)
        await _answer(send, error.status, json.dumps(body).encode(), headers)


def _is_browser_page(scope: Scope) -> bool:
    headers = Headers(scope=scope)
    return (
        scope["method"] in ("GET", "HEAD")
        and "text/html" in headers.get("accept", "")
        and "authorization" not in headers
    )


def _login_address(scope: Scope) -> str:
    target = scope["path"]
    if scope.get("query_string"):
        target += "?" + scope["query_string"].decode("latin-1")
    return "/login" if target == "/" else f"/login?next={quote(target, safe='')}"


async def _answer(send: Send, status: int, body: bytes, headers: dict[str, str]) -> None:
    fields = {**headers, "content-length": str(len(body)), "cache-control": "no-store"}
    raw = [(name.encode(), value.encode("latin-1")) for name, value in fields.items()]
    await send({"type": "http.response.start", "status": status, "headers": raw})
    await send({"type": "http.response.body", "body": body})
