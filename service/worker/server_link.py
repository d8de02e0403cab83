"""The worker protocol over HTTP: every call is retried until it is answered or given up.

All calls may be repeated safely: a claim carries a request id, everything else an attempt, and
the server answers a repeated one alike or with 409. So a lost answer costs only time.
"""

import logging
import random
import threading
import time
from pathlib import Path
from typing import BinaryIO

import httpx

from studies.wire.base import ErrorAnswer
from studies.wire.leases import (
    EndAnswer,
    FailureRequest,
    Lease,
    LeaseRequest,
    ReleaseRequest,
    RenewAnswer,
    RenewRequest,
    ResultRequest,
)

log = logging.getLogger(__name__)

FIRST_PAUSE_S = 0.5
LONGEST_PAUSE_S = 10.0
ANSWER_S = 30.0
"""How long to wait for an answer, beyond a long poll's own wait."""
SERVER_FAULTS = 8
"""Answers 500 in a row after which a call is given up: it is not the network that fails."""

_AWAY = frozenset({408, 429, 502, 503, 504})
"""Statuses that a proxy or a starting server gives for a while."""


class LeaseLostError(RuntimeError):
    """409 `lease_lost`: the attempt no longer holds its trial."""


class RefusedError(RuntimeError):
    """The server answered, and repeating the call would not help."""

    def __init__(self, status: int, code: str, detail: str) -> None:
        super().__init__(f"{detail} ({status} {code})")
        self.status = status
        self.code = code
        self.detail = detail


class GivenUpError(RuntimeError):
    """The caller's event was set, or its time ran out, before the server answered."""


class ServerSilentError(RuntimeError):
    """The server has not answered anything for longer than an orphan may live."""


