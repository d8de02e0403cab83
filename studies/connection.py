"""The HTTP connection to a Bertune server: address, key, and errors with a name.

There are two of it, one that blocks and one that awaits; each does single steps and knows no call.
"""

import os
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass, field
from functools import partial
from inspect import isawaitable
from pathlib import Path
from typing import Any, TypeVar
from urllib.parse import urlsplit

import httpx
from anyio import to_thread

from studies.transfer import OnBytes

T = TypeVar("T")

DEFAULT_SERVER = "http://127.0.0.1:8000"
TIMEOUT = httpx.Timeout(60.0, connect=5.0)
UPLOAD_TIMEOUT = httpx.Timeout(1800.0, connect=5.0)
"""The server reads an upload to its end, and answers only then."""
HUB_TIMEOUT = httpx.Timeout(4000.0, connect=5.0)
"""The server gives up on a hub after an hour, and says so."""


class ClientError(Exception):
    """A call that did not succeed."""


class ApiError(ClientError):
    """The server refused a request. ``code`` is stable; ``where`` is the path to what is wrong."""

    def __init__(
        self, status: int, code: str, detail: str, where: tuple[str | int, ...] = ()
    ) -> None:
        place = ".".join(str(part) for part in where if part != "body")
        super().__init__(f"{detail} ({place})" if place else detail)
        self.status = status
        self.code = code
        self.detail = detail
        self.where = where


class UnreachableError(ClientError):
    """No server answers at this address."""

    def __init__(self, server: str, cause: Exception) -> None:
        super().__init__(
            f"No Bertune server answers at {server} ({cause or type(cause).__name__}). "
            "Start one with 'bertune up', or name another with --server or BERTUNE_SERVER."
        )
        self.server = server
        self.unsent = isinstance(cause, httpx.ConnectError | httpx.ConnectTimeout)
        """Whether it is certain that no server got the request."""


def find_key() -> str | None:
    """The key of this machine's user: BERTUNE_KEY, else the admin key in BERTUNE_HOME."""
    if key := os.environ.get("BERTUNE_KEY", "").strip():
        return key
    path = Path(os.environ.get("BERTUNE_HOME", "bertune-data")) / "admin.key"
    try:
        return path.read_text(encoding="ascii").strip() or None
    except FileNotFoundError:
        return None


@dataclass(frozen=True, slots=True, kw_only=True)
class Request:
    """What is sent, from a path on."""

    method: str
    path: str
    params: Mapping[str, str | int | Sequence[str]] | None = None
    json: Any = None
    data: Mapping[str, str] | None = None
    files: Callable[[], Mapping[str, Any]] | None = None
    """Asked anew for each try, since a file that was sent once is at its end."""
    headers: Mapping[str, str] = field(default_factory=dict)
    timeout: httpx.Timeout | None = None
    """None: `TIMEOUT`."""
    on_bytes: OnBytes | None = None
    """Told of what was fetched."""

    def build(self, client: httpx.Client | httpx.AsyncClient) -> httpx.Request:
        return client.build_request(
            self.method,
            self.path,
            params=self.params,
            json=self.json,
            data=self.data,
            files=None if self.files is None else self.files(),
            headers=self.headers,
            timeout=self.timeout or TIMEOUT,
        )


class Connection:
    """Single requests to one server, while the caller waits."""

    def __init__(
        self,
        server: str | None,
        key: str | None,
        *,
        transport: httpx.BaseTransport | None,
        sleep: Callable[[float], None],
    ) -> None:
        self.server = _address(server)
        self.sleep = sleep
        self._http = httpx.Client(transport=transport, **_options(self.server, key))

    def close(self) -> None:
        self._http.close()

    def send(self, request: Request) -> httpx.Response:
        """The answer, whatever its status. Raises `UnreachableError`."""
        with _named(self.server):
            return self._http.send(request.build(self._http))

    def fetch(self, request: Request, target: Path) -> httpx.Response:
        """The same, but a success's body goes to ``target``."""
        with self.stream(request) as response:
            if not response.is_error:
                with target.open("wb") as file:
                    for chunk in response.iter_bytes():
                        file.write(chunk)
                        _tell(request, response, file.tell())
        return response

    @contextmanager
    def stream(self, request: Request) -> Iterator[httpx.Response]:
        """The same, but a success's body is read inside. Raises `UnreachableError` there, too."""
        with _named(self.server):
            response = self._http.send(request.build(self._http), stream=True)
            try:
                if response.is_error:
                    response.read()
                yield response
            finally:
                response.close()

    def work(self, what: Callable[[], T]) -> T:
        """Do what takes its time without a server."""
        return what()

    def tell(self, what: Callable[[], object]) -> None:
        """Call the caller's own code."""
        what()


