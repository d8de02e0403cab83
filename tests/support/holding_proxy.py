"""A proxy before a real server that holds back one call of each trial, as a bad network would.

Which call is said by the name of the trial's study: ``renewal``, ``progress``, ``checkpoint``,
``artifact`` or ``result``. So a test can have a worker lose its lease in the midst of that call.
"""

import asyncio
import json
import re
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager

import httpx
import uvicorn
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

CALLS = ("renewal", "progress", "checkpoint", "artifact", "result")
LEASE = re.compile(r"/v1/leases/(?P<trial>[^/]+)/\d+(?P<rest>/.*)?")
PASSED_ON = ("authorization", "content-type")
CLOSE_S = 1
HELD_S = 60.0
"""How long a call may be held."""


class HoldingProxy:
    """Passes every call on to ``server``, some of them once `let_go` was called."""

    def __init__(self, server: str) -> None:
        self.answers: dict[str, tuple[int, str | None]] = {}
        """Status and error code that the server gave to each call that was held."""
        self._upstream = server
        self._chosen: dict[str, str] = {}
        """By trial: the call to hold, until it came."""
        self._holding: set[str] = set()
        self._open = threading.Event()
        routes = [Route("/{path:path}", self._pass, methods=["GET", "POST", "PUT"])]
        config = uvicorn.Config(
            Starlette(routes=routes),
            log_level="critical",
            lifespan="off",
            ws="none",
            timeout_graceful_shutdown=CLOSE_S,  # claims wait long for an answer
        )
        self._server = uvicorn.Server(config)
        self._socket = socket.create_server(("127.0.0.1", 0))
        self._thread = threading.Thread(target=self._server.run, args=([self._socket],))

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self._socket.getsockname()[1]}"

    @property
    def holding(self) -> frozenset[str]:
        """The calls that have come and wait here."""
        return frozenset(self._holding)

    def let_go(self) -> None:
        """Pass on what is held, and whatever comes from now on."""
        self._open.set()

    def start(self) -> None:
        self._thread.start()

    def close(self) -> None:
        self._open.set()
        self._server.should_exit = True
        self._thread.join(20)
        self._socket.close()

    async def _pass(self, request: Request) -> Response:
        body = await request.body()
        held = self._held_as(request.method, request.url.path, body)
        if held is not None:
            self._holding.add(held)
            await asyncio.to_thread(self._open.wait, HELD_S)
        headers = {name: request.headers[name] for name in PASSED_ON if name in request.headers}
        async with httpx.AsyncClient(base_url=self._upstream, timeout=HELD_S) as client:
            answer = await client.request(
                request.method, request.url.path, content=body, headers=headers
            )
        self._note(request, held, answer)
        return Response(
            answer.content, answer.status_code, media_type=answer.headers.get("Content-Type")
        )

    def _held_as(self, method: str, path: str, body: bytes) -> str | None:
        """The name under which this call is held; each is once."""
        lease = LEASE.fullmatch(path)
        if lease is None or self._open.is_set():
            return None
        call = _kind(method, lease["rest"] or "", body)
        if call is None or self._chosen.get(lease["trial"]) != call:
            return None
        return self._chosen.pop(lease["trial"])

    def _note(self, request: Request, held: str | None, answer: httpx.Response) -> None:
        if request.url.path == "/v1/leases" and answer.status_code == 200:
            lease = answer.json()
            self._chosen[lease["trial_id"]] = lease["study_name"]
        elif held is not None:
            error = None if answer.is_success else answer.json()["error"]
            self.answers[held] = (answer.status_code, error)


def _kind(method: str, rest: str, body: bytes) -> str | None:
    if (method, rest) == ("PUT", ""):
        said = json.loads(body)
        if said["reports"]:
            return "progress"
        return "renewal" if said["value"] is None else None
    if rest.startswith("/artifacts/checkpoint-"):
        return "checkpoint"
    return {"/artifacts/model.zip": "artifact", "/result": "result"}.get(rest)


@contextmanager
def holding_proxy(server: str) -> Iterator[HoldingProxy]:
    proxy = HoldingProxy(server)
    proxy.start()
    try:
        yield proxy
    finally:
        proxy.close()
