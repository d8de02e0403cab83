"""What a worker makes of the server's answers."""

import io
import itertools
import json
import logging
import threading
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import httpx
import pytest

from service.worker.artifact_uploads import ArtifactUploads
from service.worker.lease_hold import HoldEndedError, LeaseHold
from service.worker.server_link import (
    GivenUpError,
    LeaseLostError,
    RefusedError,
    ServerLink,
    ServerSilentError,
)
from studies.wire.leases import (
    FailureRequest,
    Lease,
    LeaseDataset,
    LeaseModel,
    LeaseRequest,
    RenewRequest,
)

LEASE = Lease(
    trial_id="t1",
    attempt=2,
    kind="train",
    study_id="s1",
    study_name="study",
    number=0,
    config={},
    dataset=LeaseDataset(id="d", labels=["a", "b"], files={}, indices=None),
    model=LeaseModel(kind="scratch", name="scratch:tiny", key="k"),
    split="validation",
    lease_s=60,
    renew_s=15,
    lease_expires_at=datetime(2026, 1, 1, tzinfo=UTC),
)
CLAIM = LeaseRequest(worker="w", slot=0, request_id="r1")


class Pauses(threading.Event):
    """An event whose waits pass at once and are noted; it can be set after some of them."""

    def __init__(self, set_after: int | None = None) -> None:
        super().__init__()
        self.waits_s: list[float] = []
        self._set_after = set_after

    def wait(self, timeout: float | None = None) -> bool:
        self.waits_s.append(timeout or 0)
        if len(self.waits_s) == self._set_after:
            self.set()
        return self.is_set()


class Clock(Pauses):
    """Waits that pass at once, and the time that they would have taken."""

    now_s = 0.0

    def wait(self, timeout: float | None = None) -> bool:
        self.now_s += timeout or 0
        return super().wait(timeout)


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    fake = SimpleNamespace(monotonic=lambda: clock.now_s)
    monkeypatch.setattr("service.worker.server_link.time", fake)
    return clock


Answers = Callable[..., ServerLink]


@pytest.fixture
def requests() -> list[httpx.Request]:
    return []


@pytest.fixture
def link(requests: list[httpx.Request]) -> Iterator[Answers]:
    """``link(first, second, …)``: a link whose server gives these answers, the last one for ever.
    An exception is raised in place of an answer."""
    links: list[ServerLink] = []

    def build(*answers: httpx.Response | Exception, orphan_s: float = 1000) -> ServerLink:
        left = list(answers)

        def answer(request: httpx.Request) -> httpx.Response:
            requests.append(request)
            given = left.pop(0) if len(left) > 1 else left[0]
            if isinstance(given, Exception):
                raise given
            return given

        links.append(
            ServerLink("http://x", "k1", orphan_s=orphan_s, transport=httpx.MockTransport(answer))
        )
        return links[-1]

    yield build
    for made in links:
        made.close()


def error(status: int, code: str = "some_code") -> httpx.Response:
    return httpx.Response(status, json={"error": code, "detail": "why", "where": []})


def renewed(action: str = "continue", *, renew_s: float = 15) -> httpx.Response:
    body = {"action": action, "lease_s": 60, "renew_s": renew_s}
    return httpx.Response(200, json={**body, "lease_expires_at": "2026-01-01T00:00:00Z"})


def bodies(requests: list[httpx.Request]) -> list[Any]:
    return [json.loads(request.content) for request in requests]


def test_a_lost_answer_to_a_claim_is_asked_for_again_under_the_same_id(
    link: Answers, requests: list[httpx.Request]
) -> None:
    lease = httpx.Response(200, content=LEASE.model_dump_json())
    claimed = link(httpx.ReadError("cut off"), error(503), lease).claim(CLAIM, until=Pauses())
    assert claimed == LEASE
    assert [body["request_id"] for body in bodies(requests)] == ["r1", "r1", "r1"]
    assert requests[0].headers["Authorization"] == "Bearer k1"


def test_no_content_is_no_lease(link: Answers) -> None:
    assert link(httpx.Response(204)).claim(CLAIM, until=Pauses()) is None


def test_pauses_double_up_to_ten_seconds(link: Answers) -> None:
    pauses = Pauses(set_after=8)
    with pytest.raises(GivenUpError):
        link(httpx.ConnectError("refused")).claim(CLAIM, until=pauses)
    for pause_s, longest_s in zip(pauses.waits_s, [0.5, 1, 2, 4, 8, 10, 10, 10], strict=True):
        assert longest_s / 2 <= pause_s <= longest_s


