"""The OpenAPI document, the health routes, and errors outside of any route."""

import re
from collections.abc import Iterator
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError
from pathlib import Path
from typing import Any

import pytest
from api_server import ApiServer, serving
from sqlalchemy.exc import OperationalError

from service.app import create_app
from service.schedules.fire_times import check_timing, time_zone
from service.schedules.naming import Naming
from service.schedules.template import fire_source, fire_study
from service.settings import Settings
from service.store.database import Database
from studies.spec import StudySpec
from studies.wire.schedules import SchedulePatch, ScheduleSpec


@pytest.fixture(scope="module")
def api(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ApiServer]:
    home = tmp_path_factory.mktemp("home")
    database = Database(f"sqlite:///{home / 'bertune.db'}")
    with serving(database, home) as server:
        yield server
    database.dispose()


@pytest.fixture(scope="module")
def document(api: ApiServer) -> dict[str, Any]:
    return dict(api.get("/v1/openapi.json"))


def operations(document: dict[str, Any]) -> dict[str, dict[str, Any]]:
    return {
        f"{method} {path}": operation
        for path, methods in document["paths"].items()
        for method, operation in methods.items()
    }


def test_the_docs_page_loads_only_from_this_server(api: ApiServer) -> None:
    page = api.client.get("/v1/docs")
    loaded = re.findall(r'(?:src|href)="([^"]+)"', page.text)
    assert len(loaded) == 3
    for address in [*loaded, "/v1/openapi.json"]:
        assert address in page.text
        assert address.startswith("/v1/")
        assert api.client.get(address).status_code == 200


def test_the_document_holds_the_calls_that_the_design_names(document: dict[str, Any]) -> None:
    assert set(operations(document)) >= {
        "post /v1/datasets",
        "get /v1/datasets",
        "get /v1/datasets/{dataset_id}",
        "get /v1/datasets/{dataset_id}/files/{name}",
        "post /v1/studies",
        "post /v1/studies/validate",
        "get /v1/studies",
        "get /v1/studies/{study_id}",
        "delete /v1/studies/{study_id}",
        "post /v1/studies/{study_id}/pause",
        "post /v1/studies/{study_id}/resume",
        "post /v1/studies/{study_id}/cancel",
        "post /v1/studies/{study_id}/extend",
        "get /v1/studies/{study_id}/trials",
        "get /v1/studies/{study_id}/trials/{number}",
        "get /v1/studies/{study_id}/trials/{number}/confusion-matrix",
        "get /v1/studies/{study_id}/trials/{number}/predictions",
        "get /v1/studies/{study_id}/trials/{number}/log",
        "get /v1/studies/{study_id}/trials/{number}/artifacts",
        "get /v1/studies/{study_id}/best/model",
        "post /v1/schedules",
        "post /v1/schedules/validate",
        "get /v1/schedules",
        "get /v1/schedules/{schedule_id}",
        "patch /v1/schedules/{schedule_id}",
        "delete /v1/schedules/{schedule_id}",
        "post /v1/schedules/{schedule_id}/run",
        "get /v1/schedules/{schedule_id}/runs",
        "post /v1/webhooks",
        "get /v1/webhooks",
        "get /v1/webhooks/{webhook_id}",
        "patch /v1/webhooks/{webhook_id}",
        "delete /v1/webhooks/{webhook_id}",
        "post /v1/webhooks/{webhook_id}/test",
        "get /v1/webhooks/{webhook_id}/deliveries",
        "post /v1/webhooks/{webhook_id}/deliveries/{delivery_id}/redeliver",
        "get /v1/studies/{study_id}/events",
        "get /v1/events",
        "get /v1/workers",
        "post /v1/workers/{worker_id}/stopped",
        "post /v1/leases",
        "get /v1/leases/{trial_id}/{attempt}/resume",
        "get /healthz",
        "get /readyz",
        "get /metrics",
    }


def test_every_operation_has_a_summary_of_its_own_and_a_description(
    document: dict[str, Any],
) -> None:
    summaries = [operation.get("summary") for operation in operations(document).values()]
    assert all(summaries)
    assert len(set(summaries)) == len(summaries)
    lacking = [name for name, op in operations(document).items() if not op.get("description")]
    assert lacking == []


def test_every_operation_id_is_unique(document: dict[str, Any]) -> None:
    ids = [operation["operationId"] for operation in operations(document).values()]
    assert len(set(ids)) == len(ids)


def test_every_error_is_documented_with_the_one_error_body(document: dict[str, Any]) -> None:
    keyless = {
        "get /healthz",
        "get /readyz",
        "get /v1/schemas/study.json",
        "get /v1/schemas/schedule.json",
    }
    for name, operation in operations(document).items():
        errors = {s: r for s, r in operation["responses"].items() if s >= "400"}
        if name not in keyless:
            assert "401" in errors, name
        for status, response in errors.items():
            schema = response["content"]["application/json"]["schema"]
            assert schema == {"$ref": "#/components/schemas/ErrorAnswer"}, (name, status)


