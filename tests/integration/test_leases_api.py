"""The worker protocol over HTTP, as a worker sees it."""

import hashlib
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from api_server import ApiServer, serving
from builders import claim_request, make_study, result_request
from sqlalchemy import update

from service.store.database import Database
from service.store.tables import Trial, Worker
from studies.wire.leases import Lease


@pytest.fixture
def server(database: Database, tmp_path: Path) -> Iterator[ApiServer]:
    with serving(database, tmp_path) as server:
        yield server


def post_claim(server: ApiServer, **fields: Any) -> Any:
    body = claim_request(**fields).model_dump(mode="json")
    return server.client.post("/v1/leases", json=body)


def claim(server: ApiServer, **fields: Any) -> Lease:
    answer = post_claim(server, **fields)
    assert answer.status_code == 200, answer.text
    return Lease.model_validate_json(answer.content)


def end(server: ApiServer, lease: Lease, how: str, body: dict[str, Any]) -> Any:
    return server.client.post(f"/v1/leases/{lease.trial_id}/{lease.attempt}/{how}", json=body)


def test_a_trial_goes_from_claim_to_result(server: ApiServer) -> None:
    study_id = make_study(server.context.database, n_trials=1)
    lease = claim(server, device={"kind": "cpu", "name": "test"})
    url = f"/v1/leases/{lease.trial_id}/{lease.attempt}"
    body = {"reports": [{"epoch": 0, "metrics": {"macro_f1": 0.5, "loss": None}}]}
    renewed = server.client.put(url, json=body)
    assert renewed.status_code == 200
    assert renewed.json()["action"] == "continue"
    answer = end(server, lease, "result", result_request(0.5).model_dump(mode="json"))
    assert answer.json() == {"state": "completed", "attempt": 1}
    study = server.get(f"/v1/studies/{study_id}")
    assert study["state"] == "completed"
    assert study["best"]["value"] == 0.5
    matrix = server.get(f"/v1/studies/{study_id}/trials/0/confusion-matrix")
    assert matrix["matrix"] == [[8, 2, 0], [0, 10, 0], [0, 0, 10]]


def test_a_claim_without_work_answers_204_at_once_or_after_its_wait(server: ApiServer) -> None:
    assert post_claim(server).status_code == 204
    answer = post_claim(server, wait_s=0.1)
    assert (answer.status_code, answer.content) == (204, b"")


def test_a_waiting_claim_gets_what_is_submitted_meanwhile(server: ApiServer) -> None:
    dataset = server.upload()
    with ThreadPoolExecutor(1) as pool:
        waiting = pool.submit(post_claim, server, wait_s=20)
        deadline = time.monotonic() + 20
        while not server.get("/v1/workers")["items"] and time.monotonic() < deadline:
            time.sleep(0.02)
        study = server.submit(dataset=dataset, budget={"n_trials": 1})
        answer = waiting.result(30)
    assert answer.status_code == 200
    assert answer.json()["study_id"] == study["id"]


def test_a_shutdown_lets_waiting_claims_go(server: ApiServer) -> None:
    with ThreadPoolExecutor(1) as pool:
        waiting = pool.submit(post_claim, server, wait_s=20)
        deadline = time.monotonic() + 20
        while not server.get("/v1/workers")["items"] and time.monotonic() < deadline:
            time.sleep(0.02)
        server.context.waker.close()
        assert waiting.result(10).status_code == 204


