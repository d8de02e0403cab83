"""Sends one request of a webhook: to a checked address, bounded in time, following nothing."""

import asyncio
import ssl
import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from email.utils import parsedate_to_datetime
from functools import cache
from importlib.metadata import version

import httpcore
from anyio import to_thread

from service.webhooks.addresses import (
    AllowedPlaces,
    PrivateAddressError,
    UnknownHostError,
    checked_addresses,
)

TOTAL_S = 15.0
"""From the look-up of the name to the answer's status."""
LONGEST_RETRY_AFTER_S = 6 * 3600.0
_FAULTS = (
    httpcore.NetworkError,
    httpcore.ProtocolError,
    httpcore.TimeoutException,
    httpcore.UnsupportedProtocol,
    OSError,
    ValueError,
)


@dataclass(frozen=True, slots=True)
class Outcome:
    """What came of an attempt; ``error`` is null exactly when it was delivered."""

    status: int | None
    latency_ms: int
    error: str | None
    retry_after_s: float | None = None


class CheckedBackend(httpcore.AsyncNetworkBackend):
    """Resolves and checks a host itself and connects to what it checked; certificates are checked
    against the name all the same."""

    def __init__(self, allowed: AllowedPlaces) -> None:
        self._allowed = allowed
        self._inner = httpcore.AnyIOBackend()

    async def connect_tcp(
        self,
        host: str,
        port: int,
        timeout: float | None = None,
        local_address: str | None = None,
        socket_options: Iterable[httpcore.SOCKET_OPTION] | None = None,
    ) -> httpcore.AsyncNetworkStream:
        addresses = await to_thread.run_sync(
            checked_addresses, host, port, self._allowed, abandon_on_cancel=True
        )
        fault: Exception = UnknownHostError(f"The host {host} has no address.")
        for address in addresses:
            try:
                return await self._inner.connect_tcp(
                    address, port, timeout, local_address, socket_options
                )
            except (httpcore.ConnectError, httpcore.ConnectTimeout) as error:
                fault = error
        raise fault


async def post(
    url: str, headers: Mapping[str, str], body: bytes, allowed: AllowedPlaces
) -> Outcome:
    """Send, and read no more than the answer's status and headers. Raises nothing."""
    began = time.monotonic()
    status: int | None = None
    retry_after_s: float | None = None
    try:
        async with asyncio.timeout(TOTAL_S):
            status, retry_after_s = await _send(url, headers, body, allowed)
        error = _complaint(status)
    except TimeoutError:
        error = f"No answer within {TOTAL_S:g} s."
    except (PrivateAddressError, UnknownHostError) as fault:
        error = str(fault)
    except _FAULTS as fault:
        error = f"{type(fault).__name__}: {fault}" if str(fault) else type(fault).__name__
    latency_ms = round(1000 * (time.monotonic() - began))
    return Outcome(status, latency_ms, error, retry_after_s)


async def _send(
    url: str, headers: Mapping[str, str], body: bytes, allowed: AllowedPlaces
) -> tuple[int, float | None]:
    agent = f"Bertune/{version('bertune')}"
    sent: list[tuple[str | bytes, str | bytes]] = [("User-Agent", agent), *headers.items()]
    async with (
        httpcore.AsyncConnectionPool(
            ssl_context=_tls(), network_backend=CheckedBackend(allowed), max_keepalive_connections=0
        ) as pool,
        pool.stream("POST", url, headers=sent, content=body) as answer,
    ):
        given = {name.lower(): value for name, value in answer.headers}
        return answer.status, _retry_after_s(given.get(b"retry-after", b"").decode("latin-1"))


@cache
def _tls() -> ssl.SSLContext:
    return ssl.create_default_context()


def _complaint(status: int) -> str | None:
    if 200 <= status < 300:
        return None
    if 300 <= status < 400:
        return f"It answered {status}, and redirects are not followed."
    return f"It answered {status}."


def _retry_after_s(value: str) -> float | None:
    """Seconds, or a date; bounded."""
    try:
        seconds = float(value) if value.isdigit() else _until(value)
    except (ValueError, TypeError):
        return None
    return min(max(0.0, seconds), LONGEST_RETRY_AFTER_S)


def _until(value: str) -> float:
    return parsedate_to_datetime(value).timestamp() - time.time()
