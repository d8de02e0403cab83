"""The worker protocol over HTTP: every call is retried until it is answered or given up.

All calls may be repeated safely: a claim carries a request id, everything else an attempt, and
the server answers a repeated one alike or with 409. So a lost answer costs only time.
"""

import logging
import math
import os
import random
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, TypeVar
from urllib.parse import quote

import httpx

from studies.wire.base import Answer, ErrorAnswer
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

A = TypeVar("A", bound=Answer)
OnBytes = Callable[[int], None]
"""``on_bytes(done)`` hears how much of a file has gone over, from anew when it is tried again."""

FIRST_PAUSE_S = 0.5
LONGEST_PAUSE_S = 10.0
ANSWER_S = 30.0
"""How long to wait for an answer, beyond a long poll's own wait."""
SERVER_FAULTS = 8
"""Answers 500 in a row after which a call is given up: it is not the network that fails."""

_AWAY = frozenset({408, 429, 502, 503, 504})
"""Statuses that a proxy or a starting server gives for a while."""
_FULL = 507
"""The server's disk is full: it is there, and somebody will make room."""
UPLOAD_FULL_S = 60.0
"""How long an upload waits for that: a trial's result is worth more than its files."""
_BLOCK_BYTES = 1 << 16
"""Small, so that a slow transfer hears soon that it is given up."""


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
            until=until,
            terms=_Terms(
                read_s=request.wait_s + ANSWER_S, outlasts_silence=True, outlasts_faults=True
            ),
        )
        return None if response.status_code == 204 else _read(Lease, response)

    def renew(self, lease: Lease, request: RenewRequest, *, until: threading.Event) -> RenewAnswer:
        """Extend a lease and report. Raises all four errors of this file."""
        body = request.model_dump(mode="json")
        # A server that comes back must hear of a lease before that runs out.
        terms = _Terms(longest_pause_s=min(lease.renew_s, LONGEST_PAUSE_S))
        response = self._send("PUT", _path(lease), json=body, until=until, terms=terms)
        return _read(RenewAnswer, response)

    def finish(self, lease: Lease, result: ResultRequest, *, until: threading.Event) -> EndAnswer:
        """End the attempt with a result. Raises all four errors of this file."""
        body = result.model_dump(mode="json")
        response = self._send("POST", f"{_path(lease)}/result", json=body, until=until)
        return _read(EndAnswer, response)

    def fail(self, lease: Lease, failure: FailureRequest, *, until: threading.Event) -> EndAnswer:
        """End the attempt badly. Raises all four errors of this file."""
        body = failure.model_dump(mode="json")
        response = self._send("POST", f"{_path(lease)}/failure", json=body, until=until)
        return _read(EndAnswer, response)

    def release(
        self,
        lease: Lease,
        reason: str,
        *,
        until: threading.Event,
        within_s: float | None = None,
    ) -> EndAnswer:
        """Give the trial back unharmed.

        Retries even when the server is silent; ``within_s`` bounds that (`GivenUpError`). Raises
        `LeaseLostError` and `RefusedError`, the latter also for a server that fails on the call
        `SERVER_FAULTS` times.
        """
        response = self._send(
            "POST",
            f"{_path(lease)}/release",
            json=ReleaseRequest(reason=reason).model_dump(mode="json"),
            until=until,
            terms=_Terms(within_s=within_s, outlasts_silence=True),
        )
        return _read(EndAnswer, response)

    def upload(
        self,
        lease: Lease,
        name: str,
        path: Path,
        *,
        until: threading.Event,
        full_s: float = UPLOAD_FULL_S,
        on_bytes: OnBytes | None = None,
    ) -> None:
        """Send a file as an artifact of the attempt. Raises all four errors of this file.

        A server without room (507) refuses it after ``full_s``. ``path`` may be replaced meanwhile:
        one of the files that lay there is sent.
        """
        url = f"{_path(lease)}/artifacts/{name}"
        transfer = _Transfer(file=path, on_bytes=on_bytes)
        self._send("PUT", url, transfer=transfer, until=until, terms=_Terms(full_s=full_s))

    def download(
        self,
        url: str,
        sink: BinaryIO,
        *,
        until: threading.Event,
        on_bytes: OnBytes | None = None,
    ) -> None:
        """Write what ``url`` (relative to the server) holds to ``sink``, from its beginning.

        Raises all four errors of this file.
        """
        self._send("GET", url, transfer=_Transfer(sink=sink, on_bytes=on_bytes), until=until)

    def say_goodbye(self, worker: str, *, within_s: float) -> None:
        """Tell the server that this worker is gone, so that nobody waits for its leases to run out.

        Tried once unless the server is away already, and nothing follows from a failure: the
        leases run out then, as ever.
        """
        with self._lock:
            if self._away:
                return
        url = f"/v1/workers/{quote(worker, safe='')}/stopped"
        try:
            _checked(self._client.post(url, timeout=within_s))
        except (httpx.TransportError, LeaseLostError, RefusedError) as error:
            log.debug("goodbye of %s not heard: %s", worker, error)

    def _send(
        self,
        method: str,
        url: str,
        *,
        until: threading.Event,
        json: object = None,
        transfer: "_Transfer | None" = None,
        terms: "_Terms | None" = None,
    ) -> httpx.Response:
        """Send until answered, on ``terms``."""
        terms = terms or _Terms()
        started = time.monotonic()
        pause_s, faults = FIRST_PAUSE_S, 0
        while not until.is_set():
            tried = time.monotonic()
            left_s = terms.left_s(tried - started)
            if left_s <= 0:
                break
            read_s = min(terms.read_s, left_s)
            outcome = self._try(method, url, json, transfer, read_s, until)
            self._note(outcome)
            if isinstance(outcome, httpx.Response) and not _is_passing(outcome):
                return _checked(outcome)
            faults += self._is_fault(outcome, tried)
            if terms.end_with(outcome, faults, time.monotonic() - started):
                raise _refusal(outcome, f"{method} {url}")
            if not terms.outlasts_silence and self._silent_s() > self._orphan_s:
                raise ServerSilentError(f"{self._server} is silent for over {self._orphan_s:g} s")
            pause_s = min(pause_s, terms.longest_pause_s)
            jittered_s = pause_s * random.uniform(0.5, 1)  # workers must not march in step
            until.wait(min(jittered_s, left_s))
            pause_s *= 2
        raise GivenUpError(f"{method} {url} was given up")

    def _try(
        self,
        method: str,
        url: str,
        json: object,
        transfer: "_Transfer | None",
        read_s: float,
        until: threading.Event,
    ) -> "_Outcome":
        timeout = httpx.Timeout(read_s, connect=min(read_s, 10))
        try:
            if transfer is not None and transfer.file is not None:
                return self._send_file(method, url, transfer, transfer.file, timeout, until)
            if transfer is not None and transfer.sink is not None:
                return self._fill(method, url, transfer, transfer.sink, timeout, until)
            return self._client.request(method, url, json=json, timeout=timeout)
        except httpx.TransportError as error:
            return error

    def _send_file(
        self,
        method: str,
        url: str,
        transfer: "_Transfer",
        file: Path,
        timeout: httpx.Timeout,
        until: threading.Event,
    ) -> httpx.Response:
        with file.open("rb") as content:
            # A stated length makes a cut-off upload an error at the server, not a short file. It is
            # the open file's: another one may take its name meanwhile.
            length = {"Content-Length": str(os.fstat(content.fileno()).st_size)}
            blocks = _blocks(content, transfer, until)
            return self._client.request(
                method, url, content=blocks, headers=length, timeout=timeout
            )

    def _fill(
        self,
        method: str,
        url: str,
        transfer: "_Transfer",
        sink: BinaryIO,
        timeout: httpx.Timeout,
        until: threading.Event,
    ) -> httpx.Response:
        with self._client.stream(method, url, timeout=timeout) as response:
            if response.is_error:
                response.read()
                return response
            sink.seek(0)
            sink.truncate()
            for block in response.iter_bytes(_BLOCK_BYTES):
                _check_wanted(until)
                self._note_contact()
                sink.write(block)
                transfer.note(sink.tell())
            return response

    def _is_fault(self, outcome: "_Outcome", tried: float) -> bool:
        """Whether it is this call that fails, and not the network or a server that restarts."""
        if isinstance(outcome, httpx.Response) and outcome.status_code not in _AWAY:
            return outcome.status_code == 500
        with self._lock:
            return self._contact > tried  # meanwhile others were answered

    def _note(self, outcome: "_Outcome") -> None:
        if isinstance(outcome, Exception):
            self._note_away(repr(outcome))
            return
        if outcome.status_code not in _AWAY:
            self._note_contact(returned=not _is_passing(outcome))
        if _is_passing(outcome):
            self._note_away(f"it answered {outcome.status_code}")

    def _note_contact(self, *, returned: bool = True) -> None:
        with self._lock:
            returned = returned and self._away
            silent_s = time.monotonic() - self._contact
            self._contact = time.monotonic()
            self._away = self._away and not returned
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


