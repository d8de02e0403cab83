"""Which checkpoint a lease goes on from, and which ones the server gets."""

import hashlib
import json
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, BinaryIO

import pytest
import torch
from safetensors.torch import save_file

from service.worker.checkpoints import finished_epochs
from service.worker.lease_checkpoint import LeaseCheckpoint
from service.worker.server_link import RefusedError
from studies.wire.leases import CheckpointUpload, Lease, LeaseDataset, LeaseModel, Resume


def write_checkpoint(path: Path, epochs: int) -> Path:
    save_file({"w": torch.zeros(3)}, path, metadata={"finished_epochs": str(epochs)})
    return path


def make_lease(**changes: Any) -> Lease:
    return Lease(
        trial_id="t1",
        attempt=2,
        kind="train",
        study_id="s1",
        study_name="study",
        number=0,
        config={"epochs": 6},
        dataset=LeaseDataset(id="d1", labels=["a", "b"], files={}, indices=None),
        model=LeaseModel(kind="scratch", name="scratch:tiny", key="k"),
        split="validation",
        lease_s=60,
        renew_s=15,
        lease_expires_at=datetime(2026, 1, 1, tzinfo=UTC),
        **changes,
    )


def resume(content: bytes, epoch: int) -> Resume:
    digest = hashlib.sha256(content).hexdigest()
    return Resume(url="/resume", sha256=digest, bytes=len(content), epoch=epoch)


def sends(content: bytes) -> Any:
    def download(url: str, sink: BinaryIO) -> None:
        assert url == "/resume"
        sink.write(content)

    return download


def no_download(*_: Any) -> None:
    pytest.fail("nothing had to be fetched")


def test_the_finished_epochs_stand_in_the_header(tmp_path: Path) -> None:
    assert finished_epochs(write_checkpoint(tmp_path / "state", 12)) == 12


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"short",
        b"\xff" * 100,
        (2).to_bytes(8, "little") + b"{}",
        (2).to_bytes(8, "little") + b"[]",
        (7).to_bytes(8, "little") + b'{"a": 1',
        (9).to_bytes(8, "little") + json.dumps({"a": None}).encode(),
    ],
)
def test_a_file_that_is_no_checkpoint_has_no_finished_epochs(
    tmp_path: Path, content: bytes
) -> None:
    path = tmp_path / "state"
    path.write_bytes(content)
    assert finished_epochs(path) is None


def test_without_any_checkpoint_a_run_begins_anew(tmp_path: Path) -> None:
    checkpoint = LeaseCheckpoint(make_lease(), tmp_path / "state")
    assert checkpoint.to_resume(no_download, tmp_path, []) is None
    assert checkpoint.artifact_name() is None


@pytest.mark.parametrize(("remote_epoch", "fetched"), [(1, False), (2, False), (3, True)])
def test_the_servers_checkpoint_is_taken_only_where_it_is_further_on(
    tmp_path: Path, remote_epoch: int, fetched: bool
) -> None:
    own = write_checkpoint(tmp_path / "state", 2)
    checkpoint = LeaseCheckpoint(make_lease(resume=resume(b"remote", remote_epoch)), own)
    found = checkpoint.to_resume(sends(b"remote") if fetched else no_download, tmp_path, [])
    assert found == (tmp_path / "resume.safetensors" if fetched else own)


def test_a_broken_one_of_this_machine_gives_way_to_the_servers(tmp_path: Path) -> None:
    (tmp_path / "state").write_bytes(b"torn")
    checkpoint = LeaseCheckpoint(make_lease(resume=resume(b"r", 0)), tmp_path / "state")
    assert checkpoint.to_resume(sends(b"r"), tmp_path, []) == tmp_path / "resume.safetensors"


def test_one_of_this_machine_that_was_refused_gives_way_to_the_servers(tmp_path: Path) -> None:
    own = write_checkpoint(tmp_path / "state", 5)
    checkpoint = LeaseCheckpoint(make_lease(resume=resume(b"r", 3)), own)
    chosen = checkpoint.to_resume(no_download, tmp_path, [])
    assert checkpoint.replaceable(chosen)
    checkpoint.discard_own()
    fetched = checkpoint.to_resume(sends(b"r"), tmp_path, [])
    assert fetched == tmp_path / "resume.safetensors"
    assert not checkpoint.replaceable(fetched)
    assert not own.exists()  # nor is it sent to the server as the newest


def test_without_one_at_the_server_this_machines_is_not_replaceable(tmp_path: Path) -> None:
    own = write_checkpoint(tmp_path / "state", 5)
    checkpoint = LeaseCheckpoint(make_lease(), own)
    assert not checkpoint.replaceable(checkpoint.to_resume(no_download, tmp_path, []))
    assert not checkpoint.replaceable(None)


def fails(error: Exception) -> Any:
    def download(url: str, sink: BinaryIO) -> None:
        sink.write(b"part of it")
        raise error

    return download


@pytest.mark.parametrize(
    "download",
    [
        sends(b"another"),
        fails(RefusedError(404, "unknown_artifact", "gone")),
        fails(OSError(28, "No space left on device")),
    ],
    ids=["hash", "gone", "full"],
)
def test_one_that_cannot_be_fetched_is_a_problem_and_this_machines_is_taken(
    tmp_path: Path, download: Any
) -> None:
    own = write_checkpoint(tmp_path / "state", 1)
    problems: list[str] = []
    checkpoint = LeaseCheckpoint(make_lease(resume=resume(b"remote", 5)), own)
    assert checkpoint.to_resume(download, tmp_path, problems) == own
    assert [problem.partition(":")[0] for problem in problems] == ["checkpoint_ignored"]
    assert not (tmp_path / "resume.safetensors").exists()


def test_the_server_gets_every_nth_epochs_end_but_the_last(tmp_path: Path) -> None:
    def wanted(upload: CheckpointUpload | None) -> list[int]:
        checkpoint = LeaseCheckpoint(make_lease(checkpoint=upload), tmp_path / "state")
        return [epoch for epoch in range(6) if checkpoint.wanted_after(epoch)]

    assert wanted(None) == []
    assert wanted(CheckpointUpload(every_epochs=1)) == [0, 1, 2, 3, 4]
    assert wanted(CheckpointUpload(every_epochs=2)) == [1, 3]
    assert wanted(CheckpointUpload(every_epochs=3)) == [2]


def test_a_checkpoint_that_is_sent_is_named_for_its_finished_epochs(tmp_path: Path) -> None:
    own = write_checkpoint(tmp_path / "state", 4)
    asked = make_lease(checkpoint=CheckpointUpload(every_epochs=5))
    assert LeaseCheckpoint(asked, own).artifact_name() == "checkpoint-4.safetensors"
    assert LeaseCheckpoint(make_lease(), own).artifact_name() is None
