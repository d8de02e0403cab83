"""The worker protocol: a real agent process with a real trainer process, a scripted server."""

import io
import signal
import zipfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from lease_server import LeaseServer, StartAgent, agents, is_gone, lease_server


@pytest.fixture
def server() -> Iterator[LeaseServer]:
    with lease_server() as server:
        yield server


@pytest.fixture
def start(server: LeaseServer, tmp_path: Path) -> Iterator[StartAgent]:
    with agents(server, tmp_path / "cache") as start:
        yield start


def test_a_trial_is_trained_reported_and_finished(server: LeaseServer, start: StartAgent) -> None:
    server.on_renew = lambda body: "keep_model" if body["value"] else "continue"
    server.add_lease("t1")
    worker = start(until_idle_s=0)

    trial, end, result = server.end()
    assert worker.exit_status() == 0, worker.log
    assert (trial, end, result["state"]) == ("t1", "result", "completed")
    assert result["value"] == pytest.approx(0.3)
    assert result["confusion"]["matrix"] == [[1, 0], [0, 1]]
    assert result["info"]["problems"] == []
    assert server.epochs() == [0, 1, 2]
    first = next(body for body in server.renewals if body["reports"])
    assert set(first["reports"][0]["metrics"]) == {"macro_f1", "accuracy", "loss"}  # no NaN
    # Asked with the last epoch, and not again.
    (asked,) = [body for body in server.renewals if body["value"]]
    assert asked["value"] == pytest.approx(0.3)
    assert [report["epoch"] for report in asked["reports"]] == [2]
    assert server.claims[0]["device"]["name"] == "fake"
    assert set(server.uploads) == {"model.zip", "predictions.csv", "train.log"}
    with zipfile.ZipFile(io.BytesIO(server.uploads["model.zip"])) as archive:
        assert archive.namelist() == ["weights"]
    assert b"epoch 2" in server.uploads["train.log"]
    assert b"this line must not reach the pipe" in server.uploads["train.log"]


def test_what_a_kept_model_came_to_without_is_told_with_the_result(
    server: LeaseServer, start: StartAgent
) -> None:
    server.on_renew = lambda body: "keep_model" if body["value"] else "continue"
    server.add_lease("t1", onnx=True)
    start(until_idle_s=0).exit_status()
    _, end, result = server.end()
    assert (end, result["info"]["problems"]) == ("result", ["onnx_failed: a fake network"])
    assert "model.zip" in server.uploads


def test_renewals_tell_what_the_trial_is_at(server: LeaseServer, start: StartAgent) -> None:
    server.on_renew = lambda body: "keep_model" if body["value"] else "continue"
    server.add_lease("t1")
    start(until_idle_s=0).exit_status()
    assert server.end()[1] == "result"
    first = next(body for body in server.renewals if body["reports"])
    assert first["stage"] == {"name": "training", "done": 0, "total": 30, "unit": "steps"}


def test_a_model_that_is_not_the_best_is_not_uploaded(
    server: LeaseServer, start: StartAgent
) -> None:
    server.add_lease("t1")
    start(until_idle_s=0).exit_status()
    assert server.end()[1] == "result"
    assert set(server.uploads) == {"predictions.csv", "train.log"}


def test_a_run_that_ends_before_its_last_epoch_offers_its_model_at_the_end(
    server: LeaseServer, start: StartAgent
) -> None:
    server.on_renew = lambda body: "keep_model" if body["value"] else "continue"
    server.add_lease("t1", "end early")
    start(until_idle_s=0).exit_status()
    _, end, result = server.end()
    assert (end, result["state"], result["value"]) == ("result", "completed", pytest.approx(0.2))
    assert server.epochs() == [0, 1]
    (asked,) = [body for body in server.renewals if body["value"]]
    assert (asked["value"], asked["reports"]) == (pytest.approx(0.2), [])
    assert "model.zip" in server.uploads


def test_a_pruned_trial_ends_at_the_epoch_that_pruned_it(
    server: LeaseServer, start: StartAgent
) -> None:
    server.on_renew = lambda body: (
        "prune" if any(report["epoch"] == 1 for report in body["reports"]) else "continue"
    )
    server.add_lease("t1")
    start(until_idle_s=0).exit_status()
    _, end, result = server.end()
    assert (end, result["state"], result["value"]) == ("result", "pruned", pytest.approx(0.2))
    assert server.epochs() == [0, 1]
    assert "model.zip" not in server.uploads