_Outcome = httpx.Response | httpx.TransportError


@dataclass(frozen=True, slots=True, kw_only=True)
class _Transfer:
    """A file that is sent, or a sink that is filled."""

    file: Path | None = None
    sink: BinaryIO | None = None
    on_bytes: OnBytes | None = None

    def note(self, done_bytes: int) -> None:
        if self.on_bytes is not None:
            self.on_bytes(done_bytes)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Terms:
    """How long a call is tried."""

    read_s: float = ANSWER_S
    """How long one try waits for the answer."""
    within_s: float | None = None
    """Give up after so long."""
    full_s: float | None = None
    """Take a full disk of the server's for an answer after so long."""
    outlasts_silence: bool = False
    """Go on however long the server is silent."""
    outlasts_faults: bool = False
    """Go on however often the server fails on the call."""
    longest_pause_s: float = LONGEST_PAUSE_S
    """Between two tries."""

    def end_with(self, outcome: _Outcome, faults: int, tried_s: float) -> bool:
        """Whether a passing failure is to be taken for the answer."""
        if isinstance(outcome, httpx.Response) and outcome.status_code == _FULL:
            return self.full_s is not None and tried_s >= self.full_s
        return faults >= SERVER_FAULTS and not self.outlasts_faults

    def left_s(self, tried_s: float) -> float:
        """How long the call may still be tried."""
        return math.inf if self.within_s is None else self.within_s - tried_s


