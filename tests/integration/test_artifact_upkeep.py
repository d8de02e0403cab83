"""Of what workers upload the needed stays, what lost goes, and what a crash leaked is found."""

import os
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from api_server import ApiServer, serving
from builders import claim_request, crash_request, make_study, result_request
from sqlalchemy import select, update

from service.queue import artifact_upload
from service.queue.reconciler import Reconciler
from service.store.completion import cancel_study
from service.store.database import Database
from service.store.endings import Ended
from service.store.lifecycle import extend_study
from service.store.tables import Artifact, Study, Trial
from studies.wire.leases import Lease


class Worker:
    """Uploads and ends leases over HTTP, and sees what the server's disk and tables hold."""

    def __init__(self, server: ApiServer) -> None:
        self.server = server
        self.context = server.context
        self.reconciler = Reconciler(server.context)

    def claim(self, name: str = "worker") -> Lease:
        lease = self.context.dispatcher.claim(claim_request(name))
        assert lease is not None
        return lease

    def upload(self, lease: Lease, *names: str, content: bytes = b"content") -> Any:
        for name in names:
            url = f"/v1/leases/{lease.trial_id}/{lease.attempt}/artifacts/{name}"
            answer = self.server.client.put(url, content=content)
        return answer

    def finish(self, lease: Lease, value: float = 0.5, **fields: Any) -> None:
        result = result_request(value, **fields)
        self.context.dispatcher.finish(lease.trial_id, lease.attempt, result)

    def lose(self, lease: Lease) -> None:
        with self.context.database.transaction() as session:
            session.execute(
                update(Trial).where(Trial.id == lease.trial_id).values(lease_expires_at=0.0)
            )
        self.reconciler.step()

    def files(self, *leases: Lease) -> list[str]:
        """``attempt/name`` of each file of the trials, which must be those that have a row."""
        ids = {lease.trial_id for lease in leases}
        with self.context.database.reading() as session:
            rows = session.scalars(select(Artifact).where(Artifact.trial_id.in_(ids))).all()
        stored = sorted(f"{row.trial_id}/{row.attempt}/{row.name}" for row in rows)
        folder = self.context.folders.artifacts
        on_disk = sorted(
            str(path.relative_to(folder))
            for path in folder.rglob("*")
            if path.is_file() and path.parts[-3] in ids
        )
        assert on_disk == stored
        return [name.partition("/")[2] for name in stored]


@pytest.fixture
def worker(database: Database, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Worker]:
    # The server's own thread stays out of the way: tests step a reconciler of theirs.
    monkeypatch.setattr(Reconciler, "start", lambda self: None)
    with serving(database, tmp_path) as server:
        yield Worker(server)


def make_old(path: Path, *, age_s: float = 2 * 3600) -> None:
    then = time.time() - age_s
    os.utime(path, (then, then))


# -- attempts and checkpoints --------------------------------------------------------------------


def test_when_a_trial_ends_files_of_lost_attempts_go_but_for_their_logs(worker: Worker) -> None:
    make_study(worker.context.database, n_trials=1)
    first = worker.claim("first")
    worker.upload(first, "train.log", "predictions.csv", "model.zip")
    worker.lose(first)
    second = worker.claim("second")
    worker.upload(second, "train.log", "predictions.csv", "model.zip")
    worker.finish(second)
    assert worker.files(second) == [
        "1/train.log",
        "2/model.zip",
        "2/predictions.csv",
        "2/train.log",
    ]


@pytest.mark.parametrize("end", ["completed", "pruned", "failed"])
def test_an_ended_trial_keeps_no_checkpoint(worker: Worker, end: str) -> None:
    make_study(worker.context.database, n_trials=1)
    lease = worker.claim()
    worker.upload(lease, "checkpoint-1.safetensors", "train.log")
    if end == "failed":
        failure = crash_request().model_copy(update={"retry": False})
        worker.context.dispatcher.fail(lease.trial_id, 1, failure)
    else:
        worker.finish(lease, state=end)
    assert worker.files(lease) == ["1/train.log"]