def test_an_evaluation_scores_the_uploaded_model(server: LeaseServer, start: StartAgent) -> None:
    archive = io.BytesIO()
    with zipfile.ZipFile(archive, "w") as content:
        content.writestr("weights", "{...}")
    model = {"kind": "artifact", "name": "t0", "key": "t0"}
    files = [server.remote("model.zip", archive.getvalue())]
    server.add_lease("t1", kind="evaluate", split="test", model={**model, "files": files})
    worker = start(until_idle_s=0)
    _, end, result = server.end()
    assert (end, result["value"]) == ("result", 0.5), worker.log
    assert not any(body["value"] for body in server.renewals)


def test_a_cancelled_trial_stops_and_its_trainer_takes_the_next(
    server: LeaseServer, start: StartAgent
) -> None:
    server.on_renew = lambda body: "cancel" if 0 in server.epochs() else "continue"
    server.add_lease("t1", "wait")
    worker = start()
    worker.await_line("trial t1 cancelled")
    server.on_renew = lambda body: "continue"
    server.add_lease("t2")
    assert server.end()[:2] == ("t2", "result")
    assert len(worker.await_line("started")) == 1


def test_a_trainer_that_does_not_stop_when_cancelled_is_killed(
    server: LeaseServer, start: StartAgent
) -> None:
    server.add_lease("t1", "deaf")
    worker = start()
    worker.await_line("deaf from here on")
    server.on_renew = lambda body: "cancel"
    worker.await_line("trial t1 cancelled")
    assert is_gone(worker.trainer_pid())
    server.on_renew = lambda body: "continue"
    server.add_lease("t2")
    assert server.end()[:2] == ("t2", "result")


def test_a_lost_lease_kills_the_trainer_and_nothing_more_is_said_of_it(
    server: LeaseServer, start: StartAgent
) -> None:
    server.add_lease("t1", "deaf")
    worker = start()
    worker.await_line("deaf from here on")
    server.on_renew = lambda body: 409
    worker.await_line("trial t1 lost")
    assert is_gone(worker.trainer_pid())
    server.on_renew = lambda body: "continue"
    server.add_lease("t2")
    assert server.end()[:2] == ("t2", "result")
    assert "t1" not in server.uploads


def test_a_trainer_that_dies_is_reported_with_its_last_words_and_replaced(
    server: LeaseServer, start: StartAgent
) -> None:
    server.add_lease("t1", "die")
    server.add_lease("t2")
    worker = start(until_idle_s=0)
    trial, end, failure = server.end()
    assert (trial, end, failure["code"], failure["retry"]) == (
        *("t1", "failure"),
        *("trainer_crashed", True),
    )
    assert "SIGKILL" in failure["detail"]
    assert "last words" in failure["detail"]
    assert server.end()[:2] == ("t2", "result")
    assert worker.exit_status() == 0
    assert len(worker.await_line("started")) == 2


def test_an_unforeseen_error_may_be_tried_again_on_a_new_trainer(
    server: LeaseServer, start: StartAgent
) -> None:
    server.add_lease("t1", "raise")
    server.add_lease("t2")
    worker = start(until_idle_s=0)
    _, end, failure = server.end()
    assert (end, failure["code"], failure["retry"]) == ("failure", "trainer_error", True)
    assert "something unforeseen" in failure["detail"]
    assert server.end()[:2] == ("t2", "result")
    assert worker.exit_status() == 0
    assert len(worker.await_line("started")) == 2


def test_a_fault_of_the_configuration_is_final_and_the_trainer_stays(
    server: LeaseServer, start: StartAgent
) -> None:
    server.add_lease("t1", "nan")
    server.add_lease("t2")
    worker = start(until_idle_s=0)
    _, end, failure = server.end()
    assert (end, failure) == (
        "failure",
        {"code": "nan_loss", "detail": "The loss is NaN.", "retry": False},
    )
    assert server.end()[:2] == ("t2", "result")
    assert worker.exit_status() == 0
    assert len(worker.await_line("started")) == 1