def _is_passing(response: httpx.Response) -> bool:
    """Whether the same call may well be answered otherwise in a while."""
    return response.status_code in _AWAY or response.status_code in (500, _FULL)


def _refusal(outcome: _Outcome, call: str) -> RefusedError | LeaseLostError:
    if isinstance(outcome, httpx.Response):
        return _error(outcome)
    return RefusedError(502, "connection_broken", f"{call} breaks off each time: {outcome!r}")


def _blocks(content: BinaryIO, transfer: _Transfer, until: threading.Event) -> Iterator[bytes]:
    """What is left of ``content``; raises `GivenUpError` once ``until`` is set."""
    while block := content.read(_BLOCK_BYTES):
        _check_wanted(until)
        yield block
        transfer.note(content.tell())


def _check_wanted(until: threading.Event) -> None:
    if until.is_set():
        raise GivenUpError("the transfer was given up")


def _path(lease: Lease) -> str:
    return f"/v1/leases/{lease.trial_id}/{lease.attempt}"


def _checked(response: httpx.Response) -> httpx.Response:
    """Return a success; raise what any other answer means."""
    if response.is_success:
        return response
    raise _error(response)


def _read(kind: type[A], response: httpx.Response) -> A:
    """The answer in a success. Raises `RefusedError` where something else than our server spoke."""
    try:
        return kind.model_validate_json(response.content)
    except ValueError as error:
        detail = f"{response.url} answered what no Bertune server of this version says: {error}"
        raise RefusedError(502, "unexpected_answer", detail) from error


def _error(response: httpx.Response) -> RefusedError | LeaseLostError:
    try:
        answer = ErrorAnswer.model_validate_json(response.content)
    except ValueError:
        answer = ErrorAnswer(error="unexpected_answer", detail=response.text[:200])
    if answer.error == "lease_lost":
        return LeaseLostError(answer.detail)
    return RefusedError(response.status_code, answer.error, answer.detail)
