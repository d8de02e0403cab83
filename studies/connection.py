"""One HTTP connection to a Bertune server: address, key, repeated tries, and errors with a name."""

import os
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Self
from urllib.parse import urlsplit

import httpx

DEFAULT_SERVER = "http://127.0.0.1:8000"
RETRY_DELAYS_S = (0.2, 0.5, 1.0)
PASSING_STATUSES = frozenset({502, 503, 504})
TIMEOUT = httpx.Timeout(60.0, connect=5.0)
UPLOAD_TIMEOUT = httpx.Timeout(1800.0, connect=5.0)
"""The server reads an upload to its end, and answers only then."""


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


def find_key() -> str | None:
    """The key of this machine's user: BERTUNE_KEY, else the admin key in BERTUNE_HOME."""
    if key := os.environ.get("BERTUNE_KEY", "").strip():
        return key
    path = Path(os.environ.get("BERTUNE_HOME", "bertune-data")) / "admin.key"
    try:
        return path.read_text(encoding="ascii").strip() or None
    except FileNotFoundError:
        return None


class Connection:
    """Requests to one server.

    A request that never left is tried again; one that may have arrived is repeated only when a
    second arrival changes nothing (``repeatable``).
    """

    def __init__(
        self,
        server: str | None = None,
        key: str | None = None,
        *,
        transport: httpx.BaseTransport | None = None,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        self.server = (server or os.environ.get("BERTUNE_SERVER") or DEFAULT_SERVER).rstrip("/")
        key = key or find_key()
        self._sleep = sleep
        self._http = httpx.Client(
            base_url=self.server,
            headers={"Authorization": f"Bearer {key}"} if key else {},
            timeout=TIMEOUT,
            transport=transport,
            # A proxy from the environment cannot reach this machine's own loopback.
            trust_env=not _is_loopback(self.server),
        )

    def close(self) -> None:
        self._http.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def get(self, path: str, params: Mapping[str, str | int] | None = None) -> Any:
        return self.request("GET", path, repeatable=True, params=params)

    def post(self, path: str, *, repeatable: bool = False, **options: Any) -> Any:
        return self.request("POST", path, repeatable=repeatable, **options)

    def delete(self, path: str) -> None:
        """Repeated only when it never left: a second arrival would find nothing to delete."""
        self.request("DELETE", path, repeatable=False)

    def request(self, method: str, path: str, *, repeatable: bool, **options: Any) -> Any:
        """Send and return the JSON answer. Raises `ApiError` or `UnreachableError`.

        ``options`` go to httpx; a callable one is called anew for each try, since a file that
        was sent once is at its end.
        """
        for delay_s in (*RETRY_DELAYS_S, None):
            fresh = {name: value() if callable(value) else value for name, value in options.items()}
            try:
                response = self._http.request(method, path, **fresh)
            except httpx.TransportError as error:
                unsent = isinstance(error, httpx.ConnectError | httpx.ConnectTimeout)
                if delay_s is None or not (unsent or repeatable):
                    raise UnreachableError(self.server, error) from error
            else:
                passing = response.status_code in PASSING_STATUSES
                if delay_s is None or not (passing and repeatable):
                    return _json(response)
            self._sleep(delay_s)
        raise AssertionError("the last try returns or raises")

    @contextmanager
    def stream(self, path: str) -> Iterator[Iterator[bytes]]:
        """The body of a GET in chunks, for files. Not repeated: the reader holds a part."""
        try:
            with self._http.stream("GET", path) as response:
                if response.is_error:
                    response.read()
                    _json(response)
                yield response.iter_bytes()
        except httpx.TransportError as error:
            raise UnreachableError(self.server, error) from error


def _is_loopback(server: str) -> bool:
    return urlsplit(server).hostname in ("127.0.0.1", "localhost", "::1")


def _json(response: httpx.Response) -> Any:
    try:
        body = response.json() if response.content else None
    except ValueError:
        body = None
    if response.is_success and (body is not None or not response.content):
        return body
    if isinstance(body, dict) and isinstance(body.get("error"), str):
        where = tuple(body.get("where", ()))
        raise ApiError(response.status_code, body["error"], str(body.get("detail", "")), where)
    raise ApiError(
        response.status_code,
        "not_bertune",
        f"{response.url} answered {response.status_code}, but not as a Bertune server does.",
    )