def test_a_trial_that_is_tried_again_keeps_its_checkpoint(worker: Worker) -> None:
    make_study(worker.context.database, n_trials=1)
    lease = worker.claim()
    worker.upload(lease, "checkpoint-1.safetensors")
    worker.context.dispatcher.fail(lease.trial_id, 1, crash_request())
    worker.reconciler.step()
    assert worker.files(lease) == ["1/checkpoint-1.safetensors"]


def test_a_newer_checkpoint_takes_the_place_of_the_older_ones(worker: Worker) -> None:
    make_study(worker.context.database, n_trials=1)
    first = worker.claim("first")
    worker.upload(first, "checkpoint-1.safetensors", "checkpoint-2.safetensors", "model.zip")
    assert worker.files(first) == ["1/checkpoint-2.safetensors", "1/model.zip"]
    worker.lose(first)
    second = worker.claim("second")
    # It began anew, for whatever reason; what its predecessor reached is worth more.
    worker.upload(second, "checkpoint-1.safetensors")
    assert "1/checkpoint-2.safetensors" in worker.files(second)
    worker.upload(second, "checkpoint-10.safetensors")
    assert worker.files(second) == ["1/model.zip", "2/checkpoint-10.safetensors"]


def test_a_checkpoint_sent_again_stays(worker: Worker) -> None:
    make_study(worker.context.database, n_trials=1)
    lease = worker.claim()
    for _ in range(2):
        worker.upload(lease, "checkpoint-3.safetensors")
    assert worker.files(lease) == ["1/checkpoint-3.safetensors"]


def test_a_lost_lease_uploads_no_checkpoint_and_leaves_nothing(worker: Worker) -> None:
    make_study(worker.context.database, n_trials=1)
    old = worker.claim("old")
    worker.lose(old)
    worker.claim("new")
    answer = worker.upload(old, "checkpoint-1.safetensors")
    assert (answer.status_code, answer.json()["error"]) == (409, "lease_lost")
    assert worker.files(old) == []
    assert not worker.context.folders.artifacts.exists()


def test_a_lease_lost_during_the_upload_leaves_nothing(
    worker: Worker, monkeypatch: pytest.MonkeyPatch
) -> None:
    make_study(worker.context.database, n_trials=1)
    lease = worker.claim()
    looks = []
    lock = artifact_upload._lock_running

    def lock_later(session: Any, *rest: Any) -> Any:
        looks.append(1)
        if len(looks) == 2:
            session.execute(
                update(Trial)
                .where(Trial.id == lease.trial_id)
                .values(attempt=2)
                .execution_options(synchronize_session=False)
            )
        return lock(session, *rest)

    monkeypatch.setattr(artifact_upload, "_lock_running", lock_later)
    assert worker.upload(lease, "checkpoint-1.safetensors").status_code == 409
    assert not list(worker.context.folders.incoming.iterdir())
    assert not worker.context.folders.artifacts.exists()


# -- models --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("keep", "kept_while_open", "kept_at_the_end"),
    [("best", [1], [1]), ("all", [0, 1, 2], [0, 1, 2]), ("none", [1], [])],
)
def test_models_stay_as_the_study_says(
    worker: Worker, keep: str, kept_while_open: list[int], kept_at_the_end: list[int]
) -> None:
    database = worker.context.database
    study_id = make_study(database, n_trials=5, test_rows=True, checkpoint={"keep": keep})
    leases: list[Lease] = []
    for value in (0.5, 0.7, 0.6, None, None):
        lease = worker.claim(f"worker {len(leases)}")
        leases.append(lease)
        worker.upload(lease, "model.zip", content=f"model {lease.number}".encode())
        if value is not None:
            worker.finish(lease, value)
    failure = crash_request().model_copy(update={"retry": False})
    worker.context.dispatcher.fail(leases[3].trial_id, 1, failure)
    worker.finish(leases[4], 0.1, state="pruned")

    def kept() -> list[int]:
        return [index for index, lease in enumerate(leases) if worker.files(lease)]

    assert kept() == kept_while_open
    evaluation = worker.claim()
    assert evaluation.kind == "evaluate"
    assert evaluation.model.files[0].bytes == len(b"model 1")
    worker.finish(evaluation)
    assert worker.server.get(f"/v1/studies/{study_id}")["state"] == "completed"
    assert kept() == kept_at_the_end
    download = worker.server.client.get(f"/v1/studies/{study_id}/best/model")
    assert download.status_code == (200 if 1 in kept_at_the_end else 404)


