"""Streams of events over real connections: order, resuming, ends, slow readers and many readers."""

import asyncio
import json
import socket
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from builders import claim_request, make_study, renew_request, result_request
from live_server import Listener, LiveServer, live_server
from real_parts import until
from sqlalchemy import event, update

from service.events import slow_reader, stream
from service.store.database import Database
from service.store.event_log import newest_id
from service.store.events import append_event
from service.store.tables import EventLog, StudyLabel
from studies.api import Api, AsyncApi


@pytest.fixture
def server(database: Database, tmp_path: Path) -> Iterator[LiveServer]:
    with live_server(database, tmp_path / "home") as live:
        yield live


def write(server: LiveServer, *kinds: str, study_id: str | None = None, **data: Any) -> None:
    with server.context.database.transaction() as session:
        for kind in kinds:
            append_event(session, kind, study_id=study_id, data=data)


def train(server: LiveServer, value: float = 0.5) -> None:
    """Run the next trial with one epoch."""
    dispatcher = server.context.dispatcher
    lease = dispatcher.claim(claim_request())
    assert lease is not None
    dispatcher.renew(lease.trial_id, 1, renew_request(value))
    dispatcher.finish(lease.trial_id, 1, result_request(value))


TRIAL = ["trial.running", "study.running", "trial.epoch", "study.best", "trial.completed"]


def test_a_study_is_followed_to_its_end_and_then_there_is_nothing_to_ask_for(
    server: LiveServer,
) -> None:
    study_id = make_study(server.context.database, n_trials=1)
    other = make_study(server.context.database, n_trials=1, priority=-1)
    path = f"/v1/studies/{study_id}/events"
    with server.client() as client:
        listener = Listener(client, path, after=0)
        train(server)
        listener.await_end()
        assert listener.types == [*TRIAL, "study.completed"]
        assert listener.headers["content-type"].startswith("text/event-stream")
        assert listener.headers["cache-control"] == "no-store"
        assert listener.headers["x-accel-buffering"] == "no"
        first = json.loads(listener.messages[0].data)
        assert (first["study_id"], first["study"], first["trial"]) == (study_id, "tickets", 0)
        assert first["created_at"].endswith("Z")
        last_id = listener.parser.last_id
        again = client.get(path, headers={"Last-Event-ID": last_id})
        assert (again.status_code, again.content) == (204, b"")
        assert client.get(path).status_code == 204
        replay = Listener(client, path, after=0)
        replay.await_end()
        assert replay.messages == listener.messages
        assert client.get(f"/v1/studies/{other}").json()["state"] == "queued"


def test_a_client_that_comes_again_hears_the_rest_and_nothing_twice(server: LiveServer) -> None:
    study_id = make_study(server.context.database, n_trials=3, max_parallel=1)
    path = f"/v1/studies/{study_id}/events"
    heard = []
    last_id = ""
    with server.client() as client:
        for _ in range(3):
            train(server)
            listener = Listener(client, path, last_id, after=0)
            listener.await_type("trial.completed")
            heard += listener.types
            last_id = listener.parser.last_id
    ends = [kind for kind in heard if kind == "trial.completed"]
    assert len(ends) == 3
    assert heard.count("study.running") == 1


def test_without_a_place_a_stream_begins_now(server: LiveServer) -> None:
    write(server, "study.best")
    with server.client() as client:
        listener = Listener(client, "/v1/events")
        write(server, "schedule.skipped", reason="overlap")
        listener.await_types("schedule.skipped")
    data = json.loads(listener.messages[0].data)
    assert data["data"] == {"reason": "overlap"}
    assert data["study_id"] is None


def test_a_stream_may_begin_with_the_newest_that_match(server: LiveServer) -> None:
    database = server.context.database
    ours, theirs = make_study(database), make_study(database)
    with database.transaction() as session:
        session.add(StudyLabel(study_id=ours, key="team", value="support"))
    for number in range(4):
        write(server, "study.best", "trial.epoch", study_id=ours, number=number)
        write(server, "study.best", study_id=theirs, number=9)

    def newest(last: int, path: str = "/v1/events", **params: str) -> list[int]:
        listener = Listener(client, path, last=last, follow="false", **params)
        listener.await_end()
        return [json.loads(message.data)["data"]["number"] for message in listener.messages]

    with server.client() as client:
        assert newest(3) == [3, 3, 9]
        assert newest(2, type="study.best", label="team:support") == [2, 3]
        assert newest(3, f"/v1/studies/{ours}/events", type="trial.*") == [1, 2, 3]
        assert newest(99, f"/v1/studies/{theirs}/events") == [9, 9, 9, 9]
        assert newest(1, type="study.failed") == []
        followed = Listener(client, "/v1/events", last=1)
        followed.await_types("study.best")
        write(server, "schedule.skipped")
        followed.await_types("study.best", "schedule.skipped")
        # Nothing older is asked for, so what was removed is not missed.
        with database.transaction() as session:
            session.execute(update(EventLog).values(removed_to=newest_id(session) - 2))
        assert newest(99, type="study.best") == [9]


