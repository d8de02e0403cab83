"""Failed trials on Optuna's pages, which show some of them as pruned: a note says why."""

import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from builders import make_study, result_request
from queue_server import QueueServer, queue_server

from service.store.artifacts import put_artifact
from service.store.database import Database
from service.store.tables import Trial
from studies.search.study_key import StudyKey
from studies.wire.leases import FailureRequest

TOO_LARGE = FailureRequest(code="out_of_memory", detail="One row does not fit; lower max_length.")


@pytest.fixture
def server(database: Database, tmp_path: Path) -> Iterator[QueueServer]:
    with queue_server(database, tmp_path) as server:
        yield server


@pytest.fixture
def notes(server: QueueServer, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The notes on trials' pages, as they are written."""
    written: list[str] = []
    write = server.optuna.set_trial_note

    def record(key: object, optuna_trial_id: int, note: str) -> None:
        written.append(note)
        write(key, optuna_trial_id, note)  # type: ignore[arg-type]

    monkeypatch.setattr(server.optuna, "set_trial_note", record)
    return written


def test_a_trial_that_fails_gets_a_note_with_its_error(
    server: QueueServer, notes: list[str]
) -> None:
    make_study(server.database, n_trials=2)
    server.dispatcher.fail(server.claim().trial_id, 1, TOO_LARGE)
    server.dispatcher.pages.flush()
    (note,) = notes
    assert note.startswith("## Trial 0 failed: out_of_memory\n")
    assert "One row does not fit; lower max_length." in note


def test_failures_whose_notes_a_dead_server_left_unwritten_are_noted_once(
    server: QueueServer, notes: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    study_id = make_study(server.database, n_trials=3)
    monkeypatch.setattr(server.dispatcher.pages, "refresh", lambda *_: None)
    server.dispatcher.fail(server.claim().trial_id, 1, TOO_LARGE)
    server.dispatcher.finish(server.claim().trial_id, 1, result_request(0.5))
    plan = server.dispatcher.plans.of(study_id)
    for _ in range(2):
        server.dispatcher.pages.catch_up(plan)
    server.dispatcher.pages.flush()
    assert sorted(note.splitlines()[0] for note in notes) == [
        "## Trial 0 failed: out_of_memory",
        "## Trial 1: macro_f1 0.5000",
    ]


def test_a_server_that_stops_leaves_old_notes_to_the_next_one(
    database: Database, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A study of thousands without notes would keep it from stopping for long."""
    noted: list[int] = []
    with queue_server(database, tmp_path) as server:
        study_id = make_study(database, n_trials=3)
        pages, optuna = server.dispatcher.pages, server.optuna
        monkeypatch.setattr(pages, "refresh", lambda *_: None)
        for _ in range(3):
            server.dispatcher.finish(server.claim().trial_id, 1, result_request(0.5))
        stopping, write = threading.Thread(target=pages.close), optuna.set_trial_note

        def stop_meanwhile(key: StudyKey, optuna_trial_id: int, note: str) -> None:
            noted.append(optuna_trial_id)
            if len(noted) == 1:
                stopping.start()
                assert pages._closing.wait(10)
            write(key, optuna_trial_id, note)

        monkeypatch.setattr(optuna, "set_trial_note", stop_meanwhile)
        pages.catch_up(server.dispatcher.plans.of(study_id)).result()
        stopping.join()
        assert len(noted) == 1
    with queue_server(database, tmp_path) as server:
        key = server.dispatcher.plans.of(study_id).key
        server.reconciler.step()
        server.dispatcher.pages.flush()
        assert len(server.optuna.noted_trials(key)) == 3
        assert server.optuna.note(key) is not None


def test_a_failed_evaluation_is_on_no_trials_page(server: QueueServer, notes: list[str]) -> None:
    make_study(server.database, n_trials=1, test_rows=True)
    trained = server.claim()
    with server.database.transaction() as session:
        trial = session.get_one(Trial, trained.trial_id)
        put_artifact(session, trial, "model.zip", sha256="b" * 64, size_bytes=7)
    server.dispatcher.finish(trained.trial_id, 1, result_request(0.5))
    evaluation = server.claim()
    assert evaluation.kind == "evaluate"
    server.dispatcher.fail(evaluation.trial_id, evaluation.attempt, TOO_LARGE)
    server.dispatcher.pages.flush()
    assert [note.splitlines()[0] for note in notes] == ["## Trial 0: macro_f1 0.5000"]


def test_a_trial_that_no_worker_ended_is_noted_by_the_reconciler(
    server: QueueServer, notes: list[str]
) -> None:
    server.context.settings.max_lost = 1
    make_study(server.database, n_trials=2)
    server.reconciler.step()
    server.claim()
    server.let_leases_lapse()
    server.reconciler.step()
    server.dispatcher.pages.flush()
    (note,) = notes
    assert note.startswith("## Trial 0 failed: worker_lost\n")