def test_a_conflict_means_that_the_lease_is_lost(link: Answers) -> None:
    with pytest.raises(LeaseLostError, match="why"):
        link(error(409, "lease_lost")).renew(LEASE, RenewRequest(), until=Pauses())


def test_a_refusal_is_not_repeated(link: Answers, requests: list[httpx.Request]) -> None:
    with pytest.raises(RefusedError) as refused:
        link(error(401, "unauthorized")).claim(CLAIM, until=Pauses())
    assert (refused.value.status, refused.value.code) == (401, "unauthorized")
    assert len(requests) == 1


def test_a_server_that_always_fails_on_a_call_refuses_it_in_the_end(
    link: Answers, requests: list[httpx.Request]
) -> None:
    failure = FailureRequest(code="nan_loss", detail="d")
    with pytest.raises(RefusedError) as refused:
        link(error(500)).fail(LEASE, failure, until=Pauses())
    assert refused.value.status == 500
    assert len(requests) == 8


def test_a_claim_outlasts_a_server_that_fails(link: Answers) -> None:
    answers = [*[error(500)] * 20, httpx.Response(204)]
    assert link(*answers).claim(CLAIM, until=Pauses()) is None


def test_a_trial_is_not_given_back_to_a_server_that_always_fails_on_it(
    link: Answers, requests: list[httpx.Request], clock: Clock
) -> None:
    with pytest.raises(RefusedError) as refused:
        link(error(500)).release(LEASE, "paused", until=clock)
    assert refused.value.status == 500
    assert len(requests) == 8
    assert clock.now_s <= 35.5  # 0.5, 1, 2, 4, 8, 10 and 10 at most


def test_a_trial_is_given_back_to_a_server_that_was_silent_for_long(
    link: Answers, clock: Clock
) -> None:
    queued = httpx.Response(200, json={"state": "queued", "attempt": 2})
    answers = [*[httpx.ConnectError("refused"), error(503)] * 100, queued]
    server = link(*answers, orphan_s=1)
    assert server.release(LEASE, "orphaned", until=clock).state == "queued"
    assert clock.now_s > 600


@pytest.mark.parametrize("answer", [error(503), error(500), httpx.ConnectError("refused")])
def test_a_stopping_worker_tries_to_give_a_trial_back_for_as_long_as_it_may(
    link: Answers, requests: list[httpx.Request], clock: Clock, answer: httpx.Response | Exception
) -> None:
    with pytest.raises(GivenUpError):
        link(answer).release(LEASE, "stopping", until=clock, within_s=2.5)
    reads_s = [request.extensions["timeout"]["read"] for request in requests]
    waited_s = [0.0, *itertools.accumulate(clock.waits_s)]
    assert reads_s == pytest.approx([2.5 - waited for waited in waited_s[:-1]])
    assert 3 <= len(requests) <= 5  # pauses of 0.5, 1, 2, … s at most, of half as much at least


def test_a_lease_is_orphaned_when_the_server_is_silent_for_too_long(link: Answers) -> None:
    silent = link(httpx.ConnectError("refused"), orphan_s=0)
    with pytest.raises(ServerSilentError):
        silent.renew(LEASE, RenewRequest(), until=Pauses())
    pauses = Pauses(set_after=3)
    with pytest.raises(GivenUpError):  # a release goes on trying
        silent.release(LEASE, "orphaned", until=pauses)
    assert len(pauses.waits_s) == 3


def test_absence_and_return_of_the_server_are_each_logged_once(
    link: Answers, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "service.worker.server_link")
    answers = [*[httpx.ConnectError("refused")] * 5, renewed(), error(503), renewed()]
    away_twice = link(*answers)
    away_twice.renew(LEASE, RenewRequest(), until=Pauses())
    away_twice.renew(LEASE, RenewRequest(), until=Pauses())
    assert [("away" in r.message, "back" in r.message) for r in caplog.records] == [
        (True, False),
        (False, True),
    ] * 2


def test_a_broken_download_starts_over(link: Answers) -> None:
    def cut_off() -> Iterator[bytes]:
        yield bytes(70_000)  # longer than the whole
        raise httpx.ReadError("cut off")

    sink = io.BytesIO()
    answers = (httpx.Response(200, content=cut_off()), httpx.Response(200, content=b"whole"))
    heard: list[int] = []
    link(*answers).download("/f", sink, until=Pauses(), on_bytes=heard.append)
    assert sink.getvalue() == b"whole"
    assert heard == [65_536, 5]


def test_a_server_without_room_is_waited_for_and_does_not_orphan_the_lease(
    link: Answers, requests: list[httpx.Request], clock: Clock
) -> None:
    full = [error(507, "disk_full")] * 50
    waiting = link(*full, renewed(), orphan_s=60)
    waiting.renew(LEASE, RenewRequest(), until=clock)
    assert len(requests) == 51
    assert clock.now_s > 200


