"""Schedules by REST: saved when all of them is right, edited without losing a fire."""

import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import httpx
import pytest
from api_server import TICKETS, ApiServer, serving
from builders import make_dataset
from fake_clock import FakeClock, use_fake_clock
from fastapi.testclient import TestClient

from service.schedules import saving
from service.schedules.tick import tick
from service.store.database import Database
from studies.api import Api, ApiError
from studies.wire.schedules import ScheduleSpec

NOON = datetime(2026, 3, 2, 12, tzinfo=UTC)
"""A Monday."""


class Server:
    """The API at a time that a test sets; fires are dealt with when `tick` is called."""

    def __init__(self, api: ApiServer, clock: FakeClock, data: Path) -> None:
        self.api = api
        self.data = data
        self._clock = clock
        self.dataset = make_dataset(api.context.database)

    def at(self, minutes: float) -> None:
        self._clock.set(NOON + timedelta(minutes=minutes))

    def tick(self) -> int:
        return tick(self.api.context)

    def body(self, **fields: Any) -> dict[str, Any]:
        study = {"dataset": self.dataset, "budget": {"n_trials": 1}}
        body = {"name": "nightly", "cron": "*/5 * * * *", "study": study, **fields}
        return {name: value for name, value in body.items() if value is not None}

    def save(self, **fields: Any) -> dict[str, Any]:
        answer = self.api.client.post("/v1/schedules", json=self.body(**fields))
        assert answer.status_code == 201, answer.text
        return dict(answer.json())

    def change(self, schedule: dict[str, Any], **patch: Any) -> dict[str, Any]:
        answer = self.api.client.patch(f"/v1/schedules/{schedule['id']}", json=patch)
        assert answer.status_code == 200, answer.text
        return dict(answer.json())

    def fire_now(self, schedule: dict[str, Any], key: str | None = None) -> dict[str, Any]:
        headers = {} if key is None else {"Idempotency-Key": key}
        answer = self.api.client.post(f"/v1/schedules/{schedule['id']}/run", headers=headers)
        assert answer.status_code == 201, answer.text
        return dict(answer.json())

    def runs(self, schedule: dict[str, Any]) -> list[tuple[str, str | None]]:
        """Time of day and reason (None when submitted), in order."""
        items = self.api.get(f"/v1/schedules/{schedule['id']}/runs")["items"]
        return [(run["fire_time"][11:16], run["reason"]) for run in reversed(items)]