@pytest.mark.parametrize("keep", ["best", "all", "none"])
def test_a_model_that_waits_for_its_result_is_not_taken_away(worker: Worker, keep: str) -> None:
    make_study(worker.context.database, n_trials=2, checkpoint={"keep": keep})
    slow, quick = worker.claim("slow"), worker.claim("quick")
    worker.upload(slow, "model.zip")
    worker.upload(quick, "model.zip")
    worker.finish(quick, 0.4)
    worker.reconciler.step()
    assert worker.files(slow) == ["1/model.zip"]
    worker.finish(slow, 0.6)
    assert worker.files(slow) == ([] if keep == "none" else ["1/model.zip"])
    assert worker.files(quick) == (["1/model.zip"] if keep == "all" else [])


def test_the_best_model_there_is_stays_when_that_of_a_better_trial_was_not_stored(
    worker: Worker,
) -> None:
    make_study(worker.context.database, n_trials=3, max_parallel=3)
    first, better, last = worker.claim("a"), worker.claim("b"), worker.claim("c")
    worker.upload(first, "model.zip")
    worker.finish(first, 0.5)
    worker.finish(better, 0.7)  # its upload failed
    assert worker.files(first, better) == ["1/model.zip"]
    worker.upload(last, "model.zip")
    worker.finish(last, 0.9)
    assert worker.files(first, better) == []


def test_a_model_under_evaluation_outlives_a_better_one(worker: Worker) -> None:
    database = worker.context.database
    study_id = make_study(database, n_trials=1, test_rows=True)
    first = worker.claim("first")
    worker.upload(first, "model.zip")
    worker.finish(first, 0.5)
    evaluation = worker.claim("evaluating")
    assert evaluation.kind == "evaluate"
    with database.transaction() as session:
        extend_study(session, study_id, 1)
    better = worker.claim("second")
    worker.upload(better, "model.zip")
    worker.finish(better, 0.9)
    assert worker.files(first) == ["1/model.zip"]
    worker.finish(evaluation)
    assert worker.files(first) == []
    assert worker.files(better) == ["1/model.zip"]


def test_what_a_cancel_leaves_behind_is_removed_at_the_next_step(worker: Worker) -> None:
    study_id = make_study(worker.context.database, n_trials=2)
    lease = worker.claim()
    worker.upload(lease, "checkpoint-1.safetensors", "model.zip", "train.log")
    worker.reconciler.step()
    with worker.context.database.transaction() as session:
        cancel_study(session, session.get_one(Study, study_id))
    assert worker.reconciler.step().files == 2
    assert worker.files(lease) == ["1/train.log"]
    assert worker.reconciler.step().files == 0


# -- crashes -------------------------------------------------------------------------------------


class ServerDied(BaseException):
    """The process is gone: nothing that stands after it runs."""


def test_a_file_that_outlived_its_row_is_removed_once_it_is_old(
    worker: Worker, monkeypatch: pytest.MonkeyPatch
) -> None:
    make_study(worker.context.database, n_trials=1)
    lease = worker.claim()
    worker.upload(lease, "checkpoint-1.safetensors", "predictions.csv")
    folders = worker.context.folders
    leaked = folders.artifact(lease.trial_id, 1, "checkpoint-1.safetensors")
    kept = folders.artifact(lease.trial_id, 1, "predictions.csv")

    def die(*args: object) -> Ended:
        raise ServerDied

    with monkeypatch.context() as patch:
        patch.setattr("service.queue.dispatch.remove_files", die)
        with pytest.raises(ServerDied):
            worker.finish(lease)
    assert Reconciler(worker.context).step().files == 0  # it may be an upload under way
    make_old(leaked)
    make_old(kept)
    assert Reconciler(worker.context).step().files == 1
    assert worker.files(lease) == ["1/predictions.csv"]


