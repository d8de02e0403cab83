"""What a real agent makes of faults: its own end, its trainer's, the lease's, the disk's."""

import hashlib
import os
import signal
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from lease_server import LeaseServer, StartAgent, agents, is_gone, lease_server
from small_disk import small_disk

from service.worker.checkpoints import finished_epochs

SAVES_EVERY_EPOCH: dict[str, Any] = {"checkpoint_s": 0}


@pytest.fixture
def server() -> Iterator[LeaseServer]:
    with lease_server() as server:
        yield server


@pytest.fixture
def cache(tmp_path: Path) -> Path:
    return tmp_path / "cache"


@pytest.fixture
def start(server: LeaseServer, cache: Path) -> Iterator[StartAgent]:
    with agents(server, cache) as start:
        yield start


def checkpoint(cache: Path, trial: str = "t1") -> Path:
    return cache / "checkpoints" / trial / "state.safetensors"


def test_sigterm_saves_a_checkpoint_and_the_next_lease_of_the_trial_resumes(
    server: LeaseServer, start: StartAgent, cache: Path
) -> None:
    server.add_lease("t1", "wait once")
    first = start()
    first.await_line("trainer: waiting")
    first.process.send_signal(signal.SIGTERM)
    assert server.end(within_s=10) == ("t1", "release", {"reason": "stopping"})
    assert first.exit_status() == 0
    assert finished_epochs(checkpoint(cache)) == 1
    assert server.goodbyes == ["w1"]

    server.add_lease("t1", "wait once", attempt=2)
    start()
    trial, end, result = server.end()
    assert (trial, end, result["state"]) == ("t1", "result", "completed")
    assert result["info"]["resumed_from_epoch"] == 1
    told = [body["resumed_from_epoch"] for body in server.renewals]
    assert [epoch for epoch in told if epoch is not None] == [1]  # before it had a result
    assert server.epochs() == [0, 0, 1, 2]  # the new attempt's record is whole
    assert result["value"] == pytest.approx(0.3)


def test_a_trial_that_ended_leaves_no_checkpoint(
    server: LeaseServer, start: StartAgent, cache: Path
) -> None:
    for trial in ("t1", "t2", "t3"):
        server.add_lease(trial, "nan" if trial == "t2" else "fine")
    server.on_renew = lambda body: (
        "prune" if server.ends.qsize() == 2 and body["reports"] else "continue"
    )
    start(until_idle_s=0, settings=SAVES_EVERY_EPOCH).exit_status()
    assert [server.end()[1] for _ in range(3)] == ["result", "failure", "result"]
    assert list((cache / "checkpoints").iterdir()) == []


def test_a_deaf_trainer_does_not_keep_a_stopping_worker_from_giving_its_trial_back(
    server: LeaseServer, start: StartAgent
) -> None:
    server.add_lease("t1", "deaf")
    worker = start()
    worker.await_line("deaf from here on")
    worker.process.send_signal(signal.SIGTERM)
    assert server.end(within_s=10) == ("t1", "release", {"reason": "stopping"})
    assert worker.exit_status() == 0
    assert is_gone(worker.trainer_pid())


def test_an_upload_that_hangs_does_not_keep_a_stopping_worker_from_giving_its_trial_back(
    server: LeaseServer, start: StartAgent
) -> None:
    server.uploads_open.clear()
    server.add_lease("t1")
    worker = start()
    worker.await_line("study s1 trial t1")
    server.await_upload()
    worker.process.send_signal(signal.SIGTERM)
    assert server.end(within_s=10) == ("t1", "release", {"reason": "stopping"})
    assert worker.process.wait(10) == 0


def test_trials_are_given_back_side_by_side_when_a_stopping_worker_holds_many(
    server: LeaseServer, start: StartAgent
) -> None:
    server.uploads_open.clear()
    server.end_s = 2
    trials = {"t1", "t2", "t3", "t4"}
    for trial in trials:
        server.add_lease(trial)
    worker = start(slots=4)
    for _ in trials:
        server.await_upload()
    worker.process.send_signal(signal.SIGTERM)
    assert worker.process.wait(10) == 0
    assert {server.end()[:2] for _ in trials} == {(trial, "release") for trial in trials}


def test_a_paused_trial_is_saved_and_its_trainer_stays(
    server: LeaseServer, start: StartAgent, cache: Path
) -> None:
    server.add_lease("t1", "wait once")
    worker = start()
    worker.await_line("trainer: waiting")
    server.on_renew = lambda body: "pause"
    assert server.end() == ("t1", "release", {"reason": "paused"})
    assert finished_epochs(checkpoint(cache)) == 1
    assert server.uploads == {}

    server.on_renew = lambda body: "continue"
    server.add_lease("t1", "wait once", attempt=2)
    _, end, result = server.end()
    assert (end, result["info"]["resumed_from_epoch"]) == ("result", 1)
    assert len(worker.await_line("started")) == 1


