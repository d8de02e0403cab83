"""Webhooks against a real receiver: signed, retried, recorded, and never let into the house."""

import asyncio
import json
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from api_server import ApiServer, serving
from builders import make_study
from real_parts import until
from receiver import Receiver, answering_raw, receiving
from sqlalchemy import func, select, update

from service.store import deliveries
from service.store.database import Database
from service.store.deliveries import claim_due, delay_s
from service.store.events import append_event
from service.store.tables import StudyLabel, Webhook, WebhookDelivery
from service.webhooks import posting
from service.webhooks.addresses import AllowedPlaces
from service.webhooks.fan_out import FanOut
from studies.webhooks import verify

LOOPBACK = {"webhook_private": ("127.0.0.0/8",), "webhook_retry_s": 0.05}
SECRET = "a secret of sixteen or more"


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    with receiving() as started:
        yield started


@pytest.fixture
def api(database: Database, tmp_path: Path) -> Iterator[ApiServer]:
    with serving(database, tmp_path / "home", **LOOPBACK) as server:
        until(lambda: server.context.feed.safe is not None)
        yield server


def save(api: ApiServer, url: str, **fields: Any) -> dict[str, Any]:
    body = {"name": "hook", "url": url, "events": ["*"], **fields}
    answer = api.client.post("/v1/webhooks", json=body)
    assert answer.status_code == 201, answer.text
    return dict(answer.json())


def happen(api: ApiServer, *kinds: str, study_id: str | None = None, **data: Any) -> None:
    with api.context.database.transaction() as session:
        for kind in kinds:
            append_event(session, kind, study_id=study_id, data=data)


def listed(api: ApiServer, webhook: dict[str, Any]) -> list[dict[str, Any]]:
    return list(api.get(f"/v1/webhooks/{webhook['id']}/deliveries")["items"])


def to(receiver: Receiver, path: str) -> int:
    return [request.path for request in receiver.received].count(path)


def the_delivery(api: ApiServer, webhook: dict[str, Any], state: str) -> dict[str, Any]:
    """The only delivery, once it is in this state."""
    until(lambda: [each["state"] for each in listed(api, webhook)] == [state])
    return listed(api, webhook)[0]


def test_an_event_arrives_signed_and_its_delivery_is_recorded(
    api: ApiServer, receiver: Receiver
) -> None:
    webhook = save(api, f"{receiver.url}/here?a=1", secret=SECRET)
    happen(api, "study.completed", best=4, value=0.5)
    delivery = the_delivery(api, webhook, "delivered")
    (request,) = receiver.received
    assert request.path == "/here?a=1"
    assert request.headers["bertune-event"] == "study.completed"
    assert request.headers["bertune-attempt"] == "1"
    assert request.headers["content-type"] == "application/json"
    assert request.headers["user-agent"].startswith("Bertune/")
    assert request.delivery == delivery["id"]
    event = verify(request.body, request.headers["bertune-signature"], SECRET)
    assert event["data"] == {"best": 4, "value": 0.5}
    assert event["id"] == delivery["event_id"]
    (attempt,) = delivery["attempts"]
    assert (attempt["status"], attempt["error"]) == (204, None)
    assert attempt["latency_ms"] >= 0
    assert delivery["next_attempt_at"] is None


def test_a_webhook_gets_the_types_and_labels_that_it_asked_for(
    api: ApiServer, receiver: Receiver
) -> None:
    database = api.context.database
    ours, theirs = make_study(database), make_study(database)
    with database.transaction() as session:
        session.add(StudyLabel(study_id=ours, key="team", value="support"))
    save(api, receiver.url, events=["study.*", "trial.*"], labels={"team": "support"})
    happen(api, "study.paused", "trial.failed", study_id=theirs)
    happen(api, "schedule.skipped")
    happen(api, "study.running", "trial.epoch", "trial.failed", "study.best", study_id=ours)
    until(lambda: len(receiver.received) == 3)
    assert sorted(receiver.types) == ["study.best", "study.running", "trial.failed"]
    assert all(json.loads(request.body)["study"] == "tickets" for request in receiver.received)


def test_epochs_are_sent_to_who_names_them(api: ApiServer, receiver: Receiver) -> None:
    save(api, receiver.url, events=["trial.epoch"])
    happen(api, "trial.epoch")
    until(lambda: receiver.types == ["trial.epoch"])


def test_a_receiver_that_fails_at_first_gets_the_same_delivery_again(
    api: ApiServer, receiver: Receiver
) -> None:
    receiver.answer = lambda _request: 500 if len(receiver.received) < 3 else 200
    webhook = save(api, receiver.url)
    happen(api, "study.failed")
    delivery = the_delivery(api, webhook, "delivered")
    assert [attempt["status"] for attempt in delivery["attempts"]] == [500, 500, 200]
    assert [attempt["attempt"] for attempt in delivery["attempts"]] == [1, 2, 3]
    assert "It answered 500." in delivery["attempts"][0]["error"]
    assert len({(request.delivery, request.body) for request in receiver.received}) == 1