def test_an_upload_that_died_before_its_commit_is_sent_again_or_cleaned_up(
    worker: Worker, monkeypatch: pytest.MonkeyPatch
) -> None:
    make_study(worker.context.database, n_trials=1)
    lease = worker.claim()
    folder = worker.context.folders.artifacts / lease.trial_id

    def die(path: Path) -> None:
        if path == folder:  # after the rename
            raise OSError("the power is gone")

    with monkeypatch.context() as patch:
        patch.setattr("service.queue.artifact_upload.sync", die)
        assert worker.upload(lease, "model.zip").status_code == 500
    orphan = worker.context.folders.artifact(lease.trial_id, 1, "model.zip")
    assert orphan.exists()
    worker.upload(lease, "model.zip", content=b"again")
    assert worker.files(lease) == ["1/model.zip"]
    assert orphan.read_bytes() == b"again"
    unrecorded = orphan.with_name("never-sent-again.bin")
    unrecorded.write_bytes(b"leaked")
    empty = folder / "7"
    empty.mkdir()
    make_old(unrecorded)
    assert Reconciler(worker.context).step().files == 1
    assert not empty.exists()
    assert worker.files(lease) == ["1/model.zip"]


def test_folders_of_trials_that_are_no_more_are_removed(worker: Worker) -> None:
    stray = worker.context.folders.artifact("no-such-trial", 1, "model.zip")
    stray.parent.mkdir(parents=True)
    stray.write_bytes(b"stray")
    make_old(stray)
    assert Reconciler(worker.context).step().files == 1
    assert not list(worker.context.folders.artifacts.iterdir())


def test_files_without_rows_are_looked_for_at_the_start_and_not_at_each_step(
    worker: Worker,
) -> None:
    worker.reconciler.step()
    stray = worker.context.folders.artifact("no-such-trial", 1, "model.zip")
    stray.parent.mkdir(parents=True)
    stray.write_bytes(b"stray")
    make_old(stray)
    assert worker.reconciler.step().files == 0
    assert Reconciler(worker.context).step().files == 1


def test_a_file_that_cannot_be_removed_costs_no_result(
    worker: Worker, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    study_id = make_study(worker.context.database, n_trials=1)
    lease = worker.claim()
    worker.upload(lease, "checkpoint-1.safetensors")

    def refuse(path: Path, missing_ok: bool = False) -> None:
        raise PermissionError("not yours")

    with monkeypatch.context() as patch:
        patch.setattr(Path, "unlink", refuse)
        worker.finish(lease)
    assert worker.server.get(f"/v1/studies/{study_id}")["state"] == "completed"
    assert "checkpoint-1.safetensors was not removed: not yours" in caplog.text


# -- disk use ------------------------------------------------------------------------------------


def test_disk_use_is_shown(worker: Worker) -> None:
    dataset = worker.server.upload()
    study_id = make_study(worker.context.database, n_trials=1)
    worker.upload(worker.claim(), "model.zip", content=b"x" * 1000)
    assert worker.server.get(f"/v1/studies/{study_id}")["disk_bytes"] == 1000
    lines = dict(
        line.rsplit(" ", 1)
        for line in worker.server.client.get("/metrics").text.splitlines()
        if not line.startswith("#")
    )
    assert lines["bertune_artifact_bytes"] == "1000"
    files = worker.server.get(f"/v1/datasets/{dataset}")["files"].values()
    made_up = 20  # the two files of the built study's data set
    assert int(lines["bertune_dataset_bytes"]) == sum(file["bytes"] for file in files) + made_up
    assert int(lines["bertune_disk_free_bytes"]) > 0