def test_a_paused_trial_sends_its_checkpoint_where_the_study_wants_that(
    server: LeaseServer, start: StartAgent
) -> None:
    server.add_lease("t1", "wait", checkpoint={"every_epochs": 5})
    worker = start()
    worker.await_line("trainer: waiting")
    server.on_renew = lambda body: "pause"
    assert server.end()[1] == "release"
    assert set(server.uploads) == {"checkpoint-1.safetensors"}


def test_a_pause_while_the_trainer_waits_for_a_decision_saves_too(
    server: LeaseServer, start: StartAgent, cache: Path
) -> None:
    server.on_renew = lambda body: "pause" if body["reports"] else "continue"
    server.add_lease("t1")
    worker = start()
    assert server.end() == ("t1", "release", {"reason": "paused"})
    assert finished_epochs(checkpoint(cache)) == 1
    assert len(worker.await_line("started")) == 1


def test_the_trainer_of_a_lost_lease_is_dead_within_seconds_and_nothing_is_sent_any_more(
    server: LeaseServer, start: StartAgent, cache: Path
) -> None:
    told = threading.Event()

    def lost(_: dict[str, Any]) -> int:
        told.set()
        return 409

    server.add_lease("t1", "deaf")
    worker = start(settings=SAVES_EVERY_EPOCH)
    worker.await_line("deaf from here on")
    server.on_renew = lost
    assert told.wait(10)
    assert is_gone(worker.trainer_pid(), within_s=5)

    server.on_renew = lambda body: "continue"
    server.add_lease("t2")
    assert server.end()[:2] == ("t2", "result")
    assert "t1" not in server.senders()
    assert finished_epochs(checkpoint(cache)) == 1  # good for whoever holds the trial now


def test_a_lease_lost_during_an_upload_kills_the_trainer_that_trains_meanwhile(
    server: LeaseServer, start: StartAgent
) -> None:
    server.add_lease("t1", "deaf", checkpoint={"every_epochs": 1})
    server.uploads_open.clear()
    worker = start()
    server.await_upload()
    worker.await_line("deaf from here on")
    server.on_renew = lambda body: 409
    assert is_gone(worker.trainer_pid(), within_s=5)


def test_a_killed_trainer_costs_no_more_than_the_time_since_the_checkpoint(
    server: LeaseServer, start: StartAgent
) -> None:
    server.add_lease("t1", "wait once")
    worker = start(settings=SAVES_EVERY_EPOCH)
    worker.await_line("trainer: waiting")
    os.kill(worker.trainer_pid(), signal.SIGKILL)
    _, end, failure = server.end()
    assert (end, failure["code"], failure["retry"]) == ("failure", "trainer_crashed", True)

    server.add_lease("t1", "wait once", attempt=2)
    _, end, result = server.end()
    assert (end, result["info"]["resumed_from_epoch"]) == ("result", 1)
    assert len(worker.await_line("started")) == 2


def test_a_checkpoint_is_uploaded_at_the_epochs_the_study_says_and_resumes_elsewhere(
    server: LeaseServer, start: StartAgent, tmp_path: Path
) -> None:
    config = {"model": "scratch:tiny", "epochs": 5, "metric": "macro_f1"}
    server.add_lease("t1", checkpoint={"every_epochs": 2}, config=config)
    start(until_idle_s=0).exit_status()
    assert server.end()[1] == "result"
    sent = {name for name in server.uploads if name.startswith("checkpoint")}
    assert sent == {"checkpoint-2.safetensors", "checkpoint-4.safetensors"}

    remote = server.remote("newest", server.uploads["checkpoint-4.safetensors"])
    del remote["path"]
    server.add_lease("t1", attempt=2, config=config, resume={**remote, "epoch": 4})
    start(until_idle_s=0, cache=str(tmp_path / "elsewhere")).exit_status()
    _, end, result = server.end()
    assert (end, result["info"]["resumed_from_epoch"]) == ("result", 4)
    assert result["info"]["problems"] == []


def test_a_checkpoint_that_cannot_be_fetched_is_a_problem_and_no_failure(
    server: LeaseServer, start: StartAgent
) -> None:
    remote = server.remote("newest", b"as it was")
    server.files["newest"] = b"as it is!"
    del remote["path"]
    server.add_lease("t1", resume={**remote, "epoch": 2})
    start(until_idle_s=0)
    _, end, result = server.end()
    assert (end, result["info"]["resumed_from_epoch"]) == ("result", None)
    [problem] = result["info"]["problems"]
    assert problem.startswith("checkpoint_ignored: ")