@pytest.fixture
def server(database: Database, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    use_fake_clock(monkeypatch)
    clock = FakeClock(database)
    clock.make(NOON)
    data = tmp_path / "data"
    data.mkdir()
    # The server's own thread never looks, so that every fire is a test's.
    with serving(database, tmp_path / "home", data_dirs=(data,), schedule_s=10_000) as api:
        yield Server(api, clock, data)


def refusal(answer: Any) -> tuple[int, str, list[Any]]:
    body = answer.json()
    assert set(body) == {"error", "detail", "where"}
    return answer.status_code, body["error"], body["where"]


def test_a_schedule_is_saved_read_listed_and_removed(server: Server) -> None:
    made = server.save(timezone="Europe/Berlin", cron="30 14 * * *")
    assert made["spec"]["cron"] == "30 14 * * *"
    assert (made["enabled"], made["last_run"], made["champion"]) == (True, None, None)
    assert made["next_fire_time"] == "2026-03-02T13:30:00.000Z"
    assert [time[:10] for time in made["upcoming"]] == [f"2026-03-0{n}" for n in range(2, 7)]
    other = server.save(name="hourly", cron=None, every_s=3600)
    page = server.api.get("/v1/schedules", limit=1)
    assert [item["name"] for item in (i["spec"] for i in page["items"])] == ["hourly"]
    rest = server.api.get("/v1/schedules", cursor=page["next_cursor"])
    assert rest == {"items": [made], "next_cursor": None}
    assert server.api.get("/v1/schedules", name="hourly")["items"] == [other]
    address = f"/v1/schedules/{made['id']}"
    assert server.api.get(address) == made
    assert server.api.client.delete(address).status_code == 204
    for answer in (server.api.client.get(address), server.api.client.delete(address)):
        assert refusal(answer) == (404, "unknown_schedule", ["path", "schedule_id"])
    server.save()


def test_a_check_shows_the_next_fires_in_the_zone_and_the_study_and_stores_nothing(
    server: Server,
) -> None:
    body = server.body(
        cron="30 2 * * *",
        timezone="Europe/Berlin",
        data={"train": "{yesterday}.csv"},
        study={"name": "t-{date}", "labels": {"week": "{week}"}, "budget": {"n_trials": 7}},
    )
    (server.data / "other.csv").write_text(TICKETS)
    answer = server.api.client.post("/v1/schedules/validate", json=body)
    assert answer.status_code == 200, answer.text
    check = answer.json()
    assert check["upcoming"][0] == "2026-03-03T01:30:00.000Z"
    assert check["local_times"][0] == "2026-03-03T02:30:00+01:00"
    assert (len(check["upcoming"]), len(check["local_times"])) == (5, 5)
    study = check["study"]
    assert (study["name"], study["budget"]["n_trials"]) == ("t-2026-03-03", 7)
    assert study["labels"] == {"schedule": "nightly", "week": "2026-W10"}
    assert "dataset" not in study
    assert check["warnings"] == [
        "train: There is no file 2026-03-02.csv on the server. The fire needs it."
    ]
    assert server.api.get("/v1/schedules")["items"] == []


SPACE = {"learning_rate": {"type": "float", "low": 1.0, "high": 0.1}}
BAD: list[tuple[str, dict[str, Any], str, list[Any]]] = [
    ("no timing", {"cron": None}, "invalid_timing", ["cron"]),
    ("two timings", {"every_s": 600}, "invalid_timing", ["every_s"]),
    ("a day that never comes", {"cron": "30 2 30 2 *"}, "invalid_cron", ["cron"]),
    ("every second", {"cron": "* * * * * *"}, "invalid_cron", ["cron"]),
    ("a zone that is none", {"timezone": "Europe/Nowhere"}, "unknown_timezone", ["timezone"]),
    ("too often", {"cron": None, "every_s": 1}, "invalid_request", ["every_s"]),
    ("a past time", {"cron": None, "at": "2026-03-02T11:00:00Z"}, "invalid_timing", ["at"]),
    ("far past", {"cron": None, "at": "0001-01-01T00:00:00"}, "invalid_timing", ["at"]),
    ("no study", {"study": None}, "invalid_request", ["study"]),
    ("no data", {"study": {}}, "missing_dataset", ["study", "dataset"]),
    ("unknown data", {"study": {"dataset": "no"}}, "unknown_dataset", ["study", "dataset"]),
    ("unknown field", {"crom": "x"}, "invalid_request", ["crom"]),
    ("overlap", {"overlap": "maybe"}, "invalid_request", ["overlap"]),
    ("no fresh data", {"skip_unchanged": True}, "invalid_value", ["skip_unchanged"]),
    ("control", {"managed_by": "a\x00b"}, "invalid_request", ["managed_by"]),
]
BAD_STUDIES: list[tuple[str, dict[str, Any], str, list[Any]]] = [
    ("template", {"name": "n-{dat}"}, "invalid_template", ["name"]),
    ("label", {"labels": {"day": "{dat}"}}, "invalid_template", ["labels", "day"]),
    ("range", {"search_space": SPACE}, "inverted_range", ["search_space", "learning_rate"]),
    (
        "type",
        {"search_space": {"learning_rate": {"type": "float", "low": "x", "high": 1}}},
        "invalid_value",
        ["search_space", "learning_rate", "low"],
    ),
    ("budget", {"budget": {"n_trials": 0}}, "invalid_value", ["budget", "n_trials"]),
    ("long name", {"name": "x" * 119 + "{date}"}, "invalid_value", ["name"]),
    ("model", {"model": "local:gone"}, "unknown_model", ["model"]),
    ("metric", {"objective": {"metric": "beauty"}}, "unknown_metric", ["objective", "metric"]),
]
BAD_DATA: list[tuple[str, Any, str, list[Any]]] = [
    ("outside", {"train": "../x.csv"}, "path_not_allowed", ["data", "train"]),
    ("absolute", {"train": "a.csv", "test": "/etc/passwd"}, "path_not_allowed", ["data", "test"]),
    ("field", {"train": "{nope}.csv"}, "invalid_template", ["data", "train"]),
    ("option", {"train": "a", "options": {"x": 1}}, "unknown_option", ["data", "options", "x"]),
    ("nul", {"train": "a\x00"}, "invalid_request", ["data", "train"]),
    ("type", {"train": 5}, "invalid_request", ["data", "train"]),
    ("hub name", {"hub": "a b"}, "invalid_request", ["data", "hub"]),
    ("neither", {}, "invalid_request", ["data", "train"]),
]


def test_a_faulty_schedule_is_refused_where_it_is_wrong_and_not_stored(server: Server) -> None:
    cases = [
        *BAD,
        *((what, {"study": {"dataset": server.dataset, **study}}, code, ["study", *where])
          for what, study, code, where in BAD_STUDIES),
        *((f"{what}, no data yet", {"data": {"train": "a.csv"}, "study": study}, code,
           ["study", *where]) for what, study, code, where in BAD_STUDIES),
        *((what, {"data": data, "study": {}}, code, where) for what, data, code, where in BAD_DATA),
        ("both", {"data": {"train": "a.csv"}}, "invalid_value", ["study", "dataset"]),
        ("no model stays", {
            "champion": {},
            "study": {"dataset": server.dataset, "checkpoint": {"keep": "none"}},
        }, "invalid_value", ["study", "checkpoint", "keep"]),
    ]  # fmt: skip
    for what, fields, code, where in cases:
        for path in ("/v1/schedules", "/v1/schedules/validate"):
            answer = server.api.client.post(path, json=server.body(**fields))
            assert refusal(answer) == (422, code, ["body", *where]), (what, answer.text)
    assert server.api.get("/v1/schedules")["items"] == []


def test_a_name_is_taken_once(server: Server) -> None:
    server.save()
    other = server.save(name="other")
    for answer in (
        server.api.client.post("/v1/schedules", json=server.body()),
        server.api.client.patch(f"/v1/schedules/{other['id']}", json={"name": "nightly"}),
    ):
        assert refusal(answer) == (409, "name_taken", ["body", "name"])


def test_an_edit_keeps_what_it_leaves_out_and_null_takes_a_field_away(server: Server) -> None:
    made = server.save(warm_start="previous", grace_s=10, champion={"alpha": 0.01})
    changed = server.change(made, cron="0 13 * * *", overlap="allow", warm_start=None)
    assert changed["spec"] == {
        **made["spec"],
        "cron": "0 13 * * *",
        "overlap": "allow",
        "warm_start": None,
    }
    assert changed["next_fire_time"] == "2026-03-02T13:00:00.000Z"
    hourly = server.change(made, every_s=7200)
    assert (hourly["spec"]["cron"], hourly["spec"]["every_s"]) == (None, 7200)
    once = server.change(made, at="2026-03-05T09:00:00", timezone="Asia/Tokyo")
    assert (once["spec"]["every_s"], once["upcoming"]) == (None, ["2026-03-05T00:00:00.000Z"])
    whole = server.change(made, **server.body(every_s=None, at=None))
    assert (whole["spec"]["cron"], whole["spec"]["at"]) == ("*/5 * * * *", None)


@pytest.mark.parametrize(
    ("patch", "code", "where"),
    [
        ({"cron": "60 * * * *"}, "invalid_cron", ["cron"]),
        ({"cron": None}, "invalid_timing", ["cron"]),
        ({"overlap": None}, "invalid_request", ["overlap"]),
        ({"grace_s": -1}, "invalid_request", ["grace_s"]),
        ({"champion": {"alpha": 2}}, "invalid_request", ["champion", "alpha"]),
        ({"study": {"dataset": "no"}}, "unknown_dataset", ["study", "dataset"]),
        ({"data": {"train": "a.csv"}}, "invalid_value", ["study", "dataset"]),
        ({"at": "2020-01-01T00:00:00Z"}, "invalid_timing", ["at"]),
        ({"nmae": "x"}, "invalid_request", ["nmae"]),
    ],
)
def test_an_edit_that_makes_no_whole_is_refused_and_changes_nothing(
    server: Server, patch: dict[str, Any], code: str, where: list[str]
) -> None:
    made = server.save()
    answer = server.api.client.patch(f"/v1/schedules/{made['id']}", json=patch)
    assert refusal(answer) == (422, code, ["body", *where])
    assert server.api.get(f"/v1/schedules/{made['id']}") == made


def test_a_paused_schedule_has_no_fires_and_resuming_makes_none_good(server: Server) -> None:
    made = server.save(overlap="allow")
    paused = server.change(made, enabled=False)
    assert (paused["enabled"], paused["next_fire_time"], paused["upcoming"]) == (False, None, [])
    server.at(12)
    assert server.tick() == 0
    resumed = server.change(made, enabled=True)
    assert resumed["next_fire_time"] == "2026-03-02T12:15:00.000Z"
    assert server.tick() == 0
    server.at(15)
    assert server.tick() == 1
    assert server.runs(made) == [("12:15", None)]


def test_fires_that_were_due_when_it_was_paused_are_accounted_for(server: Server) -> None:
    made = server.save()
    server.at(10.1)
    paused = server.change(made, enabled=False)
    assert server.tick() == 0
    assert server.runs(made) == [("12:05", "paused"), ("12:10", "paused")]
    assert paused["last_run"]["fire_time"] == "2026-03-02T12:10:00.000Z"


def test_a_fire_that_was_due_before_an_edit_goes_by_what_the_edit_says(server: Server) -> None:
    made = server.save()
    server.at(5.1)
    changed = server.change(
        made, cron="7 * * * *", study={"name": "new", "dataset": server.dataset}
    )
    assert changed["upcoming"][:2] == ["2026-03-02T12:05:00.000Z", "2026-03-02T12:07:00.000Z"]
    assert server.tick() == 1
    assert server.runs(made) == [("12:05", None)]
    assert [study["name"] for study in server.api.get("/v1/studies")["items"]] == ["new"]


def test_a_schedule_that_fires_once_rests_afterwards_and_can_be_edited(server: Server) -> None:
    made = server.save(cron=None, at="2026-03-02T12:03:00Z")
    server.at(3)
    assert server.tick() == 1
    rested = server.api.get(f"/v1/schedules/{made['id']}")
    assert (rested["enabled"], rested["next_fire_time"]) == (True, None)
    assert server.change(made, name="launched")["next_fire_time"] is None
    again = server.change(made, at="2026-03-02T12:04:00Z")
    assert again["next_fire_time"] == "2026-03-02T12:04:00.000Z"


def test_a_run_now_answers_what_became_of_it(server: Server) -> None:
    path = server.data / "t.csv"
    path.write_text(TICKETS)
    made = server.save(
        data={"train": "t.csv"}, study={"budget": {"n_trials": 1}}, skip_unchanged=True
    )
    server.at(1)
    run = server.fire_now(made)
    assert (run["outcome"], run["trigger"], run["reason"]) == ("submitted", "manual", None)
    study = server.api.get(f"/v1/studies/{run['study_id']}")
    assert (study["name"], study["dataset"]) == ("nightly-2026-03-02", run["dataset_id"])
    twice = server.fire_now(made)
    assert (twice["outcome"], twice["reason"], twice["study_id"]) == ("skipped", "overlap", None)
    assert server.api.client.post(f"/v1/studies/{study['id']}/cancel").status_code == 200
    again = server.fire_now(made)  # unchanged data, but somebody asked
    assert (again["outcome"], again["dataset_id"]) == ("submitted", run["dataset_id"])
    gone = server.api.client.post("/v1/schedules/none/run")
    assert refusal(gone) == (404, "unknown_schedule", ["path", "schedule_id"])


def test_a_run_that_is_asked_for_again_under_its_key_fires_once(server: Server) -> None:
    made = server.save(overlap="allow")
    server.at(1)
    first = server.fire_now(made, key="ci-17")
    server.at(2)
    assert server.fire_now(made, key="ci-17") == first
    with ThreadPoolExecutor(6) as threads:
        runs = list(threads.map(lambda _: server.fire_now(made, key="ci-18"), range(6)))
    assert {run["study_id"] for run in runs} == {runs[0]["study_id"]} != {first["study_id"]}
    assert len(server.runs(made)) == 2
    other = server.save(name="other", overlap="allow")
    assert server.fire_now(other, key="ci-17")["study_id"] != first["study_id"]
    assert server.fire_now(made)["study_id"] not in (first["study_id"], runs[0]["study_id"])


def test_runs_are_paged_latest_first(server: Server) -> None:
    made = server.save(overlap="allow")
    for minute in (5, 10, 15):
        server.at(minute)
        server.tick()
    seen: list[str] = []
    cursor: dict[str, str] = {}
    for left in (True, True, False):
        page = server.api.get(f"/v1/schedules/{made['id']}/runs", limit=1, **cursor)
        seen += [run["fire_time"][11:16] for run in page["items"]]
        assert (page["next_cursor"] is not None) == left
        cursor = {"cursor": page["next_cursor"]}
    assert seen == ["12:15", "12:10", "12:05"]


def test_edits_at_the_same_time_all_count_and_no_fire_is_lost_or_doubled(
    server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(saving, "MAX_TRIES", 50)
    made = server.save(overlap="allow")
    gate = threading.Barrier(5)
    patches: list[dict[str, Any]] = [
        {"grace_s": 7},
        {"warm_start": "previous"},
        {"catch_up": "none"},
        {"managed_by": "files"},
    ]

    def edit(patch: dict[str, Any]) -> None:
        gate.wait(20)
        server.change(made, **patch)

    def fire() -> None:
        gate.wait(20)
        for _ in range(10):
            server.tick()

    server.at(5)
    threads = [threading.Thread(target=edit, args=(patch,)) for patch in patches]
    threads.append(threading.Thread(target=fire))
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    server.tick()
    spec = server.api.get(f"/v1/schedules/{made['id']}")["spec"]
    assert spec["warm_start"] == {"source": "previous", "k": 5}
    assert (spec["grace_s"], spec["catch_up"], spec["managed_by"]) == (7, "none", "files")
    assert server.runs(made) == [("12:05", None)]
    assert len(server.api.get("/v1/studies")["items"]) == 1


def test_an_edit_gives_up_when_others_come_before_it_all_the_time(
    server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = server.save()
    monkeypatch.setattr(saving, "_replace", lambda *_: False)
    answer = server.api.client.patch(f"/v1/schedules/{made['id']}", json={"grace_s": 1})
    assert refusal(answer) == (409, "conflict", [])


def test_the_client_saves_checks_changes_runs_and_removes_a_schedule(server: Server) -> None:
    key = server.api.client.headers["Authorization"].removeprefix("Bearer ")
    transport = httpx.MockTransport(lambda request: _pass_on(server.api.client, request))
    with Api("http://server", key, transport=transport) as api:
        spec = ScheduleSpec.model_validate(server.body())
        assert api.validate_schedule(spec).upcoming[0] == NOON + timedelta(minutes=5)
        made = api.add_schedule(spec)
        assert made.spec == spec
        assert api.schedules() == [api.schedule("nightly")] == [api.schedule(made.id)]
        assert api.change_schedule(made.id, enabled=False).next_fire_time is None
        run = api.run_schedule(made.id)
        assert api.schedule_runs(made.id, limit=3) == [run]
        api.remove_schedule(made.id)
        assert api.schedules() == []
        with pytest.raises(ApiError, match="There is no schedule nightly"):
            api.schedule("nightly")


def _pass_on(client: TestClient, request: httpx.Request) -> httpx.Response:
    answer = client.request(
        request.method, request.url.raw_path.decode(), content=request.read(),
        headers={"content-type": "application/json"},
    )  # fmt: skip
    return httpx.Response(answer.status_code, content=answer.content)
