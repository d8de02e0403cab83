"""What a worker makes of the server's answers."""

import io
import json
import logging
import threading
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from typing import Any

import httpx
import pytest

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
        yield b"half of it, and longer than the whole"
        raise httpx.ReadError("cut off")

    sink = io.BytesIO()
    answers = (httpx.Response(200, content=cut_off()), httpx.Response(200, content=b"whole"))
    link(*answers).download("/f", sink, until=Pauses())
    assert sink.getvalue() == b"whole"


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
    with LeaseHold(link(answer), LEASE, told.set) as hold:
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
    with LeaseHold(link(*answers), hasty, third.set):
        assert third.wait(10)
    assert bodies(requests[:1]) == [{"reports": [], "value": None}]
    assert requests[0].url.path == "/v1/leases/t1/2"