def test_an_upload_waits_a_minute_for_room(
    link: Answers, requests: list[httpx.Request], tmp_path: Path, clock: Clock
) -> None:
    path = tmp_path / "model.zip"
    path.write_bytes(b"weights")
    full, stored = error(507, "disk_full"), httpx.Response(200, json={})
    link(full, full, stored).upload(LEASE, "model.zip", path, until=Pauses())
    assert [request.read() for request in requests] == [b"weights"] * 3
    with pytest.raises(RefusedError) as refused:
        link(full).upload(LEASE, "model.zip", path, until=clock)
    assert (refused.value.status, refused.value.code) == (507, "disk_full")
    assert 60 <= clock.now_s < 75


class Consuming(httpx.BaseTransport):
    """Reads what is sent block by block and tells ``on_block``."""

    def __init__(self, on_block: Callable[[], object]) -> None:
        self._on_block = on_block
        self.received = b""

    def handle_request(self, request: httpx.Request) -> httpx.Response:
        assert isinstance(request.stream, httpx.SyncByteStream)
        for block in request.stream:
            self.received += block
            self._on_block()
        assert int(request.headers["Content-Length"]) == len(self.received)
        return httpx.Response(200, json={})


def sending(transport: httpx.BaseTransport) -> ServerLink:
    return ServerLink("http://x", "k1", orphan_s=60, transport=transport)


def test_a_file_that_is_replaced_while_it_is_sent_arrives_as_it_was(tmp_path: Path) -> None:
    """As a trainer replaces its checkpoint."""
    path, newer = tmp_path / "state", tmp_path / "newer"
    path.write_bytes(b"old" * 100_000)
    newer.write_bytes(b"new")
    transport = Consuming(lambda: newer.exists() and newer.replace(path))
    heard: list[int] = []
    sending(transport).upload(LEASE, "state", path, until=Pauses(), on_bytes=heard.append)
    assert heard == [65_536, 131_072, 196_608, 262_144, 300_000]
    assert transport.received == b"old" * 100_000
    assert path.read_bytes() == b"new"


@pytest.mark.parametrize("fault", [httpx.WriteError("reset by peer"), 504])
def test_an_upload_that_always_breaks_off_while_others_are_answered_is_refused(
    tmp_path: Path, fault: Exception | int
) -> None:
    path = tmp_path / "model.zip"
    path.write_bytes(b"weights")

    def answer(request: httpx.Request) -> httpx.Response:
        if request.method == "PUT" and request.url.path.endswith("model.zip"):
            busy.renew(LEASE, RenewRequest(), until=Pauses())  # the hold's thread does
            if isinstance(fault, Exception):
                raise fault
            return httpx.Response(fault, text="<h1>Gateway Time-out</h1>")
        return renewed()

    busy = sending(httpx.MockTransport(answer))
    with pytest.raises(RefusedError, match=r"model\.zip breaks off each time: WriteE|Time-out"):
        busy.upload(LEASE, "model.zip", path, until=Pauses(set_after=20))


def test_a_file_that_is_gone_is_a_problem_and_no_failure(link: Answers, tmp_path: Path) -> None:
    """As a checkpoint whose trial another agent on this folder has ended meanwhile."""
    with LeaseHold(link(renewed()), LEASE, lambda _: None) as hold:
        uploads = ArtifactUploads(link(renewed()), hold)
        uploads.send("checkpoint-1.safetensors", tmp_path / "gone")
        hold.check()
    [problem] = uploads.problems
    assert problem.startswith("upload_failed: checkpoint-1.safetensors could not be read: ")


def test_an_answer_that_is_not_the_servers_ends_no_lease(link: Answers) -> None:
    """As a proxy's page with status 200, or the word of a newer server."""
    for answer in (httpx.Response(200, text="<h1>Sign in</h1>"), renewed("dance")):
        with pytest.raises(RefusedError) as refused:
            link(answer).renew(LEASE, RenewRequest(), until=Pauses())
        assert (refused.value.status, refused.value.code) == (502, "unexpected_answer")


def test_a_transfer_is_given_up_in_its_midst(link: Answers, tmp_path: Path) -> None:
    path = tmp_path / "big"
    path.write_bytes(bytes(1 << 20))
    ended = threading.Event()
    transport = Consuming(ended.set)
    with pytest.raises(GivenUpError):
        sending(transport).upload(LEASE, "big", path, until=ended)
    assert len(transport.received) < 1 << 20

    ended.clear()

    def endless() -> Iterator[bytes]:
        while True:
            ended.set()
            yield bytes(1 << 20)

    with pytest.raises(GivenUpError):
        link(httpx.Response(200, content=endless())).download("/f", io.BytesIO(), until=ended)