def test_a_stream_of_all_takes_types_and_labels(server: LiveServer) -> None:
    database = server.context.database
    ours, theirs = make_study(database), make_study(database)
    with database.transaction() as session:
        session.add(StudyLabel(study_id=ours, key="team", value="support"))
    with server.client() as client:
        chosen = Listener(client, "/v1/events", type="study.*", label="team:support")
        everything = Listener(client, "/v1/events")
        for study_id in (theirs, ours):
            write(server, "study.paused", "trial.failed", study_id=study_id)
        everything.await_types(*["study.paused", "trial.failed"] * 2)
        chosen.await_types("study.paused")
        assert json.loads(chosen.messages[0].data)["study_id"] == ours


@pytest.mark.parametrize(
    ("path", "params", "headers", "status", "code"),
    [
        ("/v1/studies/nope/events", {}, {}, 404, "unknown_study"),
        ("/v1/events", {}, {"Last-Event-ID": "seven"}, 422, "invalid_event_id"),
        ("/v1/events", {}, {"Last-Event-ID": "9" * 30}, 422, "invalid_event_id"),
        ("/v1/events", {"after": -1}, {}, 422, "invalid_request"),
        ("/v1/events", {"after": 1, "last": 1}, {}, 422, "invalid_event_id"),
        ("/v1/events", {"last": 10_001}, {}, 422, "invalid_request"),
        ("/v1/events", {"type": "study.complete"}, {}, 422, "invalid_request"),
        ("/v1/events", {"label": "team"}, {}, 422, "invalid_filter"),
    ],
)
def test_a_stream_that_cannot_be_is_refused(
    server: LiveServer,
    path: str,
    params: dict[str, Any],
    headers: dict[str, str],
    status: int,
    code: str,
) -> None:
    with server.client() as client:
        answer = client.get(path, params=params, headers=headers)
    assert (answer.status_code, answer.json()["error"]) == (status, code)


def test_the_stream_of_a_study_ends_when_it_is_deleted(server: LiveServer) -> None:
    study_id = make_study(server.context.database)
    with server.client() as client:
        listener = Listener(client, f"/v1/studies/{study_id}/events")
        assert client.delete(f"/v1/studies/{study_id}").status_code == 204
        listener.await_end()
        assert listener.types[-1] in ("study.cancelled", "study.deleted")
        assert client.get(f"/v1/studies/{study_id}/events").status_code == 404


def test_the_end_before_an_extension_ends_no_stream(server: LiveServer) -> None:
    study_id = make_study(server.context.database, n_trials=1)
    train(server)
    with server.client() as client:
        client.post(f"/v1/studies/{study_id}/extend", json={"add_trials": 1})
        listener = Listener(client, f"/v1/studies/{study_id}/events", after=0)
        listener.await_type("study.queued")
        assert "study.completed" in listener.types
        train(server, 0.25)
        listener.await_end()
    assert listener.types.count("study.completed") == 2


def test_a_place_whose_successors_may_be_gone_is_answered_by_a_reset(server: LiveServer) -> None:
    database = server.context.database
    write(server, *["study.best"] * 3)
    with database.transaction() as session:
        newest = newest_id(session)
        session.execute(update(EventLog).values(removed_to=newest - 1))
    with server.client() as client:
        listener = Listener(client, "/v1/events", str(newest - 2))
        listener.await_types("reset", "study.best")
        assert str(newest - 1) in listener.messages[0].data
        ahead = Listener(client, "/v1/events", str(newest + 1000))
        ahead.await_types("reset")
        assert "another database" in ahead.messages[0].data