def test_a_file_that_is_not_what_the_lease_says_fails_the_attempt(
    server: LeaseServer, start: StartAgent
) -> None:
    server.add_lease("t1")
    server.files["validation"] = b"something else"
    worker = start(until_idle_s=0)
    _, end, failure = server.end()
    assert (end, failure["code"], failure["retry"]) == ("failure", "bad_download", True)
    worker.await_line("claims nothing for 0 s")


def test_a_worker_waits_longer_after_each_lease_that_it_cannot_work_on(
    server: LeaseServer, start: StartAgent
) -> None:
    for trial in ("t1", "t2", "t3", "t4"):
        server.add_lease(trial)
    server.files["validation"] = b"something else"
    worker = start()
    for _ in range(4):
        assert server.end()[1] == "failure"
    worker.await_line("claims nothing for 3 s")  # 0.1 s, tripled three times


def test_sigterm_gives_the_trial_back(server: LeaseServer, start: StartAgent) -> None:
    server.add_lease("t1", "deaf")
    worker = start()
    worker.await_line("deaf from here on")
    worker.process.send_signal(signal.SIGTERM)
    assert server.end() == ("t1", "release", {"reason": "stopping"})
    assert worker.process.wait(10) == 0
    assert is_gone(worker.trainer_pid())


def test_sigterm_ends_a_worker_whose_server_fails_on_every_call(
    server: LeaseServer, start: StartAgent
) -> None:
    server.add_lease("t1", "deaf")
    worker = start()
    worker.await_line("deaf from here on")
    server.status = 500
    worker.process.send_signal(signal.SIGTERM)
    assert worker.process.wait(10) == 0
    assert is_gone(worker.trainer_pid())
    assert "trial t1 not released" in worker.log


def test_sigterm_ends_an_idle_worker(server: LeaseServer, start: StartAgent) -> None:
    worker = start()
    pid = worker.trainer_pid()
    worker.process.send_signal(signal.SIGINT)
    assert worker.process.wait(10) == 0
    assert is_gone(pid)


def test_a_second_signal_ends_the_worker_at_once(server: LeaseServer, start: StartAgent) -> None:
    server.add_lease("t1", "deaf")
    worker = start()
    worker.await_line("deaf from here on")
    server.status = 503  # so that the first signal cannot give the trial back
    worker.process.send_signal(signal.SIGTERM)
    worker.await_line("shutting down")
    worker.process.send_signal(signal.SIGTERM)
    assert worker.process.wait(5) == 128 + signal.SIGTERM
    assert is_gone(worker.trainer_pid())


def test_a_trainer_dies_with_its_agent(server: LeaseServer, start: StartAgent) -> None:
    server.add_lease("t1", "deaf")
    worker = start()
    worker.await_line("deaf from here on")
    worker.process.kill()
    assert is_gone(worker.trainer_pid())


def test_a_trial_outlives_an_absence_of_the_server(server: LeaseServer, start: StartAgent) -> None:
    calls = iter([503] * 3)
    server.on_renew = lambda body: next(calls, "continue") if body["reports"] else "continue"
    server.add_lease("t1")
    worker = start(until_idle_s=0)
    assert server.end()[1] == "result"
    assert worker.exit_status() == 0
    assert server.epochs() == [0, 0, 0, 0, 1, 2]


def test_an_orphan_is_killed_and_handed_back_when_the_server_returns(
    server: LeaseServer, start: StartAgent
) -> None:
    server.add_lease("t1", "deaf")
    worker = start(settings={"orphan_s": 0.5})
    worker.await_line("deaf from here on")
    server.status = 503
    worker.await_line("trial t1 orphaned")
    assert is_gone(worker.trainer_pid())
    server.status = 0
    assert server.end() == ("t1", "release", {"reason": "orphaned"})
    server.add_lease("t2")
    assert server.end()[:2] == ("t2", "result")


def test_a_refused_key_ends_the_worker_with_the_reason(
    server: LeaseServer, start: StartAgent
) -> None:
    server.status = 401
    worker = start()
    assert worker.exit_status() == 1
    assert "refuses this worker: as told (401 told_to_fail)" in worker.log


def test_a_trainer_that_cannot_start_ends_the_worker_with_the_reason(
    server: LeaseServer, start: StartAgent
) -> None:
    worker = start(trainer="no_such_trainer")
    assert worker.exit_status() == 1
    assert "No module named no_such_trainer" in worker.log
    assert server.claims == []
