"""Streams of events over connections that break: resumed where they stood, or given up plainly."""

import asyncio
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import httpx
import pytest

from studies.api import Api, ApiError, AsyncApi, EventsMissedWarning, UnreachableError
from studies.wire.events import EventAnswer

Follow = Callable[..., list[int]]
"""``follow(answers, slept, **arguments)``: the ids of the events that these answers held."""
STUDY = "s/1"


def frame(number: int, kind: str = "trial.epoch") -> bytes:
    event = EventAnswer.model_validate(
        {
            "id": number,
            "type": kind,
            "study_id": STUDY,
            "study": "tickets",
            "trial": 0,
            "data": {},
            "created_at": "2026-01-01T00:00:00Z",
        }
    )
    return f"id: {number}\nevent: {kind}\ndata: {event.model_dump_json()}\n\n".encode()


class Body(httpx.SyncByteStream, httpx.AsyncByteStream):
    """An answer's chunks; ``breaks`` as a connection does that is cut."""

    def __init__(self, *chunks: bytes, breaks: bool = False) -> None:
        self._chunks, self._breaks = chunks, breaks

    def __iter__(self) -> Iterator[bytes]:
        yield from self._chunks
        if self._breaks:
            raise httpx.ReadError("cut")

    async def __aiter__(self) -> Any:
        for chunk in self:
            yield chunk


def told(*chunks: bytes, breaks: bool = False) -> httpx.Response:
    return httpx.Response(200, stream=Body(*chunks, breaks=breaks))


class Answers:
    """Gives one answer after the other, the last for good, and keeps what was asked."""

    def __init__(self, answers: Sequence[httpx.Response | Exception]) -> None:
        self.asked: list[httpx.Request] = []
        self._answers = answers

    def __call__(self, request: httpx.Request) -> httpx.Response:
        answer = self._answers[min(len(self.asked), len(self._answers) - 1)]
        self.asked.append(request)
        if isinstance(answer, Exception):
            raise answer
        return answer

    @property
    def resumed_from(self) -> list[str | None]:
        return [request.headers.get("last-event-id") for request in self.asked]


@pytest.fixture(params=["blocking", "awaited"])
def follow(request: pytest.FixtureRequest) -> Follow:
    def blocking(answers: Answers, slept: list[float], **arguments: Any) -> list[int]:
        transport = httpx.MockTransport(answers)
        with Api("http://server", "k", transport=transport, sleep=slept.append) as api:
            return [event.id for event in api.events(**arguments)]

    def awaited(answers: Answers, slept: list[float], **arguments: Any) -> list[int]:
        async def sleep(seconds: float) -> None:
            slept.append(seconds)

        async def run() -> list[int]:
            transport = httpx.MockTransport(answers)
            async with AsyncApi("http://server", "k", transport=transport, sleep=sleep) as api:
                return [event.id async for event in api.events(**arguments)]

        return asyncio.run(run())

    return blocking if request.param == "blocking" else awaited


def test_a_stream_that_breaks_goes_on_after_the_last_whole_event(follow: Follow) -> None:
    half = len(frame(3)) // 2
    answers = Answers(
        [
            told(b"retry: 500\n\n: \nid: 1\n\n", frame(2) + frame(3)[:half], breaks=True),
            httpx.ConnectError("restarting"),
            httpx.Response(503, json={"error": "not_ready", "detail": "", "where": []}),
            told(frame(3), frame(4, "study.completed")),
        ]
    )
    slept: list[float] = []
    assert follow(answers, slept, study_id=STUDY, types=["trial.*", "study.*"]) == [2, 3, 4]
    assert answers.resumed_from == [None, "2", "2", "2"]
    assert slept == [0.2, 0.5, 1.0]
    url = answers.asked[0].url
    assert url.raw_path.startswith(b"/v1/studies/s%2F1/events?")
    assert url.params.get_list("type") == ["trial.*", "study.*"]
    assert "after" not in url.params


def test_a_stream_cut_before_its_first_event_goes_on_from_where_it_began(follow: Follow) -> None:
    answers = Answers([told(b"retry: 1\n\n: \nid: 7\n\n", breaks=True), httpx.Response(204)])
    assert follow(answers, [], after=None) == []
    assert answers.resumed_from == [None, "7"]


def test_a_stream_that_ends_by_its_time_is_asked_for_again_until_there_is_no_more(
    follow: Follow,
) -> None:
    answers = Answers([told(b"retry: 1500\n\n", frame(1)), told(frame(2)), httpx.Response(204)])
    slept: list[float] = []
    assert follow(answers, slept, after=0, labels=["team:support"]) == [1, 2]
    assert answers.resumed_from == [None, "1", "2"]
    assert slept == [1.5, 2.0]
    assert answers.asked[0].url.params["after"] == "0"
    assert answers.asked[0].url.params["label"] == "team:support"


def test_what_has_happened_by_now_is_asked_for_once(follow: Follow) -> None:
    answers = Answers([told(frame(1), frame(2))])
    assert follow(answers, [], after=0, follow=False) == [1, 2]
    assert len(answers.asked) == 1
    assert answers.asked[0].url.params["follow"] == "false"


def test_the_newest_are_asked_for_by_their_number(follow: Follow) -> None:
    answers = Answers([told(frame(8), frame(9, "study.completed"))])
    assert follow(answers, [], study_id=STUDY, last=2) == [8, 9]
    assert answers.asked[0].url.params["last"] == "2"
    assert "after" not in answers.asked[0].url.params
    with pytest.raises(ValueError, match="give one"):
        follow(answers, [], study_id=STUDY, last=2, after=7)


def test_a_study_that_is_deleted_ends_its_stream(follow: Follow) -> None:
    answers = Answers([told(frame(1, "study.deleted"))])
    assert follow(answers, [], study_id=STUDY) == [1]


def test_a_gap_is_told_and_is_no_event(follow: Follow) -> None:
    reset = b'id: 9\nevent: reset\ndata: {"detail": "some were removed", "after": 9}\n\n'
    answers = Answers([told(reset, frame(10, "study.failed"))])
    gaps: list[str] = []
    assert follow(answers, [], study_id=STUDY, on_gap=gaps.append) == [10]
    assert gaps == ["some were removed"]
    with pytest.warns(EventsMissedWarning, match="some were removed"):
        follow(Answers([told(reset, frame(10, "study.failed"))]), [], study_id=STUDY)


def test_a_server_that_was_never_there_is_given_up_after_a_few_tries(follow: Follow) -> None:
    slept: list[float] = []
    with pytest.raises(UnreachableError):
        follow(Answers([httpx.ConnectError("refused")]), slept)
    assert slept == [0.2, 0.5, 1.0]


def test_a_server_that_went_away_is_waited_for_and_given_up_after_a_minute(follow: Follow) -> None:
    slept: list[float] = []
    with pytest.raises(UnreachableError):
        follow(Answers([told(frame(1), breaks=True), httpx.ConnectError("gone")]), slept)
    assert 60 <= sum(slept) <= 62


def test_a_refusal_ends_the_stream_at_once(follow: Follow) -> None:
    body = {"error": "unknown_study", "detail": "no", "where": ["path", "study_id"]}
    answers = Answers([httpx.Response(404, json=body)])
    with pytest.raises(ApiError) as caught:
        follow(answers, [], study_id="nope")
    assert (caught.value.code, len(answers.asked)) == ("unknown_study", 1)
    with pytest.raises(ValueError, match="not both"):
        follow(answers, [], study_id="s", labels=["a:b"])