class ServerLink:
    """Calls to one server, from any thread."""

    def __init__(
        self,
        server: str,
        key: str,
        *,
        orphan_s: float,
        transport: httpx.BaseTransport | None = None,
    ) -> None:
        self._client = httpx.Client(
            base_url=server,
            headers={"Authorization": f"Bearer {key}"},
            timeout=httpx.Timeout(ANSWER_S, connect=10),
            limits=httpx.Limits(max_connections=None),
            transport=transport,
        )
        self._server = server
        self._orphan_s = orphan_s
        self._lock = threading.Lock()
        self._contact = time.monotonic()
        self._away = False

    def close(self) -> None:
        self._client.close()

    def claim(self, request: LeaseRequest, *, until: threading.Event) -> Lease | None:
        """Wait up to ``request.wait_s`` for a trial; None when there was none.

        Retries for ever, until ``until`` is set (`GivenUpError`). Raises `RefusedError`.
        """
        response = self._send(
            "POST",
            "/v1/leases",
            json=request.model_dump(mode="json"),
            read_s=request.wait_s + ANSWER_S,
            until=until,
            patient=True,
        )
        return None if response.status_code == 204 else Lease.model_validate_json(response.content)

    def renew(self, lease: Lease, request: RenewRequest, *, until: threading.Event) -> RenewAnswer:
        """Extend a lease and report. Raises all four errors of this file."""
        body = request.model_dump(mode="json")
        response = self._send("PUT", _path(lease), json=body, until=until)
        return RenewAnswer.model_validate_json(response.content)

    def finish(self, lease: Lease, result: ResultRequest, *, until: threading.Event) -> EndAnswer:
        """End the attempt with a result. Raises all four errors of this file."""
        body = result.model_dump(mode="json")
        response = self._send("POST", f"{_path(lease)}/result", json=body, until=until)
        return EndAnswer.model_validate_json(response.content)

    def fail(self, lease: Lease, failure: FailureRequest, *, until: threading.Event) -> EndAnswer:
        """End the attempt badly. Raises all four errors of this file."""
        body = failure.model_dump(mode="json")
        response = self._send("POST", f"{_path(lease)}/failure", json=body, until=until)
        return EndAnswer.model_validate_json(response.content)

    def release(
        self,
        lease: Lease,
        reason: str,
        *,
        until: threading.Event,
        within_s: float | None = None,
    ) -> EndAnswer:
        """Give the trial back unharmed.

        Retries even when the server is silent; ``within_s`` bounds that (`GivenUpError`).
        """
        response = self._send(
            "POST",
            f"{_path(lease)}/release",
            json=ReleaseRequest(reason=reason).model_dump(mode="json"),
            read_s=ANSWER_S if within_s is None else within_s,
            within_s=within_s,
            until=until,
            patient=True,
        )
        return EndAnswer.model_validate_json(response.content)

    def upload(self, lease: Lease, name: str, path: Path, *, until: threading.Event) -> None:
        """Send a file as an artifact of the attempt. Raises all four errors of this file."""
        self._send("PUT", f"{_path(lease)}/artifacts/{name}", file=path, until=until)

    def download(self, url: str, sink: BinaryIO, *, until: threading.Event) -> None:
        """Write what ``url`` (relative to the server) holds to ``sink``, from its beginning.

        Raises all four errors of this file.
        """
        self._send("GET", url, sink=sink, until=until)

    def _send(
        self,
        method: str,
        url: str,
        *,
        until: threading.Event,
        json: object = None,
        file: Path | None = None,
        sink: BinaryIO | None = None,
        read_s: float = ANSWER_S,
        within_s: float | None = None,
        patient: bool = False,
    ) -> httpx.Response:
        """Send until answered. ``patient`` calls outlast a silent server."""
        started = time.monotonic()
        pause_s, faults = FIRST_PAUSE_S, 0
        while not until.is_set():
            try:
                response = self._send_once(method, url, json, file, sink, read_s, until)
            except httpx.TransportError as error:
                self._note_away(repr(error))
            else:
                if response.status_code not in _AWAY:
                    self._note_contact()
                    if response.status_code != 500:
                        return _checked(response)
                    faults += 1
                    if faults == SERVER_FAULTS and not patient:
                        return _checked(response)
                self._note_away(f"it answered {response.status_code}")
            if not patient and self._silent_s() > self._orphan_s:
                raise ServerSilentError(f"{self._server} is silent for over {self._orphan_s:g} s")
            if within_s is not None and time.monotonic() - started > within_s:
                break
            until.wait(pause_s * random.uniform(0.5, 1))  # jitter: workers must not march in step
            pause_s = min(pause_s * 2, LONGEST_PAUSE_S)
        raise GivenUpError(f"{method} {url} was given up")

    def _send_once(
        self,
        method: str,
        url: str,
        json: object,
        file: Path | None,
        sink: BinaryIO | None,
        read_s: float,
        until: threading.Event,
    ) -> httpx.Response:
        timeout = httpx.Timeout(read_s, connect=min(read_s, 10))
        if file is not None:
            with file.open("rb") as content:
                # A stated length makes a cut-off upload an error at the server, not a short file.
                length = {"Content-Length": str(file.stat().st_size)}
                return self._client.request(
                    method, url, content=content, headers=length, timeout=timeout
                )
        if sink is None:
            return self._client.request(method, url, json=json, timeout=timeout)
        with self._client.stream(method, url, timeout=timeout) as response:
            if response.is_error:
                response.read()
                return response
            sink.seek(0)
            sink.truncate()
            for block in response.iter_bytes(1 << 20):
                if until.is_set():
                    raise GivenUpError(f"{method} {url} was given up")
                self._note_contact()
                sink.write(block)
            return response

    def _note_contact(self) -> None:
        with self._lock:
            returned = self._away
            silent_s = time.monotonic() - self._contact
            self._away, self._contact = False, time.monotonic()
        if returned:
            log.info("server %s is back after %.0f s", self._server, silent_s)

    def _note_away(self, reason: str) -> None:
        """Log the first failure of a row only: a worker may wait for a server for days."""
        with self._lock:
            known, self._away = self._away, True
        if not known:
            log.warning("server %s is away (%s); trying again", self._server, reason)

    def _silent_s(self) -> float:
        with self._lock:
            return time.monotonic() - self._contact


def _path(lease: Lease) -> str:
    return f"/v1/leases/{lease.trial_id}/{lease.attempt}"


def _checked(response: httpx.Response) -> httpx.Response:
    """Return a success; raise what any other answer means."""
    if response.is_success:
        return response
    try:
        answer = ErrorAnswer.model_validate_json(response.content)
    except ValueError:
        answer = ErrorAnswer(error="unexpected_answer", detail=response.text[:200])
    if answer.error == "lease_lost":
        raise LeaseLostError(answer.detail)
    raise RefusedError(response.status_code, answer.error, answer.detail)