def test_a_damaged_copy_of_a_data_file_is_fetched_anew(
    server: LeaseServer, start: StartAgent, cache: Path
) -> None:
    server.add_lease("t1")
    worker = start()
    assert server.end()[1] == "result"
    digest = hashlib.sha256(server.files["train-fine"]).hexdigest()
    copy = cache / "files" / digest[:2] / digest
    copy.write_bytes(b"x" * copy.stat().st_size)

    server.add_lease("t2")
    _, end, failure = server.end()
    assert (end, failure["code"], failure["retry"]) == ("failure", "unreadable_dataset", True)
    assert "train-fine was damaged" in failure["detail"]
    server.add_lease("t2", attempt=2)
    assert server.end()[:2] == ("t2", "result")
    assert len(worker.await_line("started")) == 2  # what the first read may have been wrong


def test_a_data_file_that_is_as_the_server_has_it_and_cannot_be_read_is_final(
    server: LeaseServer, start: StartAgent
) -> None:
    server.add_lease("t1", "unreadable")
    start()
    _, end, failure = server.end()
    assert (end, failure["code"], failure["retry"]) == ("failure", "unreadable_dataset", False)


def test_a_lost_gpu_is_another_try_on_a_new_trainer(server: LeaseServer, start: StartAgent) -> None:
    server.add_lease("t1", "gpu")
    server.add_lease("t2")
    worker = start()
    _, end, failure = server.end()
    assert (end, failure["code"], failure["retry"]) == ("failure", "gpu_lost", True)
    assert server.end()[:2] == ("t2", "result")
    assert len(worker.await_line("started")) == 2


def test_a_full_disk_is_a_named_failure_and_nothing_is_claimed_until_there_is_room(
    server: LeaseServer, start: StartAgent, tmp_path: Path
) -> None:
    with small_disk(tmp_path / "disk") as disk:
        worker = start(cache=str(disk.home), settings={"min_free_bytes": 5_000_000})
        worker.await_line("started")
        disk.fill()
        server.add_lease("t1")
        _, end, failure = server.end()
        assert (end, failure["code"], failure["retry"]) == ("failure", "disk_full", True)
        assert "No space left" in failure["detail"]
        worker.await_line("claims nothing until the disk has room")
        server.add_lease("t2")
        assert not server.waiting.empty()

        disk.clear()
        assert server.end()[:2] == ("t2", "result")
        worker.await_line("the disk has room again")
        worker.close()


def test_a_disk_that_only_the_cache_fills_is_no_reason_to_fail_a_trial_again(
    server: LeaseServer, start: StartAgent, tmp_path: Path
) -> None:
    """There is room enough to claim, and too little for what the trial needs."""
    with small_disk(tmp_path / "disk") as disk:
        old = disk.home / "files" / "00" / "old"
        old.parent.mkdir(parents=True)
        old.write_bytes(bytes(13_000_000))
        server.add_lease("t1")
        lease = server.waiting.get()
        lease["dataset"]["files"]["validation"] = server.remote("large", bytes(10_000_000))
        for attempt in (1, 2):
            server.waiting.put({**lease, "attempt": attempt})
        worker = start(cache=str(disk.home), settings={"min_free_bytes": 1_000_000})
        _, end, failure = server.end()
        assert (end, failure["code"]) == ("failure", "disk_full")
        assert server.end()[:2] == ("t1", "result")
        worker.close()


@pytest.fixture
def small_memory() -> Iterator[Path]:
    """A control group of 500 MB."""
    folder = own_memory_group() / f"bertune-test-{os.getpid()}"
    try:
        folder.mkdir()
        try:
            limit = "memory.max" if (folder / "memory.max").exists() else "memory.limit_in_bytes"
            (folder / limit).write_text("500000000")
            yield folder
        finally:
            folder.rmdir()
    except OSError as error:
        pytest.skip(f"no control group with a memory limit can be made here: {error}")


def own_memory_group() -> Path:
    """Where control groups of this process's own may be made."""
    root, place = Path("/sys/fs/cgroup"), ""
    for line in Path("/proc/self/cgroup").read_text().splitlines():
        _, controllers, path = line.split(":", 2)
        if controllers == "memory":
            return root / "memory" / path.lstrip("/")
        if controllers == "":
            place = path.lstrip("/")
    return root / place


def test_a_trainer_that_the_kernel_kills_for_memory_has_that_name_and_is_not_tried_again(
    server: LeaseServer, start: StartAgent, small_memory: Path
) -> None:
    server.add_lease("t1", "devour")
    server.add_lease("t2")
    worker = start(within=small_memory, until_idle_s=0)
    _, end, failure = server.end()
    assert (end, failure["code"], failure["retry"]) == ("failure", "out_of_memory", False)
    assert "lower batch_size" in failure["detail"]
    assert server.end()[:2] == ("t2", "result")
    assert worker.exit_status() == 0