def test_a_claim_of_a_client_that_is_gone_takes_no_trial(
    server: ApiServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    looked = threading.Event()

    async def gone(request: object) -> bool:
        looked.set()
        return True

    monkeypatch.setattr("starlette.requests.Request.is_disconnected", gone)
    study_id = make_study(server.context.database, n_trials=1)
    assert post_claim(server, wait_s=5).status_code == 204
    assert looked.is_set()
    assert server.get(f"/v1/studies/{study_id}")["trials"]["queued"] == 1


def test_a_lost_lease_answers_409_everywhere(server: ApiServer) -> None:
    make_study(server.context.database, n_trials=1)
    old = claim(server, worker="old")
    with server.context.database.transaction() as session:
        session.execute(update(Trial).values(lease_expires_at=0.0))
    new = claim(server, worker="new")
    assert (new.trial_id, new.attempt) == (old.trial_id, 2)
    url = f"/v1/leases/{old.trial_id}/1"
    failure = {"code": "trainer_error", "detail": "", "retry": True}
    answers = [
        server.client.put(url, json={}),
        end(server, old, "result", result_request().model_dump(mode="json")),
        end(server, old, "failure", failure),
        end(server, old, "release", {}),
        server.client.put(f"{url}/artifacts/model.zip", content=b"late"),
    ]
    assert {answer.status_code for answer in answers} == {409}
    assert {answer.json()["error"] for answer in answers} == {"lease_lost"}
    assert server.client.put(f"/v1/leases/{new.trial_id}/2", json={}).status_code == 200
    assert not server.context.folders.artifact(old.trial_id, 1, "model.zip").exists()


def test_an_unknown_trial_answers_404(server: ApiServer) -> None:
    answer = server.client.put("/v1/leases/nope/1", json={})
    assert (answer.status_code, answer.json()["error"]) == (404, "unknown_trial")


@pytest.mark.parametrize(
    ("body", "place"),
    [
        ({"worker": "", "request_id": "r"}, "worker"),
        ({"worker": "w\x00", "request_id": "r"}, "worker"),
        ({"worker": "w", "request_id": "r" * 101}, "request_id"),
        ({"worker": "w", "request_id": "r", "wait_s": 21}, "wait_s"),
        ({"worker": "w", "request_id": "r", "lease_s": 0}, "lease_s"),
        ({"worker": "w", "request_id": "r", "gpu": 1}, "gpu"),
    ],
)
def test_a_claim_that_is_malformed_is_refused(
    server: ApiServer, body: dict[str, Any], place: str
) -> None:
    answer = server.client.post("/v1/leases", json=body)
    assert answer.status_code == 422
    assert place in answer.json()["where"]


@pytest.mark.parametrize(
    "confusion",
    [
        {"labels": ["bill", "login", "refund"], "matrix": [[-1, 11, 0], [0, 10, 0], [0, 0, 10]]},
        {"labels": ["bill", "login", "refund"], "matrix": [[2**31, 0, 0], [0, 0, 0], [0, 0, 0]]},
        {"labels": ["bill", "login", "other"], "matrix": [[10, 0, 0], [0, 10, 0], [0, 0, 10]]},
        {"labels": ["bill", "login", "refund"], "matrix": [[1] * 3] * 3, "head": "a\0"},
        {"labels": ["bill", "login", "refund"], "matrix": [[1] * 3] * 3, "kind": "a\0"},
    ],
)
def test_a_confusion_matrix_that_cannot_be_true_is_refused_and_the_trial_goes_on(
    server: ApiServer, confusion: dict[str, Any]
) -> None:
    study_id = make_study(server.context.database, n_trials=1)
    lease = claim(server)
    body = {**result_request(0.5).model_dump(mode="json"), "confusion": confusion}
    answer = end(server, lease, "result", body)
    assert answer.status_code == 422
    assert answer.json()["where"][:2] == ["body", "confusion"]
    assert server.get(f"/v1/studies/{study_id}/trials/0")["state"] == "running"


def test_a_pruned_result_without_a_finite_value_sent_again_gets_the_same_answer(
    server: ApiServer,
) -> None:
    make_study(server.context.database, n_trials=2)
    lease = claim(server)
    url = f"/v1/leases/{lease.trial_id}/{lease.attempt}/result"
    headers = {"content-type": "application/json"}
    body = '{"state": "pruned", "value": NaN}'
    answers = [server.client.post(url, content=body, headers=headers) for _ in range(2)]
    assert [(answer.status_code, answer.json()["state"]) for answer in answers] == [
        (200, "pruned")
    ] * 2


def test_a_device_that_no_answer_could_repeat_is_refused(server: ApiServer) -> None:
    body = b'{"worker": "w", "request_id": "r", "device": {"kind": "cpu", "name": "\\ud800"}}'
    headers = {"content-type": "application/json"}
    answer = server.client.post("/v1/leases", content=body, headers=headers)
    assert (answer.status_code, answer.json()["error"]) == (422, "invalid_request")
    assert server.get("/v1/workers")["items"] == []


def test_a_study_on_a_data_set_whose_id_cannot_be_stored_is_refused(server: ApiServer) -> None:
    answer = server.client.post("/v1/studies", json={"name": "a", "dataset": "a\0"})
    assert (answer.status_code, answer.json()["error"]) == (422, "unknown_dataset")


# -- artifacts -----------------------------------------------------------------------------------


def test_an_artifact_is_stored_whole_and_listed_under_its_trial(server: ApiServer) -> None:
    study_id = make_study(server.context.database, n_trials=2)
    lease = claim(server)
    content = bytes(range(256)) * 10_000
    url = f"/v1/leases/{lease.trial_id}/1/artifacts/model.zip"
    for sent in (b"an earlier try", content):
        answer = server.client.put(url, content=sent)
        assert answer.status_code == 201
    sha256 = hashlib.sha256(content).hexdigest()
    assert answer.json() == {"name": "model.zip", "sha256": sha256, "bytes": len(content)}
    end(server, lease, "result", result_request(0.5).model_dump(mode="json"))
    listed = server.get(f"/v1/studies/{study_id}/trials/0/artifacts")["items"]
    assert [(item["name"], item["sha256"]) for item in listed] == [("model.zip", sha256)]
    assert server.client.get(listed[0]["url"]).content == content
    assert not list(server.context.folders.incoming.iterdir())


@pytest.mark.parametrize("name", ["..%2fmodel.zip", ".hidden", "a%20b", "x" * 201])
def test_an_artifact_has_a_plain_name(server: ApiServer, name: str) -> None:
    make_study(server.context.database, n_trials=1)
    lease = claim(server)
    url = f"/v1/leases/{lease.trial_id}/1/artifacts/{name}"
    assert server.client.put(url, content=b"x").status_code in (404, 422)
    assert not (server.context.folders.home / "artifacts").exists()


@pytest.mark.parametrize("stated", [True, False])
def test_an_artifact_that_is_too_large_leaves_nothing(
    database: Database, tmp_path: Path, stated: bool
) -> None:
    with serving(database, tmp_path, max_upload_bytes=1000) as server:
        make_study(database, n_trials=1)
        lease = claim(server)
        url = f"/v1/leases/{lease.trial_id}/1/artifacts/model.zip"
        content = b"x" * 1001
        answer = server.client.put(url, content=content if stated else iter([content]))
        assert (answer.status_code, answer.json()["error"]) == (413, "too_large")
        assert server.stored_files() == set()


# -- workers -------------------------------------------------------------------------------------


def workers(server: ApiServer) -> dict[str, dict[str, Any]]:
    return {item["id"]: item for item in server.get("/v1/workers")["items"]}


def test_the_workers_page_shows_what_each_does_and_runs_on(server: ApiServer) -> None:
    study_id = make_study(server.context.database, n_trials=1)
    claim(server, worker="busy", device={"kind": "cuda", "name": "a card", "memory_bytes": 2**34})
    post_claim(server, worker="idle")
    post_claim(server, worker="silent")
    post_claim(server, worker="gone")
    with server.context.database.transaction() as session:
        worker = session.get_one(Worker, "silent")
        worker.last_seen_at = worker.first_seen_at - timedelta(minutes=50)
        gone = session.get_one(Worker, "gone")
        gone.last_seen_at = gone.first_seen_at - timedelta(minutes=70)
    found = workers(server)
    assert {name: item["state"] for name, item in found.items()} == {
        "busy": "busy",
        "idle": "idle",
        "silent": "lost",
    }
    assert found["busy"]["trials"] == [f"{study_id}/0"]
    assert found["busy"]["device"]["memory_bytes"] == 2**34


def test_a_drained_worker_finishes_what_it_holds_and_gets_no_more(server: ApiServer) -> None:
    make_study(server.context.database, n_trials=2)
    lease = claim(server, worker="leaver")
    drained = server.client.post("/v1/workers/leaver/drain").json()
    assert (drained["state"], len(drained["trials"])) == ("draining", 1)
    body = result_request(0.5).model_dump(mode="json")
    assert end(server, lease, "result", body).status_code == 200
    assert post_claim(server, worker="leaver").status_code == 204
    answer = server.client.post("/v1/workers/nobody/drain")
    assert (answer.status_code, answer.json()["error"]) == (404, "unknown_worker")


def test_workers_are_listed_page_by_page(server: ApiServer) -> None:
    for name in ("c", "a", "b"):
        post_claim(server, worker=name)
    first = server.get("/v1/workers", limit=2)
    assert [item["id"] for item in first["items"]] == ["a", "b"]
    rest = server.get("/v1/workers", limit=2, cursor=first["next_cursor"])
    assert ([item["id"] for item in rest["items"]], rest["next_cursor"]) == (["c"], None)


# -- checkpoints ---------------------------------------------------------------------------------


def checkpoint_study(server: ApiServer, **checkpoint: Any) -> str:
    return make_study(
        server.context.database, n_trials=1, training={"epochs": 20}, checkpoint=checkpoint
    )


def upload_checkpoint(server: ApiServer, lease: Lease, epochs: int, content: bytes) -> Any:
    name = f"checkpoint-{epochs}.safetensors"
    url = f"/v1/leases/{lease.trial_id}/{lease.attempt}/artifacts/{name}"
    return server.client.put(url, content=content)


def lose(server: ApiServer) -> None:
    with server.context.database.transaction() as session:
        session.execute(update(Trial).values(lease_expires_at=0.0))


def test_checkpoints_are_uploaded_only_where_the_study_says_so(server: ApiServer) -> None:
    checkpoint_study(server, upload=False, every_epochs=2)
    assert claim(server, worker="w1").checkpoint is None
    checkpoint_study(server, upload=True, every_epochs=2)
    lease = claim(server, worker="w2")
    assert lease.checkpoint is not None
    assert lease.checkpoint.every_epochs == 2
    assert lease.resume is None


@pytest.mark.parametrize("onnx", [False, True])
def test_a_lease_says_whether_the_model_is_wanted_as_onnx_too(
    server: ApiServer, onnx: bool
) -> None:
    checkpoint_study(server, onnx=onnx)
    assert claim(server, worker="w1").onnx is onnx


def test_the_next_attempt_goes_on_from_the_newest_checkpoint(server: ApiServer) -> None:
    checkpoint_study(server, upload=True)
    first = claim(server, worker="w1")
    for epochs, content in ((2, b"two epochs"), (10, b"ten epochs")):
        assert upload_checkpoint(server, first, epochs, content).status_code == 201
    lose(server)
    second = claim(server, worker="w2")
    assert (second.trial_id, second.attempt) == (first.trial_id, 2)
    assert second.resume is not None
    assert second.resume.url == f"/v1/leases/{first.trial_id}/2/resume"
    assert (second.resume.epoch, second.resume.bytes) == (10, 10)
    fetched = server.client.get(second.resume.url)
    assert (fetched.status_code, fetched.content) == (200, b"ten epochs")
    assert hashlib.sha256(fetched.content).hexdigest() == second.resume.sha256
    assert upload_checkpoint(server, first, 11, b"late").status_code == 409


def test_a_third_attempt_goes_on_from_the_first_if_the_second_came_less_far(
    server: ApiServer,
) -> None:
    checkpoint_study(server, upload=True)
    first = claim(server, worker="w1")
    upload_checkpoint(server, first, 3, b"three")
    lose(server)
    second = claim(server, worker="w2")
    upload_checkpoint(server, second, 1, b"one")
    assert server.client.get(f"/v1/leases/{first.trial_id}/2/resume").content == b"three"
    lose(server)
    third = claim(server, worker="w3")
    assert third.resume is not None
    assert (third.resume.epoch, third.resume.bytes) == (3, 5)


def test_a_checkpoint_is_handed_to_the_holder_of_the_lease_alone(server: ApiServer) -> None:
    checkpoint_study(server, upload=True)
    first = claim(server, worker="w1")
    upload_checkpoint(server, first, 1, b"one")
    url = f"/v1/leases/{first.trial_id}"
    own = server.client.get(f"{url}/1/resume")
    assert (own.status_code, own.json()["error"]) == (404, "no_checkpoint")
    lose(server)
    claim(server, worker="w2")
    assert server.client.get(f"{url}/2/resume").status_code == 200
    for attempt in (1, 3):
        refused = server.client.get(f"{url}/{attempt}/resume")
        assert (refused.status_code, refused.json()["error"]) == (409, "lease_lost")
    unknown = server.client.get("/v1/leases/nope/1/resume")
    assert (unknown.status_code, unknown.json()["error"]) == (404, "unknown_trial")


def test_a_checkpoint_whose_file_is_gone_is_said_to_be_so(server: ApiServer) -> None:
    checkpoint_study(server, upload=True)
    first = claim(server, worker="w1")
    upload_checkpoint(server, first, 1, b"one")
    lose(server)
    claim(server, worker="w2")
    name = "checkpoint-1.safetensors"
    server.context.folders.artifact(first.trial_id, 1, name).unlink()
    answer = server.client.get(f"/v1/leases/{first.trial_id}/2/resume")
    assert (answer.status_code, answer.json()["error"]) == (404, "file_gone")
