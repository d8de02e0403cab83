"""Optuna's pages inside a server of ours: reachable, and for looking only."""

from collections.abc import Iterator

import pytest
from fastapi import FastAPI
from fastapi.testclient import TestClient

from service.pages.dashboard import mount_dashboard
from service.store.database import Database
from studies.search.adapter import OptunaAdapter
from studies.search.study_key import StudyKey
from studies.space import Choices
from studies.spec import StudySpec

KEY = StudyKey(
    optuna_name="tickets [1]",
    direction="maximize",
    metric="macro_f1",
    spec=StudySpec(name="tickets", dataset="d"),
    space={"batch_size": Choices(choices=(16, 32))},
    max_epochs=3,
)


@pytest.fixture
def server(database: Database) -> Iterator[TestClient]:
    adapter = OptunaAdapter(database.url, forbid=database.forbid_transaction)
    adapter.create_study(KEY)
    app = FastAPI()

    @app.get("/v1/studies")
    def studies() -> list[str]:
        return ["ours"]

    mount_dashboard(app, adapter)
    client = TestClient(app, follow_redirects=False)
    del client.headers["accept-encoding"]  # as simple clients and health checks ask
    yield client
    adapter.close()


def test_the_root_leads_to_the_pages(server: TestClient) -> None:
    answer = server.get("/")
    assert (answer.status_code, answer.headers["location"]) == (307, "/dashboard")


@pytest.mark.parametrize("path", ["/dashboard", "/dashboard/", "/dashboard/studies/1/trials"])
def test_every_page_is_served_and_loads_only_from_us(server: TestClient, path: str) -> None:
    answer = server.get(path)
    assert answer.status_code == 200
    assert answer.headers["content-type"].startswith("text/html")
    assert "default-src 'self'" in answer.headers["content-security-policy"]


@pytest.mark.parametrize("encoding", [None, "gzip"])
def test_scripts_come_with_and_without_compression(
    server: TestClient, encoding: str | None
) -> None:
    headers = {"accept-encoding": encoding} if encoding else {}
    answer = server.get("/static/bundle.js", headers=headers)
    assert answer.status_code == 200
    assert answer.headers.get("content-encoding") == encoding


def test_the_icon_is_an_icon(server: TestClient) -> None:
    answer = server.get("/favicon.ico", headers={"accept-encoding": "gzip"})
    assert answer.content[:4] == b"\x00\x00\x01\x00"


def test_the_pages_list_our_studies(server: TestClient) -> None:
    (study,) = server.get("/api/studies").json()["study_summaries"]
    assert study["study_name"] == "tickets [1]"
    assert server.get(f"/api/studies/{study['study_id']}").json()["trials"] == []
    assert "macro_f1" in server.get(f"/csv/{study['study_id']}").text


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("POST", "/api/studies"),
        ("DELETE", "/api/studies/1"),
        ("PUT", "/api/studies/1/note"),
        ("POST", "/api/trials/1/tell"),
        ("PATCH", "/dashboard"),
    ],
)
def test_changes_are_refused_in_words_that_the_pages_show(
    server: TestClient, method: str, path: str
) -> None:
    answer = server.request(method, path, json={"study_name": "x", "directions": ["maximize"]})
    assert answer.status_code == 403
    assert answer.json()["error"] == "read_only_pages"
    assert answer.json()["reason"] == answer.json()["detail"]
    assert len(server.get("/api/studies").json()["study_summaries"]) == 1


def test_our_own_addresses_keep_their_answers(server: TestClient) -> None:
    assert server.get("/v1/studies").json() == ["ours"]
    assert server.post("/v1/studies").status_code == 405
    unknown = server.get("/v1/nothing")
    assert unknown.status_code == 404
    assert unknown.json() == {"detail": "Not Found"}