def test_a_goodbye_that_nobody_understands_is_no_error(
    link: Answers, requests: list[httpx.Request]
) -> None:
    for answer in (httpx.Response(204), error(404), httpx.ConnectError("refused")):
        link(answer).say_goodbye("gpu 1/a", within_s=2)
    assert {request.url.raw_path for request in requests} == {b"/v1/workers/gpu%201%2Fa/stopped"}


@pytest.mark.parametrize(
    ("answer", "end"),
    [
        (renewed("cancel"), "cancelled"),
        (renewed("pause"), "paused"),
        (error(409, "lease_lost"), "lost"),
    ],
)
def test_a_hold_ends_when_an_answer_says_so(
    link: Answers, answer: httpx.Response, end: str
) -> None:
    told = threading.Event()
    with LeaseHold(link(answer), LEASE, lambda _: told.set()) as hold:
        with pytest.raises(HoldEndedError) as ended:
            hold.renew(RenewRequest())
        assert ended.value.end == end
        assert hold.ended.is_set()
        assert told.is_set()
        hold.end("stopping")
        with pytest.raises(HoldEndedError, match=end):  # the first reason stands
            hold.check()


def test_a_hold_renews_on_its_own(link: Answers, requests: list[httpx.Request]) -> None:
    hasty = LEASE.model_copy(update={"renew_s": 0.01})
    third = threading.Event()
    answers = [renewed(renew_s=0.02), renewed(renew_s=0.02), error(409)]
    with LeaseHold(link(*answers), hasty, lambda _: third.set()):
        assert third.wait(10)
    assert bodies(requests[:1]) == [
        {"reports": [], "value": None, "resumed_from_epoch": None, "stage": None}
    ]
    assert requests[0].url.path == "/v1/leases/t1/2"


def test_every_renewal_tells_what_the_work_is_at(
    link: Answers, requests: list[httpx.Request]
) -> None:
    with LeaseHold(link(renewed()), LEASE, lambda _: None) as hold:
        hold.renew(RenewRequest())
        heard = hold.transfer("downloading", 10)
        heard(4)
        hold.renew(RenewRequest())
        heard(10)
        hold.renew(RenewRequest(value=0.5))
    told = [(body["value"], body["stage"]) for body in bodies(requests)]
    file = {"name": "downloading", "total": 10, "unit": "bytes"}
    assert told == [(None, None), (None, {**file, "done": 4}), (0.5, {**file, "done": 10})]


def test_a_paused_lease_is_renewed_until_it_was_saved(
    link: Answers, requests: list[httpx.Request]
) -> None:
    hasty = LEASE.model_copy(update={"renew_s": 0.01})
    with LeaseHold(link(renewed("pause", renew_s=0.01)), hasty, lambda _: None) as hold:
        assert hold.ended.wait(10)
        deadline = time.monotonic() + 10
        while len(requests) < 4:
            assert time.monotonic() < deadline
            threading.Event().wait(0.01)
    with pytest.raises(HoldEndedError, match="paused"):
        hold.check()


def test_an_end_after_the_block_is_not_heard(link: Answers) -> None:
    heard: list[str] = []
    with LeaseHold(link(renewed()), LEASE, heard.append) as hold:
        pass
    hold.end("lost")
    assert heard == []


def test_a_renewal_that_finds_the_lease_gone_while_its_result_is_taken_ends_nothing(
    link: Answers,
) -> None:
    """The result was accepted, and the renewal under way heard of that before the result did."""
    heard: list[str] = []
    lost = link(error(409, "lease_lost"))
    with LeaseHold(lost, LEASE, heard.append) as hold:

        def accepted() -> str:
            with pytest.raises(HoldEndedError, match="done"):
                hold.renew(RenewRequest())
            hold.check()
            return "recorded"

        assert hold.settle(accepted) == "recorded"
        with pytest.raises(HoldEndedError, match="done"):
            hold.renew(RenewRequest())
    assert heard == []


def test_a_result_that_comes_too_late_ends_the_lease_as_lost(link: Answers) -> None:
    heard: list[str] = []
    with LeaseHold(link(renewed()), LEASE, heard.append) as hold:
        late = link(error(409, "lease_lost"))
        with pytest.raises(HoldEndedError, match="lost"):
            hold.settle(lambda: late.renew(LEASE, RenewRequest(), until=hold.ended))
    assert heard == ["lost"]
