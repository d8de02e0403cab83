"""A full disk refuses by name, stores nothing by halves, and hurts nothing that was stored."""

import random
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psycopg
import pytest
from api_server import TICKETS, ApiServer, serving
from builders import claim_request, make_study, result_request
from small_disk import SmallDisk, small_disk
from sqlalchemy import select, text

from service.disk_space import demand_room, free_bytes, means_full_disk
from service.errors import DiskFullError
from service.queue.reconciler import Reconciler
from service.store.database import Database
from service.store.tables import Attempt, Trial
from studies.wire.leases import Lease


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[SmallDisk]:
    with small_disk(tmp_path / "disk") as disk:
        yield disk


@pytest.fixture
def server(
    disk: SmallDisk, migrated_sqlite: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[ApiServer]:
    """A server whose SQLite file and files lie on the small disk, all of which it may use."""
    monkeypatch.setattr(Reconciler, "start", lambda self: None)
    shutil.copy(migrated_sqlite, disk.home / "bertune.db")
    database = Database(f"sqlite:///{disk.home / 'bertune.db'}")
    with serving(database, disk.home, min_free_bytes=0) as server:
        yield server
    database.dispose()


def claim(server: ApiServer) -> Lease:
    body = claim_request().model_dump(mode="json")
    answer = server.client.post("/v1/leases", json=body)
    assert answer.status_code == 200, answer.text
    return Lease.model_validate_json(answer.content)


def end_url(lease: Lease) -> str:
    return f"/v1/leases/{lease.trial_id}/{lease.attempt}"


def outcome(answer: Any) -> tuple[int, str | None]:
    return answer.status_code, answer.json().get("error")


def random_tickets(size_bytes: int) -> str:
    """Rows that no compression makes much smaller."""
    rng = random.Random(0)
    rows = (f"{rng.randbytes(100).hex()},{'abc'[row % 3]}\n" for row in range(size_bytes // 203))
    return "text,label\n" + "".join(rows)


FULL = (507, "disk_full")


def test_a_full_disk_refuses_everything_that_stores_and_then_goes_on(
    server: ApiServer, disk: SmallDisk
) -> None:
    dataset = server.upload()
    study = server.submit(dataset=dataset, budget={"n_trials": 2}, seed=1, priority=1)
    lease = claim(server)
    before = (server.stored_rows(), server.stored_files())
    body = result_request(0.5, **_for(server, study)).model_dump(mode="json")
    requests: dict[str, Any] = {
        "data set": lambda: server.client.post(
            "/v1/datasets", files={"train": ("more.csv", TICKETS + "one more,bill\n")}
        ),
        "study": lambda: server.client.post(
            "/v1/studies", json={"name": "more", "dataset": dataset, "seed": 2}
        ),
        "artifact": lambda: server.client.put(
            f"{end_url(lease)}/artifacts/train.log", content=b"log" * 1000
        ),
        "renewal": lambda: server.client.put(end_url(lease), json={"reports": []}),
        "result": lambda: server.client.post(f"{end_url(lease)}/result", json=body),
    }
    disk.fill()
    assert {name: outcome(request()) for name, request in requests.items()} == dict.fromkeys(
        requests, FULL
    )
    assert (server.stored_rows(), server.stored_files()) == before
    assert server.get(f"/v1/studies/{study['id']}")["trials"]["running"] == 1
    disk.clear()
    assert {name: request().status_code for name, request in requests.items()} == {
        "data set": 201,
        "study": 201,
        "artifact": 201,
        "renewal": 200,
        "result": 200,
    }
    last = claim(server)
    assert last.study_id == study["id"]
    assert server.client.post(f"{end_url(last)}/result", json=body).status_code == 200
    assert server.get(f"/v1/studies/{study['id']}")["state"] == "completed"
    with server.context.database.reading() as session:
        assert session.execute(text("PRAGMA integrity_check")).scalars().all() == ["ok"]


def _for(server: ApiServer, study: dict[str, Any]) -> dict[str, Any]:
    """Scores per class and a matrix in the labels of the study's data set."""
    labels = sorted(server.get(f"/v1/datasets/{study['dataset']}")["labels"])
    scores = {"precision": 1.0, "recall": 1.0, "f1": 1.0, "support": 3}
    matrix = [[3 if row == column else 0 for column in range(3)] for row in range(3)]
    return {
        "per_class": [{"label": label, **scores} for label in labels],
        "confusion": {"labels": labels, "matrix": matrix},
        "metrics": {"macro_f1": 0.5, "accuracy": 1.0},
    }


@pytest.mark.parametrize("leave_bytes", [100_000, 300_000], ids=["body", "normalised copy"])
def test_an_upload_that_fills_the_disk_leaves_nothing(
    server: ApiServer, disk: SmallDisk, monkeypatch: pytest.MonkeyPatch, leave_bytes: int
) -> None:
    # As when the room was there at the first byte, and another program took it meanwhile.
    monkeypatch.setattr("service.intake.body.demand_room", lambda *args, **kwargs: None)
    tickets = random_tickets(250_000)
    files = {"train": ("tickets.csv", tickets)}
    disk.fill(leave_bytes=leave_bytes)
    assert outcome(server.client.post("/v1/datasets", files=files)) == FULL
    assert server.stored_files() == set()
    assert not list(server.context.folders.incoming.iterdir())
    disk.clear()
    assert server.client.post("/v1/datasets", files=files).status_code == 201


def test_an_artifact_that_fills_the_disk_leaves_nothing(
    server: ApiServer, disk: SmallDisk, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("service.intake.body.demand_room", lambda *args, **kwargs: None)
    make_study(server.context.database, n_trials=1)
    url = f"{end_url(claim(server))}/artifacts/model.zip"
    disk.fill(leave_bytes=500_000)
    assert outcome(server.client.put(url, content=b"x" * 1_000_000)) == FULL
    assert server.stored_files() == set()
    disk.clear()
    assert server.client.put(url, content=b"x" * 1_000_000).status_code == 201


def test_an_upload_that_would_not_leave_enough_free_is_refused_unread(
    disk: SmallDisk, database: Database
) -> None:
    with serving(database, disk.home, min_free_bytes=15_000_000) as server:
        files = {"train": ("tickets.csv", b"x" * 6_000_000)}
        answer = server.client.post("/v1/datasets", files=files)
        assert outcome(answer) == FULL
        assert "BERTUNE_MIN_FREE_BYTES" in answer.json()["detail"]
        make_study(database, n_trials=1)
        url = f"{end_url(claim(server))}/artifacts/model.zip"

        # Without a declared length it is noticed on the way.
        chunks = (b"x" * 1_000_000 for _ in range(6))
        assert outcome(server.client.put(url, content=chunks)) == FULL
        declared = {"Content-Length": "6000000"}
        assert outcome(server.client.put(url, content=b"x", headers=declared)) == FULL
        assert server.client.put(url, content=b"x" * 1000).status_code == 201
        assert len(server.stored_files()) == 1


def test_a_disk_that_is_full_when_optuna_is_told_costs_no_result(
    server: ApiServer, disk: SmallDisk, monkeypatch: pytest.MonkeyPatch
) -> None:
    study_id = make_study(server.context.database, n_trials=1)
    lease = claim(server)
    with monkeypatch.context() as patch:
        # The first thing that follows the commit.
        patch.setattr("service.queue.dispatch.remove_files", lambda *args: disk.fill())
        body = result_request().model_dump(mode="json")
        assert server.client.post(f"{end_url(lease)}/result", json=body).status_code == 200
    assert server.get(f"/v1/studies/{study_id}")["state"] == "completed"
    with server.context.database.reading() as session:
        assert not session.get_one(Trial, lease.trial_id).told
    reconciler = Reconciler(server.context)
    assert reconciler.step().told == 0
    disk.clear()
    assert reconciler.step().told == 1


def test_a_disk_that_is_full_when_optuna_is_asked_is_no_fault_of_the_trial(
    server: ApiServer, disk: SmallDisk, monkeypatch: pytest.MonkeyPatch
) -> None:
    make_study(server.context.database, n_trials=1)
    body = claim_request().model_dump(mode="json")
    plans = server.context.dispatcher.plans
    real = plans.of

    def filled_meanwhile(study_id: str) -> Any:
        disk.fill()
        return real(study_id)

    with monkeypatch.context() as patch:
        patch.setattr(plans, "of", filled_meanwhile)
        assert outcome(server.client.post("/v1/leases", json=body)) == FULL
    disk.clear()
    lease = Lease.model_validate(server.client.post("/v1/leases", json=body).json())
    assert lease.attempt == 1
    with server.context.database.reading() as session:
        assert session.get_one(Trial, lease.trial_id).crashes == 0
        assert session.scalars(select(Attempt.outcome)).all() == [None]


def test_a_full_disk_of_postgresql_is_named_too(
    make_postgresql: Any, migrated_postgresql: str, disk: SmallDisk, tmp_path: Path
) -> None:
    with make_postgresql(migrated_postgresql) as url:
        database = Database(url)
        with serving(database, tmp_path / "home") as server:
            dataset = server.upload()
            _move_trials_to(database, disk)
            disk.fill()
            spec = {"name": "tickets", "dataset": dataset, "budget": {"n_trials": 1000}}
            before = server.stored_rows()
            assert outcome(server.client.post("/v1/studies", json=spec)) == FULL
            assert server.stored_rows() == before
            disk.clear()
            assert server.client.post("/v1/studies", json=spec).status_code == 201
            with database.transaction() as session:
                session.execute(text("ALTER TABLE trial SET TABLESPACE pg_default"))
        database.dispose()
        with psycopg.connect(_plain(database), autocommit=True) as connection:
            connection.execute("DROP TABLESPACE small")


def _move_trials_to(database: Database, disk: SmallDisk) -> None:
    folder = disk.home / "tablespace"
    folder.mkdir()
    with psycopg.connect(_plain(database), autocommit=True) as connection:
        row = connection.execute("SHOW data_directory").fetchone()
        assert row is not None
        owner = Path(row[0])
        if not owner.is_dir():
            pytest.skip("the PostgreSQL server runs on another machine")
        shutil.chown(folder, owner.stat().st_uid, owner.stat().st_gid)
        for parent in list(folder.parents)[:-1]:
            parent.chmod(parent.stat().st_mode | 0o011)
        connection.execute(f"CREATE TABLESPACE small LOCATION '{folder}'")
        connection.execute("ALTER TABLE trial SET TABLESPACE small")


def _plain(database: Database) -> str:
    return database.url.set(drivername="postgresql").render_as_string(hide_password=False)


# -- the words for it ----------------------------------------------------------------------------


def test_room_is_measured_where_a_folder_will_be(disk: SmallDisk) -> None:
    assert free_bytes(disk.home / "not" / "made" / "yet") == disk.free_bytes
    demand_room(disk.home, 1_000_000, keep_free_bytes=disk.free_bytes - 1_000_000)
    with pytest.raises(DiskFullError, match="BERTUNE_MIN_FREE_BYTES"):
        demand_room(disk.home, 1_000_001, keep_free_bytes=disk.free_bytes - 1_000_000)


def test_only_a_full_disk_is_called_one(tmp_path: Path) -> None:
    assert means_full_disk(OSError(28, "No space left on device"), tmp_path)
    assert means_full_disk(OSError(122, "Disk quota exceeded"), tmp_path)
    assert not means_full_disk(FileNotFoundError(2, "No such file"), tmp_path)
    assert not means_full_disk(ValueError("full"), tmp_path)