def test_every_example_of_a_study_is_a_valid_one(document: dict[str, Any]) -> None:
    body = operations(document)["post /v1/studies"]["requestBody"]
    examples = body["content"]["application/json"]["examples"]
    assert {"smallest", "full"} <= set(examples)
    for example in examples.values():
        StudySpec.model_validate(example["value"])


def test_every_example_of_a_schedule_is_a_valid_one_and_so_is_its_study(
    document: dict[str, Any],
) -> None:
    body = operations(document)["post /v1/schedules"]["requestBody"]
    examples = body["content"]["application/json"]["examples"]
    assert len(examples) == 3
    for example in examples.values():
        spec = ScheduleSpec.model_validate(example["value"])
        check_timing(spec)
        naming = Naming(datetime(2026, 3, 2, tzinfo=UTC), time_zone(spec), spec.name)
        fire_study(spec, naming, "d1" if fire_source(spec, naming) else None)
    patches = operations(document)["patch /v1/schedules/{schedule_id}"]["requestBody"]
    for example in patches["content"]["application/json"]["examples"].values():
        SchedulePatch.model_validate(example["value"])


def test_an_upload_is_documented_as_a_form(document: dict[str, Any]) -> None:
    body = operations(document)["post /v1/datasets"]["requestBody"]
    schema = body["content"]["multipart/form-data"]["schema"]
    assert schema["required"] == ["train"]
    assert set(schema["properties"]) == {"train", "validation", "test", "options", "name"}


def test_a_checkout_that_was_never_installed_is_served(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def absent(name: str) -> str:
        raise PackageNotFoundError(name)

    monkeypatch.setattr("service.app.version", absent)
    assert create_app(Settings(home=tmp_path)).version == "0+checkout"


def test_the_docs_page_is_served(api: ApiServer) -> None:
    assert "/v1/openapi.json" in api.client.get("/v1/docs").text


def test_health_needs_no_key_and_everything_else_does(api: ApiServer) -> None:
    no_key = {"Authorization": ""}
    assert api.client.get("/healthz", headers=no_key).text == "ok\n"
    assert api.client.get("/readyz", headers=no_key).json() == {"status": "ready"}
    for path in ("/v1/studies", "/v1/nope", "/metrics", "/v1/docs", "/v1/openapi.json"):
        answer = api.client.get(path, headers=no_key)
        assert (answer.status_code, answer.json()["error"]) == (401, "unauthorized")


def test_metrics_count_studies_and_trials_by_state(database: Database, tmp_path: Path) -> None:
    with serving(database, tmp_path / "home") as api:
        api.submit(dataset=api.upload(), budget={"n_trials": 4})
        answer = api.client.get("/metrics")
    assert answer.headers["content-type"].startswith("text/plain; version=0.0.4")
    lines = answer.text.splitlines()
    assert 'bertune_studies{state="queued"} 1' in lines
    assert 'bertune_trials{state="queued"} 4' in lines
    assert 'bertune_trials{state="running"} 0' in lines
    assert 'bertune_workers{state="busy"} 0' in lines


def test_unknown_addresses_and_methods_answer_the_one_error_body(api: ApiServer) -> None:
    unknown = api.client.get("/v1/nope")
    assert (unknown.status_code, unknown.json()["error"]) == (404, "not_found")
    wrong = api.client.put("/v1/studies")
    assert (wrong.status_code, wrong.json()["error"]) == (405, "method_not_allowed")
    assert "POST" in wrong.headers["allow"] or "GET" in wrong.headers["allow"]


def test_an_unforeseen_error_is_a_500_that_hides_its_inside_and_is_logged(
    api: ApiServer, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def explode(*_: object, **__: object) -> None:
        raise RuntimeError("a secret of the inside")

    monkeypatch.setattr("service.routes.studies.list_studies", explode)
    answer = api.client.get("/v1/studies")
    assert (answer.status_code, answer.json()["error"]) == (500, "internal_error")
    assert "secret" not in answer.text
    assert "a secret of the inside" in caplog.text


def test_a_database_that_does_not_answer_is_a_503_to_try_again(
    api: ApiServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    def locked(*_: object, **__: object) -> None:
        raise OperationalError("SELECT", {}, Exception("database is locked"))

    monkeypatch.setattr("service.routes.studies.list_studies", locked)
    answer = api.client.get("/v1/studies")
    assert (answer.status_code, answer.json()["error"]) == (503, "database_unavailable")
    assert int(answer.headers["retry-after"]) > 0