def test_a_quiet_stream_shows_that_it_lives_and_where_it_stands(
    server: LiveServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(stream, "BEAT_S", 0.1)
    with server.client() as client:
        listener = Listener(client, "/v1/events", type="study.failed")
        write(server, "trial.epoch")
        newest = str(server.context.feed.safe)
        until(lambda: listener.raw.count(b": \n") > 2)
        until(lambda: int(listener.parser.last_id or 0) >= int(newest))
    assert listener.raw.startswith(b"retry: 2000\n\n: \nid: ")
    assert listener.messages == []


def test_a_stream_ends_after_its_time_so_that_its_key_is_checked_again(
    server: LiveServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(stream, "BEAT_S", 0.05)
    monkeypatch.setattr(stream, "LONGEST_S", 0.2)
    with server.client() as client:
        Listener(client, "/v1/events").await_end()


def test_a_long_past_is_told_in_order_page_by_page_and_joins_what_is_new(
    server: LiveServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(stream, "PAGE", 10)
    for number in range(35):
        write(server, "trial.epoch", count=number)
    with server.client() as client:
        listener = Listener(client, "/v1/events", after=0)
        for number in range(35, 45):
            write(server, "trial.epoch", count=number)
        until(lambda: len(listener.messages) == 45)
    told = [json.loads(message.data)["data"]["count"] for message in listener.messages]
    assert told == list(range(45))


def test_a_hundred_streams_cost_the_database_no_more_than_one(server: LiveServer) -> None:
    study_id = make_study(server.context.database, n_trials=1)
    selects: list[str] = []

    def note(_connection: object, _cursor: object, statement: str, *_: object) -> None:
        if "FROM event" in statement:
            selects.append(statement)

    with server.client() as client:
        listeners = [Listener(client, f"/v1/studies/{study_id}/events") for _ in range(100)]
        assert {listener.status for listener in listeners} == {200}
        engine = server.context.database.engine
        event.listen(engine, "before_cursor_execute", note)
        began = time.monotonic()
        train(server)
        for listener in listeners:
            listener.await_end()
        took_s = time.monotonic() - began
        event.remove(engine, "before_cursor_execute", note)
    assert all(heard.types == [*TRIAL, "study.completed"] for heard in listeners)
    # The follower looks four times a second, and twice more where there is something new.
    assert len(selects) <= 3 * (took_s / 0.25 + 2)


def test_who_reads_nothing_is_cut_off_and_holds_nobody_up(
    server: LiveServer, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(slow_reader, "SEND_S", 0.5)
    key = server.headers["Authorization"]
    request = f"GET /v1/events HTTP/1.1\r\nHost: x\r\nAuthorization: {key}\r\n\r\n"
    deaf = socket.socket()
    deaf.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    with server.client() as client, deaf:
        deaf.connect(("127.0.0.1", server.port))
        deaf.sendall(request.encode())
        deaf.recv(100)
        listener = Listener(client, "/v1/events")
        for _ in range(40):
            write(server, *["trial.epoch"] * 10, filler="x" * 20_000)
        until(lambda: len(listener.messages) == 400)
        until(lambda: "takes nothing" in caplog.text)


def test_a_server_that_stops_waits_for_no_stream(database: Database, tmp_path: Path) -> None:
    with live_server(database, tmp_path / "home") as server, server.client() as client:
        listener = Listener(client, "/v1/events")
        began = time.monotonic()
        server.stop()
        assert time.monotonic() - began < 5
        listener.await_end()


def test_the_client_iterates_over_a_study_that_runs_to_its_end(server: LiveServer) -> None:
    study_id = make_study(server.context.database, n_trials=1)
    key = server.headers["Authorization"].removeprefix("Bearer ")

    async def follow() -> list[str]:
        async with AsyncApi(server.url, key) as api:
            return [event.type async for event in api.events(study_id, after=0)]

    with Api(server.url, key) as api:
        assert list(api.events(study_id, after=0, follow=False)) == []
        events = api.events(study_id, after=0)
        train(server)
        assert [event.type for event in events] == [*TRIAL, "study.completed"]
        past = list(api.events(after=0, follow=False))
        assert [event.type for event in past] == [*TRIAL, "study.completed"]
        best = api.events(after=0, follow=False, types=["study.best"])
        assert [event.data["number"] for event in best] == [0]
        assert list(api.events(after=past[-1].id, follow=False)) == []
        assert list(api.events(follow=False)) == []
    assert asyncio.run(follow()) == [*TRIAL, "study.completed"]