class AsyncConnection:
    """Single requests to one server, while the event loop goes on."""

    def __init__(
        self,
        server: str | None,
        key: str | None,
        *,
        transport: httpx.AsyncBaseTransport | None,
        sleep: Callable[[float], Awaitable[None]],
    ) -> None:
        self.server = _address(server)
        self.sleep = sleep
        self._http = httpx.AsyncClient(transport=transport, **_options(self.server, key))

    async def close(self) -> None:
        await self._http.aclose()

    async def send(self, request: Request) -> httpx.Response:
        """The answer, whatever its status. Raises `UnreachableError`."""
        with _named(self.server):
            return await self._http.send(request.build(self._http))

    async def fetch(self, request: Request, target: Path) -> httpx.Response:
        """The same, but a success's body goes to ``target``."""
        async with self.stream(request) as response:
            if not response.is_error:
                with target.open("wb") as file:
                    async for chunk in response.aiter_bytes():
                        await self.work(partial(file.write, chunk))
                        _tell(request, response, file.tell())
        return response

    @asynccontextmanager
    async def stream(self, request: Request) -> AsyncIterator[httpx.Response]:
        """The same, but a success's body is read inside. Raises `UnreachableError` there, too."""
        with _named(self.server):
            response = await self._http.send(request.build(self._http), stream=True)
            try:
                if response.is_error:
                    await response.aread()
                yield response
            finally:
                await response.aclose()

    async def work(self, what: Callable[[], T]) -> T:
        """Do what takes its time on another thread."""
        return await to_thread.run_sync(what)

    async def tell(self, what: Callable[[], object]) -> None:
        """Call the caller's own code, on the event loop, whether it awaits or not."""
        answer = what()
        if isawaitable(answer):
            await answer


def read_json(response: httpx.Response) -> Any:
    """The body of a success. Raises `ApiError` for a refusal, and for what no Bertune server
    says."""
    try:
        body = response.json() if response.content else None
    except ValueError:
        body = None
    if response.is_success and (body is not None or not response.content):
        return body
    raise _refusal(response, body)


def check_success(response: httpx.Response) -> None:
    """Raise the `ApiError` that an answer other than a success means."""
    if not response.is_success:
        read_json(response)


def _tell(request: Request, response: httpx.Response, written: int) -> None:
    if request.on_bytes is not None:
        length = response.headers.get("content-length", "")
        packed = "content-encoding" in response.headers  # then it is the length of something else
        total = int(length) if length.isdecimal() and not packed else None
        request.on_bytes(written, total)


def _address(server: str | None) -> str:
    return (server or os.environ.get("BERTUNE_SERVER") or DEFAULT_SERVER).rstrip("/")


def _options(server: str, key: str | None) -> dict[str, Any]:
    key = key or find_key()
    return {
        "base_url": server,
        "headers": {"Authorization": f"Bearer {key}"} if key else {},
        # A proxy from the environment cannot reach this machine's own loopback.
        "trust_env": urlsplit(server).hostname not in ("127.0.0.1", "localhost", "::1"),
    }


@contextmanager
def _named(server: str) -> Iterator[None]:
    try:
        yield
    except httpx.TransportError as error:
        raise UnreachableError(server, error) from error


def _refusal(response: httpx.Response, body: Any) -> ApiError:
    if isinstance(body, dict) and isinstance(body.get("error"), str):
        where = tuple(body.get("where", ()))
        return ApiError(response.status_code, body["error"], str(body.get("detail", "")), where)
    return ApiError(
        response.status_code,
        "not_bertune",
        f"{response.url} answered {response.status_code}, but not as a Bertune server does.",
    )