def test_a_delivery_that_fails_too_often_is_given_up_until_somebody_sends_it_anew(
    api: ApiServer, receiver: Receiver, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(deliveries, "MOST_FAILURES", 2)
    receiver.answer = lambda _request: 503
    webhook = save(api, receiver.url)
    happen(api, "study.failed")
    delivery = the_delivery(api, webhook, "failed")
    assert (len(delivery["attempts"]), delivery["next_attempt_at"]) == (2, None)
    receiver.answer = lambda _request: 200
    path = f"/v1/webhooks/{webhook['id']}/deliveries"
    again = api.client.post(f"{path}/{delivery['id']}/redeliver")
    assert (again.status_code, again.json()["state"]) == (202, "pending")
    assert len(the_delivery(api, webhook, "delivered")["attempts"]) == 3
    assert len({request.delivery for request in receiver.received}) == 1
    unknown = api.client.post(f"{path}/nope/redeliver")
    assert (unknown.status_code, unknown.json()["error"]) == (404, "unknown_delivery")


def test_redirects_are_not_followed(api: ApiServer, receiver: Receiver) -> None:
    receiver.answer = lambda request: (302, {"Location": f"{receiver.url}/inside"})
    webhook = save(api, receiver.url)
    answer = api.client.post(f"/v1/webhooks/{webhook['id']}/test").json()
    assert answer["state"] == "failed"
    assert "redirects are not followed" in answer["attempts"][0]["error"]
    assert [request.path for request in receiver.received] == ["/"]


@pytest.mark.parametrize(
    ("answer", "complaint"),
    [
        (b"", "RemoteProtocolError"),
        (b"what is this?\r\n\r\n", "RemoteProtocolError"),
        (b"HTTP/1.1 200 OK\r\nx: " + b"y" * 300_000, "RemoteProtocolError"),
    ],
)
def test_garbage_is_recorded_as_a_failure(api: ApiServer, answer: bytes, complaint: str) -> None:
    with answering_raw(answer) as url:
        webhook = save(api, url)
        told = api.client.post(f"/v1/webhooks/{webhook['id']}/test").json()
    (attempt,) = told["attempts"]
    assert (told["state"], attempt["status"]) == ("failed", None)
    assert attempt["error"].startswith((complaint, "ReadError"))


def test_an_answer_without_end_is_read_no_further_than_its_status(api: ApiServer) -> None:
    head = b"HTTP/1.1 200 OK\r\nContent-Length: 99999999999\r\n\r\n"
    with answering_raw(head + b"x" * 100_000) as url:
        webhook = save(api, url)
        told = api.client.post(f"/v1/webhooks/{webhook['id']}/test").json()
    assert (told["state"], told["attempts"][0]["status"]) == ("delivered", 200)


def test_a_receiver_that_hangs_holds_up_no_other(
    api: ApiServer, receiver: Receiver, monkeypatch: pytest.MonkeyPatch
) -> None:
    save(api, f"{receiver.url}/hang", name="slow")
    save(api, f"{receiver.url}/quick", name="quick")
    began = time.monotonic()
    happen(api, *["study.best"] * 30)
    until(lambda: to(receiver, "/quick") == 30)
    assert time.monotonic() - began < posting.TOTAL_S
    assert to(receiver, "/hang") <= 4


def test_a_receiver_that_hangs_is_given_up_in_time(
    api: ApiServer, receiver: Receiver, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(posting, "TOTAL_S", 0.3)
    webhook = save(api, f"{receiver.url}/hang")
    told = api.client.post(f"/v1/webhooks/{webhook['id']}/test").json()
    assert told["attempts"][0]["error"] == "No answer within 0.3 s."


def test_a_server_that_stops_waits_for_no_receiver_and_the_next_one_sends_again(
    database: Database, tmp_path: Path, receiver: Receiver, monkeypatch: pytest.MonkeyPatch
) -> None:
    with serving(database, tmp_path / "home", **LOOPBACK) as api:
        until(lambda: api.context.feed.safe is not None)
        webhook = save(api, f"{receiver.url}/hang")
        happen(api, "study.completed")
        until(lambda: receiver.received)
        stopping = time.monotonic()
    assert time.monotonic() - stopping < 10
    with database.transaction() as session:  # as if the claim's time had passed
        session.execute(update(WebhookDelivery).values(next_attempt_at=0))
        session.execute(update(Webhook).values(url=receiver.url))
    with serving(database, tmp_path / "home", **LOOPBACK) as api:
        delivery = the_delivery(api, webhook, "delivered")
    first, second = delivery["attempts"]
    assert (first["status"], first["error"], second["status"]) == (None, None, 204)
    assert len({request.delivery for request in receiver.received}) == 1


def test_each_connection_is_checked_anew_since_names_may_come_to_stand_for_other_addresses(
    receiver: Receiver,
) -> None:
    port = receiver.url.rpartition(":")[2]
    for host in ("127.0.0.1", "localhost", "[::ffff:127.0.0.1]", "2130706433"):
        told = asyncio.run(
            posting.post(f"http://{host}:{port}/", {}, b"{}", AllowedPlaces.parse(()))
        )
        assert told.status is None
        assert "not public" in (told.error or "") or "resolved" in (told.error or "")
    assert receiver.received == []


@pytest.mark.parametrize(
    ("fields", "code", "where"),
    [
        ({"url": "ftp://example.org/"}, "invalid_request", "url"),
        ({"url": "http://"}, "invalid_request", "url"),
        ({"url": "http://user:word@example.org/"}, "invalid_request", "url"),
        ({"url": "http://example.org:port/"}, "invalid_request", "url"),
        ({"url": "http://exa mple.org/"}, "invalid_request", "url"),
        ({"url": "http://10.0.0.1/"}, "private_address", "url"),
        ({"url": "http://[::1]/"}, "private_address", "url"),
        ({"url": "http://169.254.169.254/latest"}, "private_address", "url"),
        ({"url": "http://no-such-host.invalid/"}, "unknown_host", "url"),
        ({"events": ["study.complete"]}, "invalid_request", "events"),
        ({"events": []}, "invalid_request", "events"),
        ({"secret": "short"}, "invalid_request", "secret"),
        ({"template": "slack", "text": "{nope}"}, "invalid_template", "text"),
        ({"template": "text"}, "invalid_template", "text"),
        ({"text": "{study}"}, "invalid_template", "text"),
        ({"colour": "blue"}, "invalid_request", "colour"),
    ],
)
def test_a_webhook_that_cannot_work_is_not_saved(
    api: ApiServer, fields: dict[str, Any], code: str, where: str
) -> None:
    body = {"name": "hook", "url": "http://127.0.0.1:9/", **fields}
    answer = api.client.post("/v1/webhooks", json=body)
    assert (answer.status_code, answer.json()["error"]) == (422, code), answer.text
    assert where in answer.json()["where"]
    assert api.get("/v1/webhooks")["items"] == []


def test_a_secret_is_shown_once_when_it_was_made_up_and_otherwise_never(
    api: ApiServer, receiver: Receiver, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("DEBUG")
    given = save(api, receiver.url, name="given", secret=SECRET)
    made_up = save(api, receiver.url, name="made up")
    assert given["secret"] is None
    assert made_up["secret"].startswith("whsec_")
    shown = api.client.get("/v1/webhooks").text + caplog.text
    for webhook in (given, made_up):
        path = f"/v1/webhooks/{webhook['id']}"
        shown += api.client.get(path).text + api.client.post(f"{path}/test").text
        shown += api.client.get(f"{path}/deliveries").text
    renewed = api.client.patch(f"/v1/webhooks/{given['id']}", json={"secret": None}).json()
    assert renewed["secret"].startswith("whsec_")
    api.client.post(f"/v1/webhooks/{given['id']}/test")
    request = receiver.received[-1]
    assert verify(request.body, request.headers["bertune-signature"], renewed["secret"])
    for secret in (SECRET, made_up["secret"], renewed["secret"]):
        assert secret not in shown + caplog.text


def test_a_webhook_is_changed_switched_off_and_on_and_removed(
    api: ApiServer, receiver: Receiver
) -> None:
    webhook = save(api, receiver.url)
    path = f"/v1/webhooks/{webhook['id']}"
    other = api.client.post("/v1/webhooks", json={"name": "other", "url": receiver.url}).json()
    taken = api.client.patch(path, json={"name": "other"})
    assert (taken.status_code, taken.json()["error"]) == (409, "name_taken")
    nothing = api.client.patch(path, json={"url": None})
    assert (nothing.status_code, nothing.json()["where"]) == (422, ["body", "url"])
    off = api.client.patch(path, json={"enabled": False, "events": ["study.best"]}).json()
    assert (off["enabled"], off["events"], off["disabled_reason"]) == (False, ["study.best"], None)
    happen(api, "study.best")
    until(lambda: len(api.get(f"/v1/webhooks/{other['id']}/deliveries")["items"]) == 0)
    safe = api.context.feed.safe or 0
    happen(api, "study.paused")
    until(lambda: (api.context.feed.safe or 0) > safe)
    assert api.client.patch(path, json={"enabled": True}).json()["enabled"]
    happen(api, "study.best")
    the_delivery(api, webhook, "delivered")
    assert len(receiver.received) == 1  # what happened while it was off is not sent
    assert [each["name"] for each in api.get("/v1/webhooks", name="hook")["items"]] == ["hook"]
    assert api.client.delete(path).status_code == 204
    for call in (api.client.get, api.client.delete):
        assert call(path).json()["error"] == "unknown_webhook"
    with api.context.database.reading() as session:
        assert session.scalar(select(func.count()).select_from(WebhookDelivery)) == 0


def test_a_test_says_at_once_what_came_of_it(api: ApiServer, receiver: Receiver) -> None:
    webhook = save(api, receiver.url, template="slack", text="{sentence}", enabled=False)
    told = api.client.post(f"/v1/webhooks/{webhook['id']}/test").json()
    assert (told["state"], told["event_id"]) == ("delivered", None)
    assert json.loads(receiver.received[0].body) == {"text": "Webhook hook works."}
    receiver.answer = lambda _request: 404
    told = api.client.post(f"/v1/webhooks/{webhook['id']}/test").json()
    assert (told["state"], told["attempts"][0]["status"]) == ("failed", 404)


def test_a_receiver_that_is_gone_is_not_asked_again_and_the_log_says_so(
    api: ApiServer, receiver: Receiver
) -> None:
    receiver.answer = lambda _request: 410
    webhook = save(api, receiver.url)
    happen(api, "study.completed")
    path = f"/v1/webhooks/{webhook['id']}"
    until(lambda: not api.get(path)["enabled"])
    assert "410" in api.get(path)["disabled_reason"]
    assert len(receiver.received) == 1


def test_a_webhook_that_failed_for_days_is_switched_off(api: ApiServer, receiver: Receiver) -> None:
    receiver.answer = lambda _request: 500
    webhook = save(api, receiver.url)
    happen(api, "study.completed")
    until(lambda: receiver.received)
    with api.context.database.transaction() as session:
        session.execute(update(Webhook).values(failing_since=1.0))
    until(lambda: not api.get(f"/v1/webhooks/{webhook['id']}")["enabled"])
    assert "5 days" in api.get(f"/v1/webhooks/{webhook['id']}")["disabled_reason"]


def test_deliveries_come_in_pages_newest_first(api: ApiServer, receiver: Receiver) -> None:
    webhook = save(api, receiver.url)
    happen(api, *["study.best"] * 5)
    path = f"/v1/webhooks/{webhook['id']}/deliveries"
    until(lambda: len(api.get(path, state="delivered")["items"]) == 5)
    first = api.get(path, limit=3)
    second = api.get(path, limit=3, cursor=first["next_cursor"])
    assert second["next_cursor"] is None
    ids = [each["id"] for each in first["items"] + second["items"]]
    assert ids == sorted(ids, reverse=True)
    assert len(set(ids)) == 5


def test_servers_that_look_at_once_queue_and_claim_each_delivery_once(
    api: ApiServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    database = api.context.database
    until(lambda: api.context.feed.safe is not None)
    save(api, "http://127.0.0.1:9/", enabled=True)
    with database.transaction() as session:  # the server's own sender shall not be quicker
        session.execute(update(Webhook).values(enabled=False))
    happen(api, *["study.best"] * 40)
    newest = 40
    until(lambda: (api.context.feed.safe or 0) >= newest)
    fan_outs = [FanOut(api.context) for _ in range(4)]
    start = threading.Barrier(4)
    claimed: list[str] = []

    def look(fan_out: FanOut) -> None:
        start.wait(10)
        fan_out.step()
        with database.transaction() as session:
            claimed.extend(job.delivery_id for job in claim_due(session, {}, each=100, most=100))

    original = api.context.feed.safe
    assert original is not None
    with database.transaction() as session:
        session.execute(update(Webhook).values(enabled=True, after_event=0))
    threads = [threading.Thread(target=look, args=(fan_out,)) for fan_out in fan_outs]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    with database.reading() as session:
        events = list(session.scalars(select(WebhookDelivery.event_id)))
    assert len(events) == len(set(events)) == 40
    assert len(claimed) == len(set(claimed))


def test_pauses_between_attempts_grow_and_end_at_six_hours() -> None:
    pauses = [delay_s(failures, 5.0) for failures in range(1, 10)]
    for pause, middle in zip(
        pauses, [5, 20, 80, 320, 1280, 5120, 20480, 21600, 21600], strict=True
    ):
        assert 0.8 * middle <= pause <= 1.2 * middle
