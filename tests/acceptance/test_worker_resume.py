"""Trials that change hands in their midst: what the next attempt takes over, and what comes out."""

import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest
from real_parts import Worker, submit, tickets, until

from studies.api import Api
from studies.wire.leases import checkpoint_name

CHECKPOINT = checkpoint_name(1)
TRAINING = {"epochs": 8, "max_length": 16, "batch_size": 8, "dropout": 0.2}


@contextmanager
def working(url: str, key: str, folder: Path, name: str) -> Iterator[Worker]:
    """A worker with the fake trainer, whose cache lies in ``folder``; killed at the end."""
    folder.mkdir(exist_ok=True)
    worker = Worker(url, key, folder, name, "fake_trainer")
    try:
        yield worker
    finally:
        worker.process.kill()
        worker.process.wait(20)


def artifacts(url: str, key: str, study: str) -> set[str]:
    """The names of the files that the study's first trial has at the server."""
    answer = httpx.get(
        f"{url}/v1/studies/{study}/trials/0/artifacts", headers={"Authorization": f"Bearer {key}"}
    )
    return {artifact["name"] for artifact in answer.raise_for_status().json()["items"]}


def log_of(worker: Worker) -> Callable[[], str]:
    return lambda: worker.log


def figures(client: Api, study: str) -> dict[str, Any]:
    """Everything that training decided."""
    trial = client.trial(study, 0)
    return {
        "params": trial.params,
        "value": trial.value,
        "metrics": trial.metrics,
        "epochs": [(epoch.epoch, epoch.metrics) for epoch in trial.epochs],
        "per_class": [scores.model_dump() for scores in trial.per_class],
        "matrix": client.confusion(study, 0).matrix,
    }


def test_sigterm_in_mid_trial_and_another_worker_give_the_same_result_as_no_disturbance(
    client: Api, each_server: tuple[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OMP_WAIT_POLICY", "PASSIVE")  # threads that spin starve on a busy machine
    data = tickets(tmp_path, rows=120)
    studies = [submit(client, data, name=name, training=TRAINING) for name in ("a", "b")]
    disturbed, undisturbed = studies
    first = Worker(*each_server, tmp_path, "w1", None)
    second: Worker | None = None
    try:
        until(lambda: client.trial(disturbed, 0).epochs, log_of(first))
        first.process.send_signal(signal.SIGTERM)
        assert first.process.wait(20) == 0, first.log
        held = client.trial(disturbed, 0)
        assert (held.state, held.attempt) == ("queued", 1), first.log

        second = Worker(*each_server, tmp_path, "w2", None)
        until(lambda: all(client.study(study).finished_at for study in studies), log_of(second))
        until(lambda: not list((tmp_path / "cache" / "checkpoints").iterdir()), log_of(second))
    finally:
        for worker in (first, second):
            if worker is not None:
                worker.process.kill()
                worker.process.wait(20)

    assert figures(client, disturbed) == figures(client, undisturbed)
    attempts = client.trial(disturbed, 0).attempts
    assert [attempt.outcome for attempt in attempts] == ["released", "completed"]
    assert attempts[1].resumed_from_epoch is not None
    assert attempts[1].resumed_from_epoch >= 1
    assert attempts[1].problems == []


def test_a_dead_workers_trial_goes_on_elsewhere_from_the_checkpoint_at_the_server(
    client: Api, each_server: tuple[str, str], tmp_path: Path
) -> None:
    data = tickets(tmp_path, "wait once")
    study = submit(client, data, checkpoint={"upload": True}, training={"epochs": 3})
    with working(*each_server, tmp_path / "one", "w1") as first:
        until(lambda: "trainer: waiting" in first.log, log_of(first))
        until(lambda: CHECKPOINT in artifacts(*each_server, study), log_of(first))
        first.process.kill()
    with working(*each_server, tmp_path / "two", "w2") as second:
        until(lambda: client.study(study).finished_at, log_of(second))
    attempts = client.trial(study, 0).attempts
    assert [attempt.outcome for attempt in attempts] == ["lost", "completed"]
    assert attempts[1].resumed_from_epoch == 1
    assert [epoch.epoch for epoch in client.trial(study, 0).epochs] == [0, 1, 2]


def test_a_preempted_study_goes_on_where_it_stood_on_the_trainer_that_stayed(
    client: Api, each_server: tuple[str, str], tmp_path: Path
) -> None:
    study = submit(client, tickets(tmp_path, "wait once"))
    with working(*each_server, tmp_path, "w1") as worker:
        until(lambda: "trainer: waiting" in worker.log, log_of(worker))
        client.pause(study, "preempt")
        until(lambda: client.trial(study, 0).state == "queued", log_of(worker))
        client.resume(study)
        until(lambda: client.study(study).finished_at, log_of(worker))
        assert len(worker.trainer_pids()) == 1
    attempts = client.trial(study, 0).attempts
    assert [attempt.outcome for attempt in attempts] == ["released", "completed"]
    assert attempts[1].resumed_from_epoch == 1
    assert client.study(study).state == "completed"
